"""The laws of dataset formats."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from sftplug.errors import PluginError, RowError
from sftplug.plugin.calls import conversation_of, recognition
from sftplug.plugin.components import DatasetFormat
from sftplug.testing.component import check_component
from sftplug.testing.law import Breach, check, check_drawn, demand, make, need_hypothesis, shown
from sftplug.testing.proofs import proving
from sftplug.types.conversation import ROLES, Conversation
from sftplug.types.recognition import Recognized


@dataclass(frozen=True, slots=True)
class Read:
    """A format, and a row to read."""

    format: DatasetFormat
    row: Mapping[str, Any]

    def __call__(self) -> Conversation:
        """Read a copy of the row."""
        return conversation_of(self.format, copy.deepcopy(self.row))


@proving
def check_format(component: type[DatasetFormat], rows: Sequence[Mapping[str, Any]], /, **options: Any) -> None:
    """Hold a format to its laws; `rows` are a few that fit it, and damaged ones are drawn from them.

    Raises LawBroken.
    """
    need_hypothesis()
    check_component(component, **options)
    if not rows:
        raise ValueError("check_format needs at least one row that fits the format")
    made = make(component, options)
    for row in rows:
        check(made, (reads_the_row, is_deterministic, leaves_the_row_alone), Read(made, row))
    check(made, [refuses_an_empty_row], Read(made, {}))
    check(made, (reads_what_it_recognizes, recognizes_no_others), Asked(component, rows))
    from sftplug.testing.draw import damaged_rows

    drawn = damaged_rows(rows).map(lambda row: Read(made, row))
    check_drawn(made, (refuses_a_bad_row_by_name, leaves_the_row_alone), drawn, examples=150)
    asked = damaged_rows(rows).map(lambda row: Asked(component, [row]))
    check_drawn(made, [answers_whatever_the_rows_are], asked, examples=50)


@dataclass(frozen=True, slots=True)
class Asked:
    """A class of formats, and rows that it may recognize."""

    component: type[DatasetFormat]
    rows: Sequence[Mapping[str, Any]]

    def __call__(self) -> Recognized | str | None:
        """Ask it."""
        return recognition(self.component, self.rows)


def reads_the_row(read: Read) -> None:
    """A row that fits becomes a conversation of known roles, each message with text, parts or tool calls."""
    conversation = read()
    _judge(conversation, read.row)
    unknown = [message.role for message in conversation.messages if message.role not in ROLES]
    demand(not unknown, f"{shown(read.row)} has the role {shown(unknown[:1])}", f"roles are {', '.join(ROLES)}.")
    demand(
        bool(conversation.messages), f"{shown(read.row)} became no message", "raise sftplug.RowError for such a row."
    )


def is_deterministic(read: Read) -> None:
    """The same row gives the same conversation, whenever it is read."""
    first, second = read(), read()
    demand(
        first == second,
        f"{shown(read.row)} gave {shown(first)}, and then {shown(second)}",
        "let to_conversation depend on the row and the options alone.",
    )


def leaves_the_row_alone(read: Read) -> None:
    """A row is not changed by being read, whether it fits or not."""
    row = copy.deepcopy(read.row)
    with suppress(RowError):
        conversation_of(read.format, row)
    demand(row == read.row, f"the row {shown(read.row)} became {shown(row)}", "copy what you change, and pop nothing.")


def refuses_a_bad_row_by_name(read: Read) -> None:
    """A row that does not fit raises RowError, which names the field, and nothing else."""
    try:
        _judge(read(), read.row)
    except RowError as error:
        demand(
            bool(str(error.field).strip()) and bool(str(error.reason).strip()),
            f"for {shown(read.row)} it raised RowError({error.field!r}, {error.reason!r})",
            "name the field and the reason: RowError('column', 'must be text, not null').",
        )
    except Breach:
        raise
    except PluginError as error:
        found = f"the row {shown(read.row)}: {error}"
        fix = "look before you take: raise sftplug.RowError(field, reason) for what does not fit."
        raise Breach(found, fix) from error


def refuses_an_empty_row(read: Read) -> None:
    """A row without any column is refused with RowError: nothing in it can be what the format reads."""
    fix = "raise sftplug.RowError for a column that is missing."
    try:
        conversation = read()
    except RowError:
        return
    except PluginError as error:
        raise Breach(f"{{}}: {error}", fix) from error
    raise Breach(f"{{}} became {shown(conversation)}", fix)


def reads_what_it_recognizes(asked: Asked) -> None:
    """Rows that a format recognizes, for a recipe without `format`, are read by it with the options that it names."""
    answer = asked()
    if not isinstance(answer, Recognized):
        return
    fix = "let recognizes look at what to_conversation reads, and return the options that read it."
    try:
        made = asked.component.model_validate(dict(answer.options))
    except ValidationError as error:
        (first, *_) = error.errors()
        place = ".".join(map(str, first["loc"])) or "options"
        found = f"it recognizes {shown(asked.rows[0])} with {shown(answer.options)}: {place}: {first['msg']}"
        raise Breach(found, fix) from error
    for row in asked.rows:
        try:
            conversation_of(made, copy.deepcopy(row))
        except (RowError, PluginError) as error:
            raise Breach(f"it recognizes {shown(row)}, and does not read it: {error}", fix) from error


def recognizes_no_others(asked: Asked) -> None:
    """Rows without any column that the format reads are not recognized."""
    for row in ({}, {"a column of no format": "text"}):
        answer = recognition(asked.component, [row])
        demand(
            not isinstance(answer, Recognized),
            f"it recognizes {shown(row)}, by {shown(answer)}",
            "look for the columns that to_conversation reads, and return a sentence where they are not there.",
        )


def answers_whatever_the_rows_are(asked: Asked) -> None:
    """Asked whether it recognizes rows, a format answers, whatever is in them."""
    try:
        asked()
    except PluginError as error:
        fix = "look before you take: recognizes gets rows of other formats too."
        raise Breach(f"for {shown(asked.rows[0])}: {error}", fix) from error


def _judge(conversation: Conversation, row: Mapping[str, Any]) -> None:
    """Demand that `conversation` is one that a template can render; the core itself refuses unknown roles."""
    for index, message in enumerate(conversation.messages):
        where = f"of {shown(row)}, message {index}"
        demand(isinstance(message.role, str), f"{where} has the role {shown(message.role)}", f"use {', '.join(ROLES)}.")
        content = message.content
        parts = isinstance(content, Sequence) and all(isinstance(part, Mapping) for part in content)
        demand(
            isinstance(content, str) or parts or (content is None and bool(message.tool_calls or conversation.tokens)),
            f"{where} has the content {shown(content)}",
            "a content is text, a list of parts, or None beside tool calls; raise sftplug.RowError for another.",
        )
