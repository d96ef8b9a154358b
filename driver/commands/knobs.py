"""`tensmith knobs`: every setting that comes from the environment."""

from __future__ import annotations

from ..options import Json


def command(json: Json = False) -> None:
    """List the settings that come from the environment."""
    from ...compiler.knobs import KNOBS
    from ..console import Console

    console = Console(json=json)
    console.result(
        {
            "knobs": [
                {
                    "name": knob.name,
                    "variable": knob.variable,
                    "type": knob.type,
                    "default": knob.default,
                    "value": knob.value,
                    "help": knob.help,
                }
                for knob in KNOBS
            ]
        }
    )
    rows = [
        (knob.name, knob.variable, knob.type, repr(knob.default), repr(knob.value), knob.help)
        for knob in KNOBS
    ]
    columns = ("name", "variable", "type", "default", "now", "meaning")
    console.table("Settings", columns, rows, left=len(columns))
