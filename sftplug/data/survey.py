"""What is in a dataset, told in one pass over its rows; of a row nothing is kept but numbers."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sftplug.data.convert import convert
from sftplug.types.conversation import Conversation, Row, RowTokens
from sftplug.types.ledger import Account, length_quantiles

if TYPE_CHECKING:
    from collections.abc import Callable

    from sftplug.recipe.model import SourceSection

FAMILIES: Mapping[str, re.Pattern[str]] = {
    "ChatML": re.compile(r"<\|im_(?:start|end|sep)\|>"),
    "Llama 3": re.compile(r"<\|(?:begin_of_text|start_header_id|end_header_id|eot_id|eom_id|python_tag)\|>"),
    "Llama 2 and Mistral": re.compile(r"\[/?(?:INST|TOOL_CALLS|AVAILABLE_TOOLS|TOOL_RESULTS)\]|<</?SYS>>"),
    "Gemma": re.compile(r"<(?:start|end)_of_turn>"),
    "DeepSeek": re.compile(r"<｜[^\s<>｜]{1,60}｜>"),
    "harmony": re.compile(r"<\|(?:channel|message|constrain|return|call)\|>"),
    "Phi and Zephyr": re.compile(r"<\|(?:system|user|assistant|end)\|>"),
    "GPT-2": re.compile(r"<\|endoftext\|>"),
}
"""Family of models -> its control tokens, as people leave them in texts."""
_PLACEHOLDER = re.compile(r"\{\{\s*[\w. -]{1,40}\s*\}\}|\$\{\w{1,40}\}|\[(?:YOUR|INSERT|NAME|COMPANY)[A-Z _]{0,30}\]")
MOST = 1000
"""So many values of one sort are told apart."""
MOST_COMPARED = 5_000_000
"""So many different rows are compared with: a number is kept of each."""


@dataclass(slots=True)
class ColumnSurvey:
    """One column."""

    types: Counter[str] = field(default_factory=Counter)
    """What its cells are, in the words of JSON -> how many; nulls are apart."""
    nulls: int = 0
    """Rows in which it is null, or not there."""
    lengths: Counter[int] = field(default_factory=Counter)
    """Characters of a text -> rows."""


@dataclass(slots=True)
class Survey:
    """What was counted."""

    rows: int = 0
    files: Counter[str] = field(default_factory=Counter)
    """File, or split of a dataset -> rows."""
    columns: dict[str, ColumnSurvey] = field(default_factory=dict)
    duplicates: int = 0
    """Rows that are equal to one before, among the first 5,000,000 different ones."""
    roles: Counter[str] = field(default_factory=Counter)
    """Role -> turns, of the rows that their format reads."""
    turns: Counter[int] = field(default_factory=Counter)
    """Turns of a conversation -> rows."""
    characters: Counter[int] = field(default_factory=Counter)
    """Characters of all contents of a conversation -> rows."""
    tokens: Counter[int] = field(default_factory=Counter)
    """The same in tokens of a model, without what a chat template writes around them; empty where none is named."""
    tools: int = 0
    """Rows that declare tools."""
    calls: int = 0
    """Rows in which tools are called."""
    reasoning: int = 0
    """Rows with thoughts."""
    plain: int = 0
    """Rows that no chat template renders."""
    given: Counter[int] = field(default_factory=Counter)
    """Tokens of a row that is tokens already -> rows."""
    trained: int = 0
    """Rows of those that say which of their tokens are trained."""
    control_tokens: dict[str, Counter[str]] = field(default_factory=dict)
    """Family -> token -> rows that have it in their text."""
    placeholders: Counter[str] = field(default_factory=Counter)
    """Text such as ``{{name}}`` -> rows."""
    _seen: set[int] = field(default_factory=set)

    # --- rows as they are ---

    def watch(self, rows: Iterable[Row]) -> Iterator[Row]:
        """Yield `rows`, and count what is in them."""
        for row in rows:
            self._row(row)
            yield row

    def _row(self, row: Row) -> None:
        self.rows += 1
        if (file := _file_of(row.origin)) in self.files or len(self.files) < MOST:
            self.files[file] += 1
        for name in row.data:
            if name not in self.columns and len(self.columns) < MOST:
                self.columns[str(name)] = ColumnSurvey(nulls=self.rows - 1)
        for name, column in self.columns.items():
            _count(column, row.data.get(name))
        if len(self._seen) < MOST_COMPARED:
            digest = int.from_bytes(hashlib.blake2b(_plain(row.data), digest_size=8).digest())
            self.duplicates += digest in self._seen
            self._seen.add(digest)

    # --- rows as their format reads them ---

    def conversation(self, said: Conversation, length: Callable[[str], int] | None = None) -> None:
        """Count what a conversation holds; `length` returns the tokens of a text."""
        if said.tokens is not None:
            self._given(said.tokens)
            return
        texts = [text for message in said.messages for text in _texts(message.content, message.reasoning_content)]
        self.roles.update(message.role for message in said.messages)
        self.turns[len(said.messages)] += 1
        self.characters[sum(map(len, texts))] += 1
        if length is not None:
            self.tokens[sum(map(length, texts))] += 1
        self.plain += said.plain
        self.tools += bool(said.tools)
        self.calls += any(message.tool_calls for message in said.messages)
        self.reasoning += any(message.reasoning_content for message in said.messages)
        whole = "\n".join(texts)
        for family, pattern in FAMILIES.items():
            if found := set(pattern.findall(whole)):
                self.control_tokens.setdefault(family, Counter()).update(found)
        self.placeholders.update(set(_PLACEHOLDER.findall(whole)) if len(self.placeholders) < MOST else ())

    def _given(self, tokens: RowTokens) -> None:
        self.plain += 1
        self.given[len(tokens.ids)] += 1
        self.trained += tokens.trained is not None

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON holds it."""
        return {
            "rows": self.rows,
            "files": dict(self.files),
            "columns": {name: _column(column) for name, column in self.columns.items()},
            "duplicates": self.duplicates,
            "roles": dict(self.roles),
            "turns": length_quantiles(self.turns),
            "characters": length_quantiles(self.characters),
            "tokens": length_quantiles(self.tokens),
            "given_tokens": length_quantiles(self.given),
            "rows_that_say_what_is_trained": self.trained,
            "tools": self.tools,
            "calls": self.calls,
            "reasoning": self.reasoning,
            "plain": self.plain,
            "control_tokens": {family: dict(found) for family, found in self.control_tokens.items()},
            "placeholders": dict(self.placeholders),
        }


def survey(
    rows: Iterable[Row], section: SourceSection | None, account: Account, length: Callable[[str], int] | None = None
) -> Iterator[Survey]:
    """Yield the same survey again after each row, which has counted the rows so far; at least once.

    Without a `section` nobody knows what the rows say, and columns alone are counted; with it, `account` is told of
    rows that do not fit its format.
    """
    made = Survey()
    yield made
    if section is None:
        for _ in made.watch(rows):
            yield made
        return
    for example in convert(made.watch(rows), section, account):
        made.conversation(example.conversation, length)
        yield made


def _column(column: ColumnSurvey) -> dict[str, Any]:
    return {"types": dict(column.types), "nulls": column.nulls, "characters": length_quantiles(column.lengths)}


def _file_of(origin: str) -> str:
    """Return ``rows.jsonl`` for ``rows.jsonl:3`` and for ``rows.jsonl[3]``."""
    return re.sub(r"(?::\d+|\[\d+\])$", "", origin)


def _count(column: ColumnSurvey, value: Any) -> None:
    if value is None:
        column.nulls += 1
        return
    column.types[_kind(value)] += 1
    if isinstance(value, str):
        column.lengths[len(value)] += 1


def _kind(value: Any) -> str:
    if isinstance(value, Mapping):
        return "object"
    if isinstance(value, list | tuple):
        inner = sorted({_kind(item) for item in value if item is not None})
        return f"list of {' or '.join(inner)}" if inner else "list"
    names = {bool: "true or false", str: "text", bytes: "bytes", int: "number", float: "number"}
    return names.get(type(value), type(value).__name__)


def _plain(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, default=repr).encode("utf-8", "surrogatepass")


def _texts(content: Any, reasoning: str | None) -> Iterator[str]:
    if reasoning:
        yield reasoning
    if isinstance(content, str):
        yield content
    elif content is not None:
        yield from (part["text"] for part in content if isinstance(part.get("text"), str))
