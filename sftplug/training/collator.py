"""Rows -> batches, as the trainer takes them, and the order of the rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import Sampler

from sftplug.model.packing_check import document_marks
from sftplug.types.tokens import IGNORED

if TYPE_CHECKING:
    from torch import Tensor
    from transformers.trainer_pt_utils import LengthGroupedSampler


@dataclass(frozen=True, slots=True)
class Collator:
    """Makes one batch of rows: padded on the right, or laid end to end.

    Padding is marked by position, so a padding token may be any token.
    """

    pad_token_id: int
    pad_to_multiple_of: int = 1
    flat: bool = False
    """Lay the rows end to end, as FlashAttention takes them: position ids tell it where each begins."""
    marked: bool = False
    """Say of rows that are laid end to end where each document begins as models with a state ask for it, too."""

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """Return a batch of shape (B, L), or (1, sum of the lengths) for a flat one.

        ``input_ids``, ``labels``, ``weights`` and ``provenance`` if rows have them, and ``attention_mask``; for rows of
        several documents in place of the mask ``position_ids`` that start anew with each document and with the padding.
        ``real_tokens``: (rows,) how many tokens of each row are not padding. With `marked`, what `document_marks` has.
        """
        real = torch.tensor([len(row["input_ids"]) for row in rows])
        if self.flat:
            rows = [_end_to_end(rows)]
        longest = max(len(row["input_ids"]) for row in rows)
        # Rounded up: 10 tokens in multiples of 8 are 16, for -(-10 // 8) is 2.
        length = -(-longest // self.pad_to_multiple_of) * self.pad_to_multiple_of
        batch: dict[str, Any] = {
            "input_ids": self._padded(rows, "input_ids", length, self.pad_token_id),
            "labels": self._padded(rows, "labels", length, IGNORED),
            "real_tokens": real,
        }
        if "weights" in rows[0]:
            batch["weights"] = self._padded(rows, "weights", length, 0.0)
        if "provenance" in rows[0]:
            batch["provenance"] = self._padded(rows, "provenance", length, 0)
        if "seq_lengths" in rows[0]:
            # A mask beside them, even of ones, would switch off the block-diagonal mask that they stand for.
            batch["position_ids"] = torch.stack([_positions(row["seq_lengths"], length) for row in rows])
            if self.marked:
                batch |= document_marks(_with_padding(rows[0]["seq_lengths"], length))
        else:
            batch["attention_mask"] = (torch.arange(length) < real[:, None]).long()
        return batch

    @staticmethod
    def _padded(rows: Sequence[Mapping[str, Any]], key: str, length: int, filler: float) -> Tensor:
        return torch.tensor([[*row[key], *[filler] * (length - len(row[key]))] for row in rows])


def _end_to_end(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Return one row of all; the first token of each is not a label, for it would be predicted from the row before."""
    fillers = {"labels": IGNORED, "weights": 0.0}
    # Rows that are packed already hold several documents, and nothing predicts the first token of any of them.
    lengths = [length for row in rows for length in row.get("seq_lengths", [len(row["input_ids"])])]
    joined: dict[str, list[Any]] = {"seq_lengths": lengths}
    for key in ("input_ids", "labels", "weights", "provenance"):
        if key in rows[0]:
            joined[key] = [item for row in rows for item in [fillers.get(key, row[key][0]), *row[key][1:]]]
    return joined


def _positions(lengths: Sequence[int], length: int) -> Tensor:
    """Return (length,) positions that start anew with each document; the padding is a document of its own."""
    return torch.cat([torch.arange(part) for part in _with_padding(lengths, length)])


def _with_padding(lengths: Sequence[int], length: int) -> list[int]:
    """Return the lengths of the documents of a row of `length` tokens, its padding among them if it has any."""
    padding = length - sum(lengths)
    return [*lengths, padding] if padding else list(lengths)


def blank_rows(batch: dict[str, Tensor], first: int, rows: int) -> None:
    """Take the rows from the `first` on out of a batch of `rows`, in place: no label, no weight, no token counts."""
    where: tuple[slice, ...] = (slice(first, None),)
    if len(batch["labels"]) < rows:  # laid end to end
        # Rows of 3 and 2 tokens begin at 0 and 3: without the rows from the second on, nothing counts from place 3 on.
        where = (slice(None), slice(int(batch["real_tokens"][:first].sum()), None))
    batch["real_tokens"][first:] = 0
    batch["labels"][where] = IGNORED
    if "weights" in batch:
        batch["weights"][where] = 0.0


class SeededByEpoch(Sampler[int]):
    """A sampler whose order depends on the seed and the epoch, and on nothing that happened before."""

    def __init__(self, sampler: LengthGroupedSampler, args: Any) -> None:
        """Give `sampler` a generator of its own."""
        self._sampler = sampler
        self._seed = args.data_seed if args.data_seed is not None else args.seed
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Draw the order of this epoch next."""
        self._epoch = epoch

    def __len__(self) -> int:
        return len(self._sampler)

    def __iter__(self) -> Any:
        self._sampler.generator = torch.Generator().manual_seed(self._seed + self._epoch)
        return iter(self._sampler)
