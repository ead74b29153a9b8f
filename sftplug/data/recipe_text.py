"""What the recipe itself says in rows: texts that it fills in, and a system turn where there is none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from sftplug.errors import DataError
from sftplug.types.conversation import Conversation, Message
from sftplug.types.filling import TextFiller
from sftplug.types.ledger import Account

if TYPE_CHECKING:
    from sftplug.recipe.model import SourceSection


@dataclass(slots=True)
class RecipeText:
    """Fills in the rows of one source, and tells its account."""

    source: SourceSection
    account: Account
    system: str | None = None
    """The system turn of all sources, where this one has none of its own."""
    _filler: TextFiller = field(init=False)

    def __post_init__(self) -> None:
        """Note all texts as not found so far."""
        self._filler = TextFiller(self.source.replace)
        self.account.filled.update(self._filler.found)

    def fill(self, data: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return a row with what `replace` says in all of its texts. Raises RowError for one nested too deeply."""
        if not self.source.replace:
            return data
        filled = self._filler.fill(data)
        self.account.filled.update(self._filler.last)
        self.account.filled_rows += filled is not data
        return filled

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
