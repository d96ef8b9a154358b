"""What pages are made of: the frame, figures with captions, tiles of single numbers."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from ..._version import __version__
from .page_style import STYLE


def whole_page(title: str, body: str, note: str = "") -> str:
    """A self-contained page. title, note (at its end): plain texts. body: HTML."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body><main>"
        f"<h1>{escape(title)}</h1>{body}"
        f"<footer>Tensmith {escape(__version__)}{escape(note)}</footer></main></body></html>\n"
    )


def figure(title: str, note: str, drawing: str) -> str:
    """A drawing (HTML) under its title and a note (plain texts)."""
    return (
        f"<figure><figcaption><h3>{escape(title)}</h3><p>{escape(note)}</p></figcaption>"
        f"{drawing}</figure>"
    )


def tiles(shown: Iterable[tuple[str, str, str]]) -> str:
    """Numbers side by side: (name, value, note) of each, plain texts."""
    cells = (
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd><small>{escape(note)}</small></div>"
        for name, value, note in shown
    )
    return f'<dl class="tiles">{"".join(cells)}</dl>'
