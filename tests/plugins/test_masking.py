"""Each strategy on arrays made by hand."""

import numpy as np
import pytest

from sftplug import PARTS, ROLE_CODES, Conversation, MaskError, Masking, Message, TokenBatch
from sftplug.data.mask import weigh
from sftplug_masking import EmptyThink, EndOfTurn, MessageWeights, Reasoning, Regex, Roles, ToolCalls

# One character a token: u is the user's, a the assistant's, r its reasoning, c its tool call, | ends a turn.
TEXT = "uu|rrcca|"
CONVERSATION = Conversation((Message("user", "uu", weight=3.0), Message("assistant", "a", weight=0.5)), weight=2.0)


def batch():
    parts = ["content"] * 2 + ["end_of_turn"] + ["reasoning"] * 2 + ["tool_call"] * 2 + ["content", "end_of_turn"]
    return TokenBatch(
        ids=np.arange(9, dtype=np.int32),
        row=np.zeros(9, dtype=np.int32),
        message=np.array([0] * 3 + [1] * 6, dtype=np.int32),
        role=np.array([ROLE_CODES.index("user")] * 3 + [ROLE_CODES.index("assistant")] * 6, dtype=np.int8),
        part=np.array([PARTS.index(part) for part in parts], dtype=np.int8),
        content_part=np.full(9, -1, dtype=np.int16),
        trainable=np.array([False] * 3 + [True] * 6),
        start=np.arange(9, dtype=np.int32),
        end=np.arange(1, 10, dtype=np.int32),
        texts=[TEXT],
        conversations=[CONVERSATION],
    )


@pytest.mark.parametrize(
    ("masking", "expected"),
    [
        (Roles(roles=["user"]), "110000000"),
        (Roles(roles=["user", "assistant"]), "110111111"),
        (Reasoning(), "111001111"),
        (Reasoning(mode="train"), "111111111"),
        (EndOfTurn(mode="mask"), "110111110"),
        (ToolCalls(weight=0), "111110011"),
        (Regex(pattern="c+a", weight=0), "111110001"),
        (Regex(pattern="u", weight=0, role="assistant"), "111111111"),
        (Regex(pattern="u", weight=0, role=None), "001111111"),
        (EmptyThink(), "111111111"),
    ],
)
def test_weights(masking, expected):
    weights = np.asarray(masking.weights(batch())).astype(float)
    assert "".join(str(int(weight)) for weight in weights) == expected


def test_message_weights_multiply_those_of_the_row():
    assert MessageWeights().weights(batch()).tolist() == [6.0] * 3 + [1.0] * 6


def test_lists_multiply_and_unions_take_the_larger():
    product = weigh(batch(), [[Roles(roles=["assistant"])], [ToolCalls(weight=0.25)]])
    assert product.tolist() == [0, 0, 0, 1, 1, 0.25, 0.25, 1, 1]
    union = weigh(batch(), [[Roles(roles=["user"]), Regex(pattern="a", weight=2)]])
    assert union.tolist() == [1, 1, 1, 1, 1, 1, 1, 2, 1]


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (np.ones(3), "masking 'odd': weights() returned an array of shape (3,); expected (9,)"),
        (
            np.full(9, -1.0),
            "masking 'odd': weights() gave token 0 of the batch the weight -1.0; weights are finite and >= 0",
        ),
        (np.full(9, np.nan), "masking 'odd': weights() gave token 0 of the batch the weight nan"),
        (np.array(["x"] * 9), "masking 'odd': weights() returned an array of <U1; expected bool or float"),
    ],
)
def test_what_is_no_weight_is_refused_naming_the_strategy(returned, message):
    class Odd(Masking):
        type: str = "odd"

        def weights(self, tokens):
            return returned

    with pytest.raises(MaskError) as caught:
        weigh(batch(), [[Odd()]])
    assert message in str(caught.value)
