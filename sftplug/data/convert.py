"""Rows -> conversations, by the source's format."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from sftplug.components import DatasetFormat
from sftplug.conversation import ROLES, Conversation, Row
from sftplug.data.ledger import Account
from sftplug.errors import DataError, RowError, did_you_mean


@dataclass(frozen=True, slots=True)
class Example:
    """A conversation and the row it came from."""

    conversation: Conversation
    origin: str


def convert(
    rows: Iterable[Row],
    format_: DatasetFormat,
    account: Account,
    *,
    row_weight: str | None = None,
    template_kwargs: Mapping[str, Any] | None = None,
) -> Iterator[Example]:
    """Yield an example for each row that fits; tell `account` about those that do not.

    `row_weight` is the column that holds the loss weight of a row, `template_kwargs` what the source adds to the
    arguments of the chat template.
    """
    for row in rows:
        account.read += 1
        try:
            conversation = _checked(format_.to_conversation(row.data), format_)
            if row_weight is not None:
                conversation = replace(conversation, weight=conversation.weight * _weight(row.data, row_weight))
            if template_kwargs:
                conversation = replace(
                    conversation, template_kwargs={**template_kwargs, **conversation.template_kwargs}
                )
            yield Example(conversation, row.origin)
        except RowError as error:
            account.drop("bad", row.origin, str(error))


def _weight(data: Mapping[str, Any], column: str) -> float:
    if column not in data:
        raise RowError(column, f"is missing.{did_you_mean(column, data)} The row has: {', '.join(map(str, data))}.")
    weight = data[column]
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight < float("inf"):
        raise RowError(column, f"must be a number of at least 0, not {weight!r}")
    return float(weight)


def _checked(conversation: object, format_: DatasetFormat) -> Conversation:
    """A plugin's conversation is checked where it comes in, so that later stages can rely on it."""
    if not isinstance(conversation, Conversation):
        raise DataError(
            f"format '{format_.type}': to_conversation() must return a sftplug.Conversation, "
            f"not {type(conversation).__name__}"
        )
    if not conversation.messages:
        raise RowError("messages", "holds no message")
    for index, message in enumerate(conversation.messages):
        if message.role not in ROLES:
            hint = did_you_mean(message.role, ROLES)
            known = ", ".join(ROLES)
            raise RowError(f"messages[{index}].role", f"nobody knows the role '{message.role}'.{hint} Known: {known}.")
    return conversation
