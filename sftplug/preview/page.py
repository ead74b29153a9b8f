"""One page of HTML that needs nothing else: no network, no script, nothing of a row's text that is not text."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from sftplug.preview.collect import PreviewRow, PreviewToken

_STYLE = """
body { font: 14px/1.6 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem; color: #1c2024; }
.row { border: 1px solid #d8dce0; border-radius: 6px; margin: 1rem 0; padding: .8rem 1rem; }
.row h2 { font-size: 1rem; margin: 0 0 .5rem; }
.tokens { font-family: ui-monospace, monospace; white-space: pre-wrap; overflow-wrap: anywhere; }
.t { border-radius: 2px; color: #8a929a; }
.t:hover { outline: 1px solid #1c2024; }
.w { background: #c9efd2; color: #0d4a1f; }
.f { background: #fbe9a9; color: #5c4600; }
.turn { color: #2463b8; font-weight: 600; }
.border { background: #2463b8; color: #fff; padding: 0 .3rem; }
.limit { background: #b3261e; color: #fff; padding: 0 .3rem; }
.reasoning { font-style: italic; } .tool_call { text-decoration: underline; } .end_of_turn { font-weight: 700; }
.note { color: #8a5a00; }
table { border-collapse: collapse; } td, th { padding: .2rem .8rem .2rem 0; text-align: left; }
"""


def to_html(title: str, rows: Sequence[PreviewRow], facts: Sequence[tuple[str, str]]) -> str:
    """Return a page with `facts` as a table, and the rows with each token's id, part and weight on hover."""
    table = "".join(f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>" for name, value in facts)
    body = "\n".join(_row(row) for row in rows)
    # The policy makes sure of what the escaping already does: nothing in the page runs or is fetched.
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>\n"
        f"<body><h1>{escape(title)}</h1><table>{table}</table>\n{body}\n</body></html>\n"
    )


def _row(row: PreviewRow) -> str:
    pieces: list[str] = []
    message: Any = None
    for index, token in enumerate(row.tokens):
        if index == row.limit:
            pieces.append(f'<span class="limit">max_length {row.limit}</span>')
        if index in row.borders:
            pieces.append('<span class="border">next document</span>\n')
        if token.message != message and token.message >= 0:
            pieces.append(f'<span class="turn">[{token.message} {escape(token.role)}]</span>')
        message = token.message
        pieces.append(_token(token))
    notes = "".join(f'<p class="note">{escape(note)}</p>' for note in row.notes)
    what = f"row {row.index}" if row.limit is None else f"dropped: {len(row.tokens)} tokens"
    head = f"{what} · {escape(row.origin)}"
    return f'<section class="row"><h2>{head}</h2><div class="tokens">{"".join(pieces)}</div>{notes}</section>'


def _token(token: PreviewToken) -> str:
    kind = "t" if token.weight == 0 else "t w" if token.weight == 1 else "t f"
    about = f"id {token.id} · {token.role} · {token.part} · weight {token.weight:g} · message {token.message}"
    return f'<span class="{kind} {token.part}" title="{escape(about)}">{escape(_visible(token.text))}</span>'


def _visible(text: str) -> str:
    """Show line ends, and control characters that HTML cannot hold."""
    shown = text.replace("\n", "⏎\n")
    return "".join(c if c.isprintable() or c in "\n\t" else f"\\x{ord(c):02x}" for c in shown)
