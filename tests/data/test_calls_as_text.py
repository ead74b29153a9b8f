"""A call that stands in a reply as text is told, whatever stands around it; code that only looks like one is not."""

import pytest

from sftplug import Conversation, Message
from sftplug.data.calls_as_text import calls_as_text

TOOLS = ({"type": "function", "function": {"name": "look"}}, {"name": "Tide Tables API"})
LOOK = '{"name": "look", "arguments": {"at": "sky"}}'


def said(text, tools=TOOLS):
    return [sentence for _, sentence in calls_as_text(Conversation((Message("assistant", text),), tools), True)]


@pytest.mark.parametrize(
    "text",
    [
        '[look(at="sky")] and more',
        'I look. [look(at="sky")]',
        "Wait:\n[look()]",
        'First look(at="sky"), then I say it.',
        '[Tide Tables API(port="Wyk")]\nThat is all.',
        f"{LOOK} And that is it.",
        f"[{LOOK}] And that is it.",
        f"I look it up.\n```json\n{LOOK}\n```",
        'I do {"arguments": {"at": "sky"}, "name": "look"}.',
    ],
)
def test_a_call_among_other_words_is_told(text):
    (sentence,) = said(text)
    assert sentence.startswith("messages[0] calls a tool among other words (")
    assert "trained as it stands. Write the call under `tool_calls` of the message" in sentence


@pytest.mark.parametrize("text", ['[look(at="sky")]', LOOK, f"<tool_call>\n{LOOK}\n</tool_call>"])
def test_a_reply_of_calls_alone_is_told_with_the_option_that_reads_it(text):
    (sentence,) = said(text)
    assert "with `calls_in_text: " in sentence


@pytest.mark.parametrize(
    ("text", "tools"),
    [
        ('I look. [look(at="sky")]', ()),
        ('models = [Fern(leaves=3), Moss(height="low")]', TOOLS),
        ("`look(x == 1)` or overlook(at=1)", TOOLS),
        ('{"name": "Ada", "age": 36} is what you asked for.', TOOLS),
        ("[1] Ferns (a book), [2] Moss", TOOLS),
    ],
)
def test_what_is_no_call_of_the_row_s_tools_is_not_told(text, tools):
    assert not said(text, tools)
