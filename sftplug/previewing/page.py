"""One page of HTML that needs nothing else: no network, no script, nothing of a row's text that is not text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sftplug.previewing.collect import PreviewRow, PreviewToken
from sftplug.util import html

STYLE = """
.legend { margin: 1.2rem 0; color: var(--pale); font-size: .9rem; } .legend span { margin-right: 1rem; }
.row { border: 1px solid var(--line); background: var(--card); border-radius: 8px; margin: 1.2rem 0;
  padding: .8rem 1.1rem 1rem; }
.row h2 { font-size: .95rem; margin: 0 0 .6rem; display: flex; flex-wrap: wrap; gap: .2rem 1.2rem; }
.row h2 span { font-weight: 400; color: var(--pale); overflow-wrap: anywhere; }
.tokens { font: 13.5px/1.75 ui-monospace, "SF Mono", Menlo, Consolas, monospace; white-space: pre-wrap;
  overflow-wrap: anywhere; }
.t { color: var(--pale); padding: .1em 0; position: relative; }
.w { background: var(--trained); color: var(--on-trained); } .f { background: var(--part); color: var(--on-part); }
.t:hover { outline: 2px solid var(--turn); outline-offset: -1px; border-radius: 3px; }
.t:hover::after { content: attr(data-about); position: absolute; left: 0; top: 1.9em; z-index: 1; padding: .2rem .6rem;
  border-radius: 5px; background: var(--ink); color: var(--page); font: 12px/1.5 system-ui, sans-serif;
  white-space: nowrap; pointer-events: none; }
.reasoning { font-style: italic; } .tool_call { text-decoration: underline dotted; }
.end_of_turn { font-weight: 700; }
.turn { color: var(--turn); font: 600 11px/1 system-ui, sans-serif; border: 1px solid; border-radius: 4px;
  padding: .15em .45em; margin: 0 .35em 0 0; }
.border, .limit { color: var(--page); background: var(--turn); border-radius: 4px; padding: .1em .5em;
  font: 600 11px/1.6 system-ui, sans-serif; } .limit { background: var(--stop); }
.note { color: var(--note); margin: .5rem 0 0; font-size: .9rem; }
"""
_LEGEND = (
    ("t w", "trained"),
    ("t f", "trained with another weight than 1"),
    ("t", "not trained"),
    ("t w reasoning", "reasoning"),
    ("t w tool_call", "tool call"),
    ("t w end_of_turn", "end of turn"),
)


def to_html(title: str, rows: Sequence[PreviewRow], facts: Sequence[tuple[str, str]]) -> str:
    """Return a page with `facts` as a table, and the rows with each token's id, part and weight on hover."""
    body = "\n".join(row_html(row) for row in rows)
    return html.page(title, f"{html.facts_table(facts)}{legend()}\n{body}\n", STYLE)


def to_fragment(rows: Sequence[PreviewRow], facts: Sequence[tuple[str, str]]) -> str:
    """Return what a notebook shows: the page's own document in a frame, so that its style touches nothing around it."""
    document = to_html("sftplug preview", rows, facts)
    return f'<iframe srcdoc="{html.text(document)}" sandbox="" style="width:100%;height:32em;border:0"></iframe>'


def legend() -> str:
    """Return what the colours of tokens mean."""
    names = "".join(f'<span class="{kind}">{html.text(name)}</span>' for kind, name in _LEGEND)
    return f'<p class="legend">{names} hover over a token for its id, part, weight and message</p>'


def row_html(row: PreviewRow) -> str:
    """Return one row, its tokens coloured by what is trained; `STYLE` says how."""
    pieces: list[str] = []
    message: Any = None
    for index, token in enumerate(row.tokens):
        if index == row.limit:
            pieces.append(f'<span class="limit">max_length {row.limit}</span>')
        if index in row.borders:
            pieces.append('<span class="border">next document</span>\n')
        if token.message != message and token.message >= 0:
            pieces.append(f'<span class="turn">{token.message} {html.text(token.role)}</span>')
        message = token.message
        pieces.append(_token(token))
    if row.cut:
        pieces.append(f'<span class="limit">cut: {row.cut:,} more characters</span>')
    notes = "".join(f'<p class="note">{html.text(note)}</p>' for note in row.notes)
    what = f"row {row.index}" if row.limit is None else "dropped"
    share = f"{len(row.tokens):,} tokens, {row.trained:,} trained"
    head = f"{what}<span>{html.text(row.origin)}</span><span>{share}</span>"
    return f'<section class="row"><h2>{head}</h2><div class="tokens">{"".join(pieces)}</div>{notes}</section>'


def _token(token: PreviewToken) -> str:
    kind = "t" if token.weight == 0 else "t w" if token.weight == 1 else "t f"
    about = f"id {token.id} · {token.role} · {token.part} · weight {token.weight:g} · message {token.message}"
    text = html.text(token.text.replace("\n", "⏎\n")) or "·"  # goes on with the character before
    return f'<span class="{kind} {token.part}" data-about="{html.text(about)}">{text}</span>'
