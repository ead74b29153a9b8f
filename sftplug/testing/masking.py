"""The laws of masking strategies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sftplug.errors import MaskError
from sftplug.plugin.calls import loss_weights, trains
from sftplug.plugin.components import Masking
from sftplug.testing.component import check_component
from sftplug.testing.law import Breach, check, check_drawn, demand, make, need_hypothesis, shown
from sftplug.testing.proofs import proving
from sftplug.testing.tokens import token_batch
from sftplug.types.conversation import Conversation, Message, ToolCall
from sftplug.types.tokens import ROLE_CODES, TokenBatch

SAMPLE = (
    Conversation(
        (
            Message("system", "Be brief."),
            Message("developer", "Use tools."),
            Message("user", "What is 6 times 7?"),
            Message("assistant", "Let me see.", (ToolCall("times", {"a": 6, "b": 7}),), reasoning_content="A product."),
            Message("tool", "42"),
            Message("assistant", "It is 42."),
        )
    ),
    Conversation((Message("document", "Once upon a time."),), plain=True),
)
"""Conversations in which every role speaks."""


@dataclass
class Weighed:
    """A strategy, and conversations to weigh."""

    masking: Masking
    conversations: Sequence[Conversation]
    tokens: TokenBatch = field(init=False)

    def __post_init__(self) -> None:
        """Make tokens of the conversations."""
        self.tokens = token_batch(self.conversations)

    def weights(self) -> NDArray[np.float64]:
        """Weigh the tokens."""
        return loss_weights(self.masking, self.tokens).astype(np.float64)


@proving
def check_masking(component: type[Masking], /, **options: Any) -> None:
    """Hold a masking strategy to its laws, on conversations of every shape. Raises LawBroken."""
    need_hypothesis()
    check_component(component, **options)
    made = make(component, options)
    check(made, (*LAWS, trains_something), Weighed(made, SAMPLE))
    from sftplug.testing.draw import batches

    check_drawn(made, LAWS, batches().map(lambda drawn: Weighed(made, drawn)))


def weighs_every_token(weighed: Weighed) -> None:
    """The weights are an array of shape (N,), bool or float: one for each token of the batch, finite and at least 0.

    A negative one would unlearn, and NaN would end the run.
    """
    try:
        weighed.weights()
    except MaskError as error:
        fix = "compute with the arrays of `tokens`, all of shape (N,); clip at 0, and divide by nothing that can be 0."
        raise Breach(str(error), fix) from error


def is_deterministic(weighed: Weighed) -> None:
    """The same tokens get the same weights, whenever they are weighed."""
    first, second = weighed.weights(), weighed.weights()
    demand(
        np.array_equal(first, second),
        f"{_named(weighed.tokens, np.flatnonzero(first != second))} another weight the second time",
        "draw no random numbers, or seed them by what is in the row.",
    )


def leaves_the_tokens_alone(weighed: Weighed) -> None:
    """The arrays of the batch are not changed: the next strategy gets the same."""
    tokens = weighed.tokens
    before = {name: getattr(tokens, name).copy() for name in _ARRAYS}
    weighed.weights()
    changed = [name for name in _ARRAYS if not np.array_equal(before[name], getattr(tokens, name))]
    demand(not changed, f"`tokens.{'`, `tokens.'.join(changed)}` changed", "copy an array before you assign to it.")


def does_not_depend_on_the_batch(weighed: Weighed) -> None:
    """A row's weights do not depend on which rows stand beside it: batches are cut anywhere."""
    whole = weighed.weights()
    apart = np.concatenate([Weighed(weighed.masking, [item]).weights() for item in weighed.conversations])
    demand(
        np.allclose(whole, apart, rtol=1e-6),
        f"{_named(weighed.tokens, np.flatnonzero(~np.isclose(whole, apart)))} another weight in a batch of "
        f"{len(weighed.conversations)} rows than alone",
        "look at each row by itself: `tokens.row`, `tokens.per_row` and `tokens.per_message` tell rows apart.",
    )


def trains_what_it_says(weighed: Weighed) -> None:
    """A strategy that selects trains what the model itself must produce, and of others only the roles in `trains`."""
    if not weighed.masking.selects:
        return
    allowed = [ROLE_CODES.index(role) for role in trains(weighed.masking)]
    others = (weighed.weights() > 0) & ~weighed.tokens.trainable & ~np.isin(weighed.tokens.role, allowed)
    demand(
        not others.any(),
        f"{_named(weighed.tokens, np.flatnonzero(others))} a weight above 0, though the model need not produce it",
        "multiply with `tokens.trainable`; or, if that is meant, name the role in the property `trains`; or set "
        "`selects = False` for a strategy that only weighs what others select.",
    )


def trains_something(weighed: Weighed) -> None:
    """Where every role speaks, some token has a weight: a run in which nothing is trained stops."""
    demand(
        bool((weighed.weights() > 0).any()),
        "no token of a system, developer, user, assistant and tool turn and of a document has a weight above 0",
        "check the comparison: codes of roles and parts come from `tokens.role_code` and `tokens.part_code`.",
    )


LAWS = (
    weighs_every_token,
    is_deterministic,
    leaves_the_tokens_alone,
    does_not_depend_on_the_batch,
    trains_what_it_says,
)
_ARRAYS = [field.name for field in fields(TokenBatch) if field.name not in ("texts", "conversations")]


def _named(tokens: TokenBatch, found: NDArray[np.intp]) -> str:
    """Return a token in words, to be followed by what it got: ``token 5 ('6'), the user's, has``."""
    if not len(found):
        return ""
    index = int(found[0])
    text = tokens.texts[tokens.row[index]][tokens.start[index] : tokens.end[index]]
    role = ROLE_CODES[tokens.role[index]]
    owner = "the template's own" if role == "none" else f"of role {role}"
    return f"token {index} ({shown(text)}), {owner}, has"
