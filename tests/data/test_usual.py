"""What counts as a usual row: every stage that looks no closer at one relies on it."""

from dataclasses import replace

import pytest

from sftplug import Conversation, Message, ToolCall
from sftplug.data.convert import Example
from sftplug.data.usual import usual_texts

USUAL = Conversation((Message("system", "Be kind."), Message("user", "Hi"), Message("assistant", "Hëllo, you")))


def test_texts_of_a_usual_row_are_by_message_and_key():
    thinking = replace(USUAL, messages=(*USUAL.messages[:2], Message("assistant", "Yes", reasoning_content="Is it?")))
    assert usual_texts(USUAL) == {(0, "content"): "Be kind.", (1, "content"): "Hi", (2, "content"): "Hëllo, you"}
    assert list(usual_texts(thinking)) == [(0, "content"), (1, "content"), (2, "content"), (2, "reasoning_content")]


@pytest.mark.parametrize(
    "message",
    [
        Message("assistant", None, (ToolCall("look", {}),)),
        Message("assistant", "Yes", (ToolCall("look", {}),)),
        Message("assistant", [{"type": "text", "text": "Yes"}]),
        Message("assistant", "<think>So?</think>Yes"),
        Message("assistant", "Yes", reasoning_content="a {{name}}"),
        Message("assistant", "Yes", reasoning_content=""),
        Message("assistant", "Yes", weight=0.5),
        Message("assistant", "Yes", name="Eve"),
        Message("assistant", "<tool_call>look()</tool_call>"),
        Message("assistant", '{"name": "look"}'),
        Message("assistant", "  indented"),
        Message("assistant", " "),
        Message("assistant", ""),
        Message("assistant", None),
        Message("assistant", "cut \ud83d"),
        Message("assistant", 3),
        Message("user", "Dear {{name}}"),
        Message("user", "<image> What is this?"),
        Message("tool", "Yes", tool_call_id="1"),
        Message("system", "a second one"),
        Message("nobody", "Yes"),
        Message(["user"], "Yes"),
    ],
    ids=repr,
)
def test_a_row_with_a_message_that_something_is_to_be_told_of_is_not_usual(message):
    assert usual_texts(replace(USUAL, messages=(*USUAL.messages, message))) is None


@pytest.mark.parametrize(
    "option", [{"plain": True}, {"weight": 2.0}, {"tools": ({},)}, {"template_kwargs": {"a": 1}}, {"messages": ()}]
)
def test_a_row_that_says_more_than_its_turns_is_not_usual(option):
    assert usual_texts(replace(USUAL, **option)) is None


def test_what_is_known_of_a_row_goes_with_its_conversation():
    row = Example(USUAL, "rows.jsonl:1", texts=usual_texts(USUAL))
    assert row.saying(replace(USUAL, messages=USUAL.messages[1:])).texts == {
        (0, "content"): "Hi",
        (1, "content"): "Hëllo, you",
    }
    assert row.saying(replace(USUAL, weight=0.5)).texts is None
