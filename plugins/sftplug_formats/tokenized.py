"""Rows that are tokens already, made by whoever wrote them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, ClassVar, Literal

from sftplug import Conversation, DatasetFormat, Message, Recognized, RowError, RowTokens, did_you_mean
from sftplug_formats.fields import kind_of, parsed_json
from sftplug_formats.recognition import Rows, columns, most

IGNORED = -100
_MASKS = ("assistant_masks", "completion_mask", "loss_mask")
_SHOWN, _PLACES, _DOCUMENTS = "attention_mask", "position_ids", "seq_lengths"


class Tokenized(DatasetFormat):
    """Rows that are tokenized already: `input_ids`, with `labels` or a mask that says which are trained.

    The ids go to the trainer as they are: nothing is rendered, escaped or added, and sftplug does not vouch for their
    labels. Where a row has labels and masks, what all of them train is trained, as in TRL. Padding, which
    `attention_mask` leaves out, is left out. A row that says nothing about training needs ``masking: all``.
    """

    type: Literal["tokenized"] = "tokenized"
    column: str = "input_ids"
    """Column that holds the ids, those of the model's tokenizer."""
    labels: str | None = "labels"
    """Column with a label for each id, which is the id itself, or -100 where it is not trained; null reads none."""
    masks: tuple[str, ...] = _MASKS
    """Columns with a 1 for each id that is trained, and a 0 for others; those that a row does not have are passed
    over."""
    shorthand: ClassVar[str] = "column"

    @classmethod
    def recognizes(cls, rows: Rows) -> Recognized | str:
        """Take rows with a column `input_ids` of numbers."""
        if not most(rows, "input_ids", _are_numbers):
            return "no list of whole numbers in `input_ids`"
        said = [name for name in columns(rows) if name in ("labels", *_MASKS)]
        return Recognized(f"column input_ids, tokens, {'with ' + ' and '.join(said) if said else 'without labels'}")

    def to_conversation(self, row: Mapping[str, Any]) -> Conversation:
        """Return the tokens of the row, and which are trained."""
        if self.column not in row:
            hint = did_you_mean(self.column, row)
            raise RowError(self.column, f"is missing.{hint} The row has: {', '.join(map(str, row))}.")
        ids = _numbers(row, self.column)
        if negative := [index for index, number in enumerate(ids) if number < 0]:
            raise RowError(f"{self.column}[{negative[0]}]", f"is {ids[negative[0]]}, and no token has such an id")
        trained = self._trained(row, ids)
        shown = _shown(row, len(ids))
        if trained is not None and (any(trained[: shown.start]) or any(trained[shown.stop :])):
            raise RowError(_SHOWN, "leaves out tokens that are trained. Correct the one or the other")
        _refuse_packed(row, shown)
        if not ids[shown]:
            raise RowError(self.column, "holds no token")
        tokens = RowTokens(tuple(ids[shown]), None if trained is None else tuple(trained[shown]))
        return Conversation((Message("document"),), plain=True, tokens=tokens)

    def _trained(self, row: Mapping[str, Any], ids: Sequence[int]) -> list[bool] | None:
        """Return which tokens are trained by all that the row says of it; None where it says nothing."""
        said = []
        if self.labels is not None and row.get(self.labels) is not None:
            labels = _as_many(row, self.labels, len(ids))
            _check_labels(self.labels, labels, ids)
            said.append([label != IGNORED for label in labels])
        for name in self.masks:
            if row.get(name) is not None:
                said.append(_flags(row, name, len(ids)))
        return [all(each) for each in zip(*said, strict=True)] if said else None


def _check_labels(column: str, labels: Sequence[int], ids: Sequence[int]) -> None:
    """Raise RowError for a label that is neither its id nor -100, in words where all of them are moved by one."""
    wrong = [index for index, label in enumerate(labels) if label not in (IGNORED, ids[index])]
    if not wrong:
        return
    for moved, tokens, where in ((labels[:-1], ids[1:], "before"), (labels[1:], ids[:-1], "behind")):
        trained = [label == token for label, token in zip(moved, tokens, strict=True) if label != IGNORED]
        if trained and all(trained):
            raise RowError(
                column,
                f"is shifted by one: each label stands one place {where} its id. The trainer shifts labels itself: "
                "write each at the place of its id",
            )
    index = wrong[0]
    raise RowError(
        f"{column}[{index}]",
        f"is {labels[index]}, and the id there {ids[index]}: a label is its id, or {IGNORED} where it is not trained",
    )


def _shown(row: Mapping[str, Any], count: int) -> slice:
    """Return the tokens that are no padding. Raises RowError for a mask with a gap."""
    if row.get(_SHOWN) is None:
        return slice(0, count)
    seen = [index for index, shown in enumerate(_flags(row, _SHOWN, count)) if shown]
    if seen and seen[-1] - seen[0] + 1 != len(seen):
        raise RowError(_SHOWN, "hides tokens between others, and a trainer shows all that are before a token")
    return slice(seen[0], seen[-1] + 1) if seen else slice(0, 0)


def _refuse_packed(row: Mapping[str, Any], shown: slice) -> None:
    """Raise RowError for a row that holds several documents, which would see each other."""
    several = "so the row holds several documents, which would see each other. Write a row for each"
    if row.get(_PLACES) is not None:
        places = _numbers(row, _PLACES)[shown]
        if places != list(range(len(places))):
            raise RowError(_PLACES, f"do not count from 0 on, {several}; `data.packing: rows` packs them")
    if row.get(_DOCUMENTS) is not None and len(_numbers(row, _DOCUMENTS)) > 1:
        raise RowError(_DOCUMENTS, f"are {len(row[_DOCUMENTS])} lengths, {several}; `data.packing: rows` packs them")


def _numbers(row: Mapping[str, Any], column: str) -> list[int]:
    """Return the whole numbers in a column, a list or the JSON text of one. Raises RowError."""
    value = row[column]
    value = parsed_json(value, column) if isinstance(value, str) else value
    if not isinstance(value, list | tuple):
        raise RowError(column, f"must be a list of whole numbers, not {kind_of(value)}")
    if not {*map(type, value)} <= {int}:
        index = next(index for index, item in enumerate(value) if type(item) is not int)
        batch = ". Where the row is a batch, write a row for each" if isinstance(value[index], list | tuple) else ""
        raise RowError(f"{column}[{index}]", f"must be a whole number, not {_shortly(value[index])}{batch}")
    return list(value)


def _flags(row: Mapping[str, Any], column: str, count: int) -> list[bool]:
    """Return the zeros and ones in a column, one for each of `count` tokens. Raises RowError."""
    value = row[column]
    value = parsed_json(value, column) if isinstance(value, str) else value
    if not isinstance(value, list | tuple):
        raise RowError(column, f"must be a list of zeros and ones, not {kind_of(value)}")
    _same_length(column, value, count)
    for index, item in enumerate(value):
        if not isinstance(item, bool | int | float) or item not in (0, 1):
            raise RowError(f"{column}[{index}]", f"must be 0 or 1, not {_shortly(item)}")
    return [bool(item) for item in value]


def _as_many(row: Mapping[str, Any], column: str, count: int) -> list[int]:
    numbers = _numbers(row, column)
    _same_length(column, numbers, count)
    return numbers


def _same_length(column: str, value: Collection[Any], count: int) -> None:
    if len(value) != count:
        raise RowError(column, f"has {len(value)} entries, and there are {count} ids: each id needs its own")


def _shortly(value: Any) -> str:
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else kind_of(value)


def _are_numbers(value: Any) -> bool:
    if isinstance(value, str):
        if not value.lstrip().startswith("["):
            return False
        try:
            value = parsed_json(value, "")
        except RowError:
            return False
    return isinstance(value, list | tuple) and bool(value) and all(type(item) is int for item in value)
