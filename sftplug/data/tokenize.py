"""Rendered text with provenance -> tokens with provenance, in flat arrays.

A token belongs to whoever wrote its first character. It is trainable iff it lies within a trained span. Where a token
straddles the edge of a span, training would see other ids than inference, which tokenizes the prompt alone; so both
sides are tokenized apart there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sftplug.data.control_tokens import Controls
from sftplug.data.encoder import Encoder
from sftplug.data.engine import EncodedTexts, IntArray
from sftplug.data.render import Rendered
from sftplug.errors import ModelError
from sftplug.types.conversation import Conversation
from sftplug.types.tokens import PARTS, ROLE_CODES, TokenBatch

_CODES = {role: code for code, role in enumerate(ROLE_CODES)}


@dataclass(frozen=True, slots=True)
class Tokenized:
    """A batch of tokens, and what had to be tokenized apart."""

    tokens: TokenBatch
    apart: tuple[int, ...]
    """Indices of the rows with a token that straddled the edge of a span."""
    look_alikes: Mapping[int, str]
    """Index of a row -> the first text in a message that is that of a control token."""
    stuck: frozenset[int]
    """Those of them in which it should be mere text, and the tokenizer cannot do that."""


def tokenize(
    conversations: Sequence[Conversation],
    rendered: Sequence[Rendered],
    encode: Encoder,
    encoded: EncodedTexts | None = None,
) -> Tokenized:
    """Tokenize a batch of rows. `conversations` and `rendered` run side by side.

    `encoded` are the tokens of the rendered texts, if they are known already.

    Raises ModelError when a straddling token cannot be split because the tokenizer does not tokenize pieces as it
    does the whole (a prefix space before each piece).
    """
    batch = _Batch.of(rendered)
    placed = batch.place(encode.engines.encode(batch.texts) if encoded is None else encoded)
    speakers = _Speakers(conversations, batch)
    found = _look_alikes_in(batch, placed, encode, speakers)
    escaped = {row: marks for row, marks in found.items() if encode.escapes(conversations[row])}
    stuck = frozenset[int]()
    if escaped:
        placed, escaped, stuck = _escape(batch, placed, encode, speakers, escaped)
    # Looked for only now: where a control token was cut out as text, other tokens lie at the edges than before.
    apart = _straddled(batch, placed)
    if apart:
        _refuse_prefix_space(encode)
    edges = {index: sorted(_edges(rendered[index])) for index in apart}
    placed = batch.replace(
        placed,
        {index: encode.encode_pieces(batch.texts[index], edges[index], escaped.get(index, [])) for index in apart},
    )
    first = {index: rendered[index].text[slice(*min(marks))] for index, marks in found.items()}
    return Tokenized(_tokens(conversations, batch, placed), apart, first, stuck)


class _Placed(NamedTuple):
    """Tokens, and where in the whole batch each of them stands."""

    tokens: EncodedTexts
    start: NDArray[np.int64]
    end: NDArray[np.int64]


class _Batch(NamedTuple):
    """Rows laid end to end: one running character offset over all of them lets one search serve the whole batch."""

    rendered: Sequence[Rendered]
    texts: Sequence[str]
    base: NDArray[np.int64]
    """(R,) where each row's text begins."""
    runs: NDArray[np.int64]
    """Where each run of each row begins."""
    spans: NDArray[np.int64]
    """(S, 3) start, end and message of every trained span."""

    @classmethod
    def of(cls, rendered: Sequence[Rendered]) -> _Batch:
        texts = [row.text for row in rendered]
        # One place more than each text has characters: the end of a row is not the beginning of the next, and an empty
        # text has a place of its own.
        base = np.cumsum([0, *(len(text) + 1 for text in texts)])[:-1]
        sizes = [len(row.runs.starts) for row in rendered]
        # numpy joins no empty list; of no rows, `base` is empty as well.
        runs = np.concatenate([row.runs.starts for row in rendered] or [base]) + np.repeat(base, sizes)
        listed = [
            (span.start + offset, span.end + offset, span.message)
            for row, offset in zip(rendered, base.tolist(), strict=True)
            for span in row.spans
        ]
        spans = np.array(listed, dtype=np.int64).reshape(-1, 3)
        return cls(rendered, texts, base, runs, spans[np.argsort(spans[:, 0], kind="stable")])

    def joined(self, name: str) -> NDArray[Any]:
        """Return what the runs of all rows say of `name`."""
        return np.concatenate([*map(attrgetter(f"runs.{name}"), self.rendered)])

    def run_of(self, position: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return in which run each position lies."""
        return _stretch_of(self.runs, position)

    def row_of(self, position: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return in which row each position lies."""
        return np.searchsorted(self.base, position, side="right") - 1

    def place(self, encoded: EncodedTexts) -> _Placed:
        """Return the tokens with where each of them starts and ends in the whole batch."""
        shift = np.repeat(self.base, encoded.counts)
        return _Placed(encoded, encoded.start + shift, encoded.end + shift)

    def replace(self, placed: _Placed, rows: Mapping[int, EncodedTexts]) -> _Placed:
        """Return the tokens with those of some rows replaced."""
        return self.place(placed.tokens.with_rows(rows)) if rows else placed


class _Speakers:
    """Says in which runs of a batch an assistant speaks itself; looked up only where a row holds a control token."""

    def __init__(self, conversations: Sequence[Conversation], batch: _Batch) -> None:
        self._conversations, self._batch = conversations, batch

    def at(self, runs: NDArray[np.int64], rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return whether an assistant speaks in each of `runs`, which are of `rows`."""
        own, message = self._batch.joined("own")[runs], self._batch.joined("message")[runs]
        said = [
            bool(mine) and index >= 0 and self._conversations[row].messages[index].role == "assistant"
            for mine, index, row in zip(own.tolist(), message.tolist(), rows.tolist(), strict=True)
        ]
        return np.array(said, dtype=bool)


ControlMarks = dict[int, list[tuple[int, int]]]
"""Row -> (start, end) of every control token in it that the row wrote, not the template."""


def _look_alikes_in(batch: _Batch, placed: _Placed, encode: Encoder, speakers: _Speakers) -> ControlMarks:
    tokens = np.flatnonzero(encode.controls.ids[placed.tokens.ids])
    if not len(tokens):
        return {}
    first, last = batch.run_of(placed.start[tokens]), batch.run_of(placed.end[tokens] - 1)
    # The running count of runs that the row wrote: where it is larger behind a token's last run than at its first, the
    # row wrote some of the token. Of "<|im" of the template and "_end|>" of a message, that is the second half.
    given = np.concatenate([[0], np.cumsum(batch.joined("given"))])
    written = given[last + 1] > given[first]
    tokens, first = tokens[written], first[written]
    rows = batch.row_of(placed.start[tokens])
    spoken = encode.controls.spoken[placed.tokens.ids[tokens]]
    if spoken.any():
        kept = ~(spoken & speakers.at(first, rows))
        tokens, rows = tokens[kept], rows[kept]
    found: ControlMarks = {}
    for token, row in zip(tokens.tolist(), rows.tolist(), strict=True):
        start, end = int(placed.tokens.start[token]), int(placed.tokens.end[token])
        if encode.controls.is_spelled(int(placed.tokens.ids[token]), batch.texts[row][start:end]):
            found.setdefault(row, []).append((start, end))
    return found


_ROUNDS = 3
"""What is cut out may leave a control token beside it; so often that is looked for."""


def _escape(
    batch: _Batch, placed: _Placed, encode: Encoder, speakers: _Speakers, found: ControlMarks
) -> tuple[_Placed, ControlMarks, frozenset[int]]:
    """Tokenize what was found as text; return the marks too, and the rows in which that cannot be done."""
    if encode.puts_space_before_pieces():
        return placed, found, frozenset(found)
    marks, left = {row: list(places) for row, places in found.items()}, found
    # What stands beside a cut is tokenized anew as well, and may become a control token only then.
    for _ in range(_ROUNDS):
        pieces = {row: encode.encode_pieces(batch.texts[row], [], marks[row]) for row in left}
        placed = batch.replace(placed, pieces)
        left = {row: places for row, places in _look_alikes_in(batch, placed, encode, speakers).items() if row in marks}
        if not left:
            break
        for row, places in left.items():
            marks[row] = _united([*marks.get(row, ()), *places])
    return placed, marks, frozenset(left)


def _united(marks: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return `marks` in order, those that overlap as one."""
    united: list[tuple[int, int]] = []
    for start, end in sorted(marks):
        if united and start < united[-1][1]:
            united[-1] = united[-1][0], max(end, united[-1][1])
        else:
            united.append((start, end))
    return united


def look_alikes(conversation: Conversation, row: Rendered, encode: Encoder) -> list[tuple[int, int]]:
    """Return (start, end) of every text that is a control token and that the row wrote.

    Most rows need no tokens for that. A tokenizer that changes a text before it reads it is asked what it reads: to one
    that drops accents, `<|ím_end|>` is `<|im_end|>`.
    """
    spelled = _spelled(conversation, row, encode.controls)
    if spelled or encode.controls.normalized(row.text) == row.text:
        return spelled
    batch = _Batch.of([row])
    placed = batch.place(encode.engines.encode(batch.texts))
    return _look_alikes_in(batch, placed, encode, _Speakers([conversation], batch)).get(0, [])


def _spelled(conversation: Conversation, row: Rendered, controls: Controls) -> list[tuple[int, int]]:
    """Return (start, end) of every text of a control token that the row wrote, before it is tokenized."""
    found = []
    for match in controls.pattern.finditer(row.text) if controls.pattern is not None else ():
        first, last = (
            int(run) for run in np.searchsorted(row.runs.starts, [match.start(), match.end() - 1], "right") - 1
        )
        if not row.runs.given[first : last + 1].any():
            continue
        message = int(row.runs.message[first])
        speaks = row.runs.own[first] and message >= 0 and conversation.messages[message].role == "assistant"
        if not (speaks and match.group() in controls.spoken_texts):
            found.append(match.span())
    return found


def _straddled(batch: _Batch, placed: _Placed) -> tuple[int, ...]:
    """Return the rows in which the edge of a trained span lies inside a token."""
    _, start, end = placed
    edges = np.unique(batch.spans[:, :2])
    # The edge 7 lies inside the token from 5 to 9: the last token that starts before it ends after it.
    before = np.searchsorted(start, edges, side="left") - 1
    inside = (before >= 0) & (end[np.maximum(before, 0)] > edges) if len(start) else edges < 0
    return tuple(np.unique(batch.row_of(edges[inside])).tolist())


def _edges(row: Rendered) -> set[int]:
    return {edge for span in row.spans for edge in (span.start, span.end)}


def _refuse_prefix_space(encode: Encoder) -> None:
    if encode.puts_space_before_pieces():
        raise ModelError(
            "a token straddles the edge of a trained span, and this tokenizer puts a space before every piece of "
            "text, so the two sides cannot be tokenized apart. Change the template so that the assistant's header "
            "ends in a special token or a line break."
        )


def _tokens(conversations: Sequence[Conversation], batch: _Batch, placed: _Placed) -> TokenBatch:
    encoded, start, end = placed
    row = np.repeat(np.arange(len(encoded.counts), dtype=np.int32), encoded.counts)
    run, run_message = batch.run_of(start), batch.joined("message")
    roles = _Roles.of(conversations)
    # There are few runs, and many tokens: what holds of a run is found once and handed out.
    message, part = run_message[run], batch.joined("part")[run]
    role = roles.at(batch.row_of(batch.runs), run_message)[run]
    span = _span_of(batch.spans, start, end)
    # A stop that the next message prints is a token of the turn that it ends.
    borrowed = np.flatnonzero((span >= 0) & (span != message))
    message[borrowed] = span[borrowed]
    part[borrowed] = PARTS.index("end_of_turn")
    role[borrowed] = roles.at(row[borrowed], span[borrowed])
    return TokenBatch(
        ids=encoded.ids,
        row=row,
        message=message,
        role=role,
        part=part,
        content_part=batch.joined("content_part")[run],
        trainable=span >= 0,
        start=encoded.start,
        end=encoded.end,
        texts=batch.texts,
        conversations=conversations,
    )


class _Roles(NamedTuple):
    """The roles of all messages of a batch, one after another."""

    codes: NDArray[np.int8]
    """The last one is that of no message."""
    first: NDArray[np.int64]
    """(R,) where those of each row begin."""

    @classmethod
    def of(cls, conversations: Sequence[Conversation]) -> _Roles:
        codes = [_CODES[message.role] for conversation in conversations for message in conversation.messages]
        first = np.cumsum([0, *(len(conversation.messages) for conversation in conversations)])[:-1]
        return cls(np.array([*codes, 0], dtype=np.int8), first)

    def at(self, row: NDArray[np.int64] | IntArray, message: IntArray) -> NDArray[np.int8]:
        """Return the role of each `message`, counted within its `row`; that of none where it is -1."""
        return self.codes[np.where(message >= 0, self.first[row] + message, len(self.codes) - 1)]


def _span_of(spans: NDArray[np.int64], start: NDArray[np.int64], end: NDArray[np.int64]) -> IntArray:
    """Return the message in whose trained span each token lies; -1 for tokens in none."""
    if not len(spans):
        return np.full(len(start), -1, dtype=np.int32)
    opens, closes, message = spans.T
    # Offsets that the tokenizer itself tells may go back; then each token is looked up by itself.
    if not (_ascends(start) and _ascends(end)):
        index = _stretch_of(opens, start)
        within = (index >= 0) & (start < closes[index]) & (end <= closes[index])
        return np.where(within, message[index], -1).astype(np.int32)
    # The tokens of a span are those from the first that starts in it to the last that ends in it.
    first = np.searchsorted(start, opens, side="left")
    # The second of the two is for a token without characters right at the end of a span: it ends in it, and starts
    # behind.
    last = np.minimum(np.searchsorted(end, closes, side="right"), np.searchsorted(start, closes, side="left"))
    last = np.maximum(last, first)
    edges = np.stack([first, last], axis=1).ravel()
    # Four tokens at 0, 3, 5 and 9, and a span of message 1 from 3 to 9: its tokens are those from 1 to 3. So 1 token
    # outside, 2 in the span, 1 outside: -1, 1, 1, -1.
    counts = np.diff(np.concatenate([[0], edges, [len(start)]]))
    between = np.full((len(spans) + 1, 2), -1, dtype=np.int32)
    between[:-1, 1] = message
    return np.repeat(between.ravel()[:-1], counts)


def _ascends(position: NDArray[np.int64]) -> bool:
    return not (position[1:] < position[:-1]).any()


def _stretch_of(starts: NDArray[np.int64], position: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return in which stretch each position lies; -1 for those before the first of the `starts`, which ascend."""
    if not _ascends(position):
        return np.searchsorted(starts, position, side="right") - 1
    # Positions ascend, as those of tokens do: to look up the few starts is quicker than the many positions.
    # With starts at 0 and 4, and positions 0, 1 and 5: no position before the first start, 2 in stretch 0, 1 in stretch
    # 1.
    first = np.searchsorted(position, starts, side="left")
    counts = np.diff(np.concatenate([[0], first, [len(position)]]))
    return np.repeat(np.arange(-1, len(starts)), counts)
