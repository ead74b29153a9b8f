"""What the recipe itself says in rows: texts that it fills in, and a system turn where there is none."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from sftplug.errors import DataError, RowError
from sftplug.types.conversation import Conversation, Message
from sftplug.types.ledger import Account

if TYPE_CHECKING:
    from sftplug.recipe.model import SourceSection


@dataclass(slots=True)
class Given:
    """Fills in the rows of one source, and tells its account."""

    source: SourceSection
    account: Account
    system: str | None = None
    """The system turn of all sources, where this one has none of its own."""
    _searched: re.Pattern[str] = field(init=False)
    _found: int = 0

    def __post_init__(self) -> None:
        """Search for all texts at once, the longest first: what is filled in is not searched again."""
        texts = sorted(self.source.replace, key=len, reverse=True)
        self._searched = re.compile("|".join(map(re.escape, texts)))
        self.account.filled.update(dict.fromkeys(self.source.replace, 0))

    def fill(self, data: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return a row with what `replace` says in all of its texts. Raises RowError for one nested too deeply."""
        if not self.source.replace:
            return data
        self._found = 0
        try:
            filled: Mapping[str, Any] = self._filled(data)
        except RecursionError as error:
            raise RowError("row", "is nested too deeply to fill anything in") from error
        self.account.filled_rows += self._found > 0
        return filled

    def _filled(self, value: Any) -> Any:
        if isinstance(value, str):
            return self._searched.sub(self._replacement, value)
        if isinstance(value, Mapping):
            return {name: self._filled(item) for name, item in value.items()}
        return [self._filled(item) for item in value] if isinstance(value, list | tuple) else value

    def _replacement(self, match: re.Match[str]) -> str:
        self._found += 1
        self.account.filled[match.group()] += 1
        return self.source.replace[match.group()]

    def lead(self, conversation: Conversation) -> Conversation:
        """Return a conversation with the source's `system` turn, or else the recipe's, if it has none of its own.

        Plain text has no turns: a source that names one all the same raises DataError.
        """
        system = self.source.system or self.system
        if system is None or any(message.role in ("system", "developer") for message in conversation.messages):
            return conversation
        if conversation.plain and self.source.system is None:
            return conversation
        if conversation.plain:
            raise DataError(
                f"{self.account.source}: `system` is a turn of a conversation, and these rows are plain text, which no "
                "chat template renders. Leave `system` out; where the columns are a question and its answer, a format "
                "makes turns of them: `format: {type: columns, user: COLUMN, assistant: COLUMN}`."
            )
        self.account.led += 1
        start = conversation.completion_from
        return replace(
            conversation,
            messages=(Message("system", system), *conversation.messages),
            completion_from=None if start is None else start + 1,
        )
