"""Text in pieces, each of which says whether it is trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from sftplug import Conversation, DatasetFormat, Message, Recognized, RowError
from sftplug_formats.fields import kind_of, parsed_json
from sftplug_formats.recognition import Rows, columns, most
from sftplug_formats.spelling import Unread, present


class Segments(DatasetFormat):
    """A list of pieces ``{text: …, label: true}``, of which those with a true label are trained (axolotl's own layout).

    They are joined as they stand, as `text` is: no chat template renders them, and control tokens in them control.
    """

    type: Literal["segments"] = "segments"
    column: str = "segments"
    """Column that holds the list of pieces."""

    @classmethod
    def recognizes(cls, rows: Rows) -> Recognized | str:
        """Take rows with a column of pieces that have a text and a label."""
        found = [name for name in columns(rows) if most(rows, name, _are_segments)]
        if not found:
            return "no column holds pieces with `text` and `label`"
        if len(found) > 1:
            return f"the columns {' and '.join(found)} hold pieces: `column` says which is meant"
        options = {} if found == ["segments"] else {"column": found[0]}
        return Recognized(f"column {found[0]}, pieces with a label", options)

    def to_conversation(self, row: Mapping[str, Any]) -> Conversation:
        """Return trained pieces as the assistant's text, and all others as the user's."""
        pieces = row.get(self.column)
        pieces = parsed_json(pieces, self.column) if isinstance(pieces, str) else pieces
        if not isinstance(pieces, list | tuple) or not pieces:
            raise RowError(self.column, "must be a list of pieces, {text: …, label: true}, with at least one in it")
        unread = Unread()
        messages = tuple(_message(piece, f"{self.column}[{index}]", unread) for index, piece in enumerate(pieces))
        return Conversation(messages, plain=True, unread=tuple(unread.found))


def _message(piece: Any, where: str, unread: Unread) -> Message:
    if not isinstance(piece, Mapping):
        raise RowError(where, f"must be an object with text and label, not {kind_of(piece)}")
    given = present(piece)
    text, label = given.get("text"), given.get("label")
    if not isinstance(text, str):
        raise RowError(f"{where}.text", f"must be text, not {kind_of(text)}")
    if not isinstance(label, bool):
        raise RowError(f"{where}.label", f"must be true or false, not {kind_of(label)}")
    unread.note(given, ("text", "label"), where)
    return Message("assistant" if label else "user", text)


def _are_segments(value: Any) -> bool:
    pieces = value if isinstance(value, list | tuple) else ()
    return bool(pieces) and all(
        isinstance(piece, Mapping) and isinstance(piece.get("text"), str) and isinstance(piece.get("label"), bool)
        for piece in pieces
    )
