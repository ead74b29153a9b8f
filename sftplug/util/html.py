"""What the pages of HTML share: one look, one frame that lets nothing run or be fetched, and text that stays text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from sftplug.util.text import visible

STYLE = """
:root { color-scheme: light dark; --page: #fff; --ink: #1c2024; --pale: #5f6b76; --line: #d8dce0; --card: #fafbfc;
  --trained: #c3ecce; --on-trained: #0b3d1a; --part: #f7e3a1; --on-part: #4d3b00; --turn: #1f5fb4; --stop: #b3261e;
  --note: #8a5a00; }
@media (prefers-color-scheme: dark) { :root { --page: #14171a; --ink: #e6e9ec; --pale: #97a3ae; --line: #343b42;
  --card: #1b1f23; --trained: #1d4d2c; --on-trained: #c9f2d5; --part: #5a4a12; --on-part: #fbe9a9; --turn: #7fb2f5;
  --stop: #f28b82; --note: #e0b050; } }
* { box-sizing: border-box; }
body { font: 15px/1.6 system-ui, sans-serif; margin: 2.5rem auto; max-width: 72rem; padding: 0 1.2rem;
  color: var(--ink); background: var(--page); }
h1 { font-size: 1.5rem; margin: 0 0 1rem; overflow-wrap: anywhere; }
table { border-collapse: collapse; } th, td { padding: .1rem 1.2rem .1rem 0; text-align: left; vertical-align: top; }
th { font-weight: 500; color: var(--pale); } td { font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
"""
# The policy makes sure of what the escaping already does: nothing in the page runs or is fetched.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


def page(title: str, body: str, style: str = "") -> str:
    """Return a whole page; `body` and `style` are HTML and CSS of ours, `title` is text."""
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        f"<title>{text(title)}</title><style>{STYLE}{style}</style></head>\n"
        f"<body><h1>{text(title)}</h1>{body}</body></html>\n"
    )


def text(value: object) -> str:
    """Return `value` as HTML that shows it and is nothing else; also for attributes in double quotes."""
    return escape(visible(str(value)))


def facts_table(facts: Iterable[tuple[str, object]]) -> str:
    """Return a table of names and values."""
    rows = "".join(f"<tr><th>{text(name)}</th><td>{text(value)}</td></tr>" for name, value in facts)
    return f"<table>{rows}</table>"


def table(heads: Sequence[str], rows: Iterable[Sequence[object]], kind: str = "grid") -> str:
    """Return a table with a line of heads; every cell is text."""
    head = "".join(f"<th>{text(name)}</th>" for name in heads)
    body = "".join("<tr>" + "".join(f"<td>{text(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="wide"><table class="{kind}"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
