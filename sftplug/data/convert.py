"""Rows -> conversations, by the source's format."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from sftplug.data.media import refuse_columns, refuse_keys, refuse_parts
from sftplug.data.recipe_text import RecipeText
from sftplug.data.usual import Texts, usual_texts
from sftplug.errors import DataError, RowError, did_you_mean
from sftplug.plugin.calls import conversation_of
from sftplug.types.conversation import GIVEN_TO_TEMPLATES, ROLES, Conversation, Message, Row, ToolCall
from sftplug.types.ledger import Account
from sftplug.types.loss_groups import NO_TAG

if TYPE_CHECKING:
    from sftplug.recipe.model import SourceSection

WATCHED = 100
"""So many rows are watched for columns that their format does not read."""
DEEPEST = 100
"""How deeply tools and the arguments of calls may be nested: what renders them calls itself for each level."""
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')


@dataclass(frozen=True, slots=True)
class Example:
    """A conversation and the row it came from."""

    conversation: Conversation
    origin: str
    arguments: frozenset[str] = frozenset()
    """Arguments of the chat template that the row gives, and not its source."""
    arguments_from: str = ""
    """Column that they stand in."""
    texts: Texts | None = None
    """Every text of the conversation, where it is a usual one; see `usual_texts`."""

    def saying(self, conversation: Conversation) -> Example:
        """Return the same row with another conversation."""
        return replace(self, conversation=conversation, texts=usual_texts(conversation))


def convert(
    rows: Iterable[Row],
    source: SourceSection,
    account: Account,
    system: str | None = None,
    served: Collection[str] = (),
) -> Iterator[Example]:
    """Yield an example for each row of `source` that fits; tell `account` about those that do not.

    `system` is the recipe's own system turn, for sources that have none; `served` are columns that were read before.
    """
    columns = _Columns()
    recipe_s = RecipeText(source, account, system)
    read = {*served, *source.tags, *([source.row_weight] if source.row_weight is not None else [])}
    for number, row in enumerate(rows, start=1):
        try:
            data = recipe_s.fill(row.data)
            if number <= WATCHED:
                data = _Watched(data, read)
            read_as = conversation_of(source.format, data, row.origin)
            texts = usual_texts(read_as)
            conversation = read_as if texts is not None else checked(read_as)
            refuse_keys(conversation.unread)
            refuse_columns(row.data, read, source.ignored, conversation.messages)
            own = frozenset(conversation.template_kwargs)
            conversation = _with_options(recipe_s.lead(conversation), source, row)
            texts = texts if conversation is read_as else usual_texts(conversation)
        except RowError as error:
            account.drop("bad", row.origin, str(error))
            account.offer(error.options)
            continue
        if conversation.unread:
            account.unread_keys.update(conversation.unread)
        if number <= WATCHED:
            columns.note(row.data, conversation, read, account)
        yield Example(
            conversation, row.origin, own, getattr(source.format, "template_kwargs", "") if own else "", texts
        )


@dataclass(slots=True)
class _Columns:
    """What is known of the columns of the first rows."""

    given: dict[str, None] = field(default_factory=dict)
    other: dict[str, None] = field(default_factory=dict)
    """Those of them that say what no message says."""
    false: dict[str, None] = field(default_factory=dict)
    """Those of them that are false in some rows."""

    def note(
        self, data: Mapping[str, Any], conversation: Conversation, read: Collection[str], account: Account
    ) -> None:
        cells = {str(name): value for name, value in data.items() if _says_something(value)}
        self.given.update(dict.fromkeys(cells))
        self.other.update(dict.fromkeys(name for name in cells if not _is_said(cells[name], conversation)))
        self.false.update(dict.fromkeys(name for name in cells if cells[name] is False))
        account.columns = tuple(self.given)
        account.unread = tuple(name for name in self.given if name in self.other and name not in read)
        account.false = tuple(name for name in account.unread if name in self.false)


def _says_something(value: object) -> bool:
    """Whether a cell holds something: lists that are empty in every row need no `ignore`."""
    return value is not None and not (isinstance(value, str | list | tuple | Mapping) and not value)


def _is_said(value: object, conversation: Conversation) -> bool:
    """Whether a cell says what a message says too, as the first prompt of many sets does: then it need not be read."""
    return isinstance(value, str) and any(
        isinstance(message.content, str) and message.content.strip() == value.strip()
        for message in conversation.messages
    )


def _with_options(conversation: Conversation, source: SourceSection, row: Row) -> Conversation:
    """Return a conversation with the weight of its row, and the source's arguments of the chat template."""
    if source.row_weight is not None:
        weight = _weight(row.data, source.row_weight)
        conversation = replace(conversation, weight=conversation.weight * weight)
    if source.template_kwargs and conversation.plain:
        raise DataError(
            f"{row.origin}: `template_kwargs` are arguments of a chat template, and this row is text or tokens, which "
            "none renders. Leave `template_kwargs` out of the source."
        )
    if source.template_kwargs:
        arguments = {**source.template_kwargs, **conversation.template_kwargs}
        conversation = replace(conversation, template_kwargs=arguments)
    if source.tags:
        conversation = replace(conversation, tags={name: _tag(row.data, name) for name in source.tags})
    return conversation


def _tag(data: Mapping[str, Any], column: str) -> str:
    if column not in data:
        raise RowError(column, f"is missing.{did_you_mean(column, data)} The row has: {', '.join(map(str, data))}.")
    value = data[column]
    if not (value is None or isinstance(value, str | int | float)):
        raise RowError(column, f"must be text or a number to be a tag, not {type(value).__name__}")
    return NO_TAG if value is None else str(value)


class _Watched(dict[str, Any]):
    """A row that notes which of its columns are read."""

    def __init__(self, data: Mapping[str, Any], read: set[str]) -> None:
        super().__init__(data)
        self._read = read

    def __getitem__(self, key: str) -> Any:
        self._read.add(key)
        return super().__getitem__(key)

    def get(self, key: str, default: Any = None) -> Any:
        self._read.add(key)
        return super().get(key, default)

    def values(self) -> Any:
        self._read.update(self)
        return super().values()

    def items(self) -> Any:
        self._read.update(self)
        return super().items()


def _weight(data: Mapping[str, Any], column: str) -> float:
    if column not in data:
        raise RowError(column, f"is missing.{did_you_mean(column, data)} The row has: {', '.join(map(str, data))}.")
    try:
        weight = float(data[column])  # a cell of a .csv file is text
    except (TypeError, ValueError, OverflowError):
        weight = -1.0
    if isinstance(data[column], bool) or not 0 <= weight < float("inf"):
        raise RowError(column, f"must be a number of at least 0, not {data[column]!r}")
    return weight


def checked(conversation: Conversation) -> Conversation:
    """What a row says is checked where it comes in, so that later stages can rely on it. Raises RowError."""
    if not conversation.messages:
        raise RowError("messages", "holds no message")
    for index, message in enumerate(conversation.messages):
        if not _is_plain(message):
            _check_message(f"messages[{index}]", message)
    for index, tool in enumerate(conversation.tools):
        _check_leaves(f"tools[{index}]", tool)
    if conversation.template_kwargs:
        _check_arguments(conversation.template_kwargs)
    _check_tokens(conversation)
    return conversation


def _check_tokens(conversation: Conversation) -> None:
    """Raise RowError for tokens that a format returned in a form that nothing reads."""
    given = conversation.tokens
    if given is None:
        return
    alone = [(message.role, message.content) for message in conversation.messages] == [("document", None)]
    if not (conversation.plain and alone):
        raise RowError("tokens", "stand alone in a plain conversation, whose one message is a document without content")
    if given.trained is not None and len(given.trained) != len(given.ids):
        raise RowError("tokens", f"has {len(given.ids)} ids, and says of {len(given.trained)} whether they are trained")


def _check_arguments(arguments: Mapping[str, Any]) -> None:
    if taken := [name for name in arguments if name in GIVEN_TO_TEMPLATES]:
        raise RowError(f"template_kwargs.{taken[0]}", "is what the row gives the chat template already. Leave it out.")
    _check_leaves("template_kwargs", arguments)


def _is_plain(message: Message) -> bool:
    """Whether a message is what most are, and nothing can be wrong with: one text of whole characters."""
    content = message.content
    return (
        type(content) is str
        and message.role in ROLES
        and message.reasoning_content is None
        and not message.tool_calls
        and (content.isascii() or _half_in(content) is None)
    )


def _check_message(where: str, message: Message) -> None:
    if message.role not in ROLES:
        hint, known = did_you_mean(message.role, ROLES), ", ".join(ROLES)
        if "call" in message.role or message.role == "function":  # `tool` is who answers a call, and is not trained
            hint = " A call stands under `tool_calls` in an assistant's message, what it returns in a tool's."
        raise RowError(f"{where}.role", f"nobody knows the role '{message.role}'.{hint} Known: {known}.")
    refuse_parts(f"{where}.content", message.content)
    for name in ("content", "reasoning_content", "tool_calls"):
        _check_leaves(f"{where}.{name}", getattr(message, name))
    if message.reasoning_content and isinstance(message.content, str) and "</think>" in message.content:
        twice = "holds a thought (`</think>`), and the message has reasoning besides: the text would have two"
        raise RowError(f"{where}.content", f"{twice}. Keep one of them.")


def _check_leaves(where: str, value: object) -> None:
    """Raise RowError for text that no tokenizer reads, and for what JSON does not have."""
    for place, leaf in _leaves(where, value):
        if isinstance(leaf, str):
            if not leaf.isascii():
                _refuse_half_characters(place, leaf)
        elif isinstance(leaf, float):
            if not math.isfinite(leaf):
                raise RowError(place, f"is {leaf}: JSON has no such number, and the model would learn to write it")
        elif not (leaf is None or isinstance(leaf, int)):
            raise RowError(place, f"is of the type {type(leaf).__name__}, which JSON does not have. Make it text")


def _leaves(where: str, value: object) -> Iterator[tuple[str, object]]:
    """Yield (place, value) for all that is in `value`, in order. Raises RowError for what is nested too deeply."""
    left = [(where, value, 0)]
    while left:
        place, item, depth = left.pop()
        if isinstance(item, ToolCall):
            place, item = f"{place}.arguments", item.arguments
            depth = _depth_of_json(item) if isinstance(item, str) else depth
        if depth > DEEPEST:
            raise RowError(where, f"is nested more than {DEEPEST} levels deep, deeper than templates are rendered")
        inner = _members(place, item)
        if inner is None:
            yield place, item
        else:
            left += [(name, part, depth + 1) for name, part in reversed(inner)]


def _members(where: str, value: object) -> list[tuple[str, object]] | None:
    """Return (place, value) for what is in an object or a list; None for anything else."""
    if isinstance(value, Mapping):
        return [(f"{where}.{key}", inner) for key, inner in value.items()]
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [(f"{where}[{index}]", inner) for index, inner in enumerate(value)]
    return None


def _depth_of_json(text: str) -> int:
    """Return how deeply JSON text is nested, without parsing it."""
    if text.count("{") + text.count("[") <= DEEPEST:
        return 0
    steps = [1 if sign in "{[" else -1 for sign in re.findall(r"[\[\]{}]", _STRING.sub("", text))]
    return max(accumulate(steps), default=0)


def _refuse_half_characters(where: str, text: str) -> None:
    if (at := _half_in(text)) is not None:
        raise RowError(where, f"holds half a character (U+{ord(text[at]):04X}) at position {at}")


def _half_in(text: str) -> int | None:
    """Return where a text holds half of a UTF-16 pair, as cut off JSON does (``\\ud83d``): no tokenizer reads it."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return error.start
    return None
