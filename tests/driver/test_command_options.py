"""Options of a compilation: which commands have them, and that all say the same of them."""

from __future__ import annotations

import pytest
import typer
from typer.testing import CliRunner

from tensmith.driver import cli

USUAL = ("target", "opt_level", "threads", "shape")
NPU = ("system_config", "memory_mode", "optimise")
LOWER_PRECISION = (
    "precision", "calibration", "max_accuracy_drop", "eval", "metric", "fresh", "block",
    "force_precision",
)  # fmt: skip
OPTIONS = {
    "bench": USUAL,
    "cascade": USUAL,
    "check": ("target", *NPU, "shape"),
    "compile": (*USUAL, *NPU, *LOWER_PRECISION, "allow_reordering"),
    "inspect": (*USUAL, "precision", "calibration"),
    "quantize": ("threads", "shape"),
    "reduce": ("target", "opt_level", "shape"),
    "run": (*USUAL, "calibration"),
    "tune": (*USUAL, *LOWER_PRECISION, "allow_reordering"),
    "verify": (*USUAL, *NPU),
}


def options_of(command: str) -> dict[str, tuple[object, ...]]:
    """What the command line says of each parameter of a command: flags, metavar, help, default."""
    made = typer.main.get_command(cli.app).commands[command]
    return {
        own.name: (own.opts, own.metavar, getattr(own, "help", None), own.default)
        for own in made.params
    }


@pytest.mark.parametrize(("command", "expected"), OPTIONS.items())
def test_options_of_compilations_are_in_one_place(command: str, expected: tuple[str, ...]) -> None:
    """Each command has its options of a compilation, as `compile` has them, and prints them."""
    taken, all_of_them = options_of(command), options_of("compile")
    assert {name: taken.get(name) for name in expected} == {
        name: all_of_them[name] for name in expected
    }
    told = CliRunner().invoke(cli.app, [command, "--help"]).stdout
    for name in expected:
        (flags, *_) = taken[name]
        assert flags[0] in told
