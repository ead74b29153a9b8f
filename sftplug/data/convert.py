"""Rows -> conversations, by the source's format."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from sftplug.components import DatasetFormat
from sftplug.conversation import ROLES, Conversation
from sftplug.data.ledger import Account
from sftplug.data.sources import Row
from sftplug.errors import DataError, RowError, did_you_mean


@dataclass(frozen=True, slots=True)
class Example:
    """A conversation and the row it came from."""

    conversation: Conversation
    origin: str


def convert(rows: Iterable[Row], format_: DatasetFormat, account: Account) -> Iterator[Example]:
    """Yield an example for each row that fits; tell `account` about those that do not."""
    for row in rows:
        account.read += 1
        try:
            yield Example(_checked(format_.to_conversation(row.data), format_), row.origin)
        except RowError as error:
            account.drop("bad", row.origin, str(error))


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
