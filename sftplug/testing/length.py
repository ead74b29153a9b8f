"""The laws of length policies."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

from sftplug.plugin.calls import shortened
from sftplug.plugin.components import LengthPolicy
from sftplug.testing.component import check_component
from sftplug.testing.law import check_drawn, demand, make, need_hypothesis, shown
from sftplug.testing.proofs import proving
from sftplug.types.conversation import Conversation
from sftplug.types.tokens import LongRow


@dataclass(frozen=True, slots=True)
class Shortened:
    """A policy, and a row that is too long."""

    policy: LengthPolicy
    row: LongRow


@proving
def check_length_policy(component: type[LengthPolicy], /, **options: Any) -> None:
    """Hold a length policy to its laws, on rows of every shape that are too long. Raises LawBroken."""
    need_hypothesis()
    check_component(component, **options)
    made = make(component, options)
    from sftplug.testing.draw import long_rows

    check_drawn(made, LAWS, long_rows().map(lambda row: Shortened(made, row)))


def shortens(asked: Shortened) -> None:
    """What it returns is shorter: conversations with fewer messages, or stretches of tokens that fit."""
    row, shorter = asked.row, shortened(asked.policy, asked.row)
    demand(
        asked.policy.shortens or not shorter,
        f"`shortens` says that it keeps no part of a row, and it returned {shown(shorter)}",
        "return an empty list, or leave `shortens` true.",
    )
    for stretch in stretches(shorter):
        kept = len(range(*stretch.indices(row.length)))
        demand(
            0 < kept <= row.limit,
            f"{shown(stretch)} keeps {kept} tokens of {row.length}, where {row.limit} are allowed",
            "keep at most `row.limit` tokens.",
        )
    for item in conversations(shorter):
        demand(
            bool(item.messages),
            f"of {len(row.conversation.messages)} messages: {shown(item)}",
            "return conversations of some messages; an empty list drops the row.",
        )


def invents_nothing(asked: Shortened) -> None:
    """Every message of what it returns is one of the row's, and they stand in the row's order."""
    messages, shorter = asked.row.conversation.messages, shortened(asked.policy, asked.row)
    for item in conversations(shorter):
        # One iterator for all: each message is searched behind the one before it, so another order is found out. `is`,
        # because two turns may say the same.
        left = iter(messages)
        demand(
            all(any(message is kept for message in left) for kept in item.messages),
            f"{shown(messages)} became {shown(item.messages)}",
            "choose among `row.conversation.messages`, and keep their order.",
        )


def is_deterministic(asked: Shortened) -> None:
    """The same row is shortened in the same way each time, and is not changed itself."""
    before = copy.deepcopy(asked.row)
    first, second = (shortened(asked.policy, asked.row) for _ in range(2))
    demand(first == second, f"{shown(first)}, and then {shown(second)}", "let it depend on the row alone.")
    demand(asked.row == before, f"the row {shown(before)} became {shown(asked.row)}", "copy what you change.")


def stretches(shorter: Any) -> list[slice]:
    """Return the stretches of tokens in an answer."""
    return [item for item in ([shorter] if isinstance(shorter, slice) else shorter) if isinstance(item, slice)]


def conversations(shorter: Any) -> list[Conversation]:
    """Return the conversations in an answer."""
    return [] if isinstance(shorter, slice) else [item for item in shorter if isinstance(item, Conversation)]


LAWS = (shortens, invents_nothing, is_deterministic)
