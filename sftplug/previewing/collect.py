"""Keep the rows to show while they go to the trainer, so that what is shown is what is trained."""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from sftplug.types.tokens import PARTS, ROLE_CODES, TokenBatch
from sftplug.util.redact import blanked, redact

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sftplug.data.rendering import TextRow


@dataclass(frozen=True, slots=True)
class PreviewToken:
    """One token as it is shown."""

    id: int
    text: str
    """The characters of the row that the token covers first; empty for what goes on with a character that several
    tokens spell byte by byte."""
    weight: float
    role: str
    part: str
    message: int
    """Index of its message; -1 for the template's own text."""


@dataclass(frozen=True, slots=True)
class PreviewRow:
    """One row as the trainer gets it."""

    index: int
    """Its position in the prepared dataset."""
    origin: str
    tokens: tuple[PreviewToken, ...]
    notes: tuple[str, ...]
    """What the check noted about the row."""
    limit: int | None = None
    """Where the row would have to end to be trained, in tokens; None for a row that reaches the trainer."""
    borders: tuple[int, ...] = ()
    """Where, in tokens, another document begins in a packed row."""
    cut: int = 0
    """How many characters at the end of the row were cut off."""

    @property
    def trained(self) -> int:
        """How many tokens count in the loss."""
        return sum(token.weight > 0 for token in self.tokens)

    def to_dict(self) -> dict[str, Any]:
        """Return the row as JSON holds it."""
        return asdict(self)


@dataclass(slots=True)
class Collector:
    """Collects the wanted rows of one split; pass it to `prepare` as ``watch``."""

    wanted: Container[int]
    """Which of the rows that reach the trainer to keep."""
    shown_dropped: int = 0
    """How many rows to keep of those that are too long."""
    max_length: int | None = None
    rows: list[PreviewRow] = field(default_factory=list)
    dropped: list[PreviewRow] = field(default_factory=list)
    """The first rows that are too long."""
    seen: int = 0
    """Rows that have reached the trainer so far."""

    def __call__(
        self,
        texts: Sequence[TextRow],
        tokens: TokenBatch,
        weights: NDArray[np.float32],
        kept: NDArray[np.bool_],
    ) -> None:
        """Keep what is wanted of a batch."""
        bounds = np.searchsorted(tokens.row, np.arange(len(texts) + 1))
        for row, is_kept in enumerate(kept.tolist()):
            here = slice(int(bounds[row]), int(bounds[row + 1]))
            too_long = self.max_length is not None and here.stop - here.start > self.max_length
            if is_kept and self.seen in self.wanted:
                self.rows.append(self._row(texts[row], tokens, weights, here))
            elif too_long and len(self.dropped) < self.shown_dropped:
                self.dropped.append(replace(self._row(texts[row], tokens, weights, here), limit=self.max_length))
            self.seen += is_kept

    def arranged(self, order: Sequence[Sequence[int]], wanted: range, *, packed: bool) -> list[PreviewRow]:
        """Return the wanted rows of a mixed or packed dataset, put together from those collected."""
        known = {row.index: row for row in self.rows}
        return [
            _put_together(index, [known[number] for number in order[index]], packed=packed)
            for index in wanted
            if index < len(order)
        ]

    def _row(self, text: TextRow, tokens: TokenBatch, weights: NDArray[np.float32], here: slice) -> PreviewRow:
        notes = tuple(blanked(finding.text) for finding in text.rendered.findings)
        # What is shown may be passed on: of a secret in a row, each character is a dot.
        shown = tuple(self._tokens(tokens, weights, here, blanked(text.rendered.text)))
        end, whole = int(tokens.end[here].max(initial=0)), len(text.rendered.text.rstrip())
        return PreviewRow(self.seen, redact(text.origin), shown, notes, cut=max(0, whole - end))

    def _tokens(self, tokens: TokenBatch, weights: NDArray[np.float32], here: slice, text: str) -> list[PreviewToken]:
        ids, starts, ends = tokens.ids[here].tolist(), tokens.start[here].tolist(), tokens.end[here].tolist()
        covered, shown = 0, []
        for index, (start, end) in enumerate(zip(starts, ends, strict=True)):
            # A character that several tokens spell is shown once, where it begins.
            piece = text[max(start, covered) : end]
            covered = max(covered, end)
            at = here.start + index
            shown.append(
                PreviewToken(
                    id=ids[index],
                    text=piece,
                    weight=float(weights[at]),
                    role=ROLE_CODES[tokens.role[at]],
                    part=PARTS[tokens.part[at]],
                    message=int(tokens.message[at]),
                )
            )
        return shown


def _put_together(index: int, documents: Sequence[PreviewRow], *, packed: bool) -> PreviewRow:
    """Return one row; the first token of a packed document is not trained, for it follows another document."""
    tokens: list[PreviewToken] = []
    borders = []
    for document in documents:
        borders += [len(tokens)] if tokens else []
        first = replace(document.tokens[0], weight=0.0) if packed else document.tokens[0]
        tokens += [first, *document.tokens[1:]]
    origins = ", ".join(document.origin for document in documents)
    notes = tuple(note for document in documents for note in document.notes)
    cut = sum(document.cut for document in documents)
    return PreviewRow(index, origins, tuple(tokens), notes, borders=tuple(borders), cut=cut)
