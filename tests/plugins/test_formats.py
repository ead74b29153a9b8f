"""Each format: what a row becomes, and the exact words about a row that does not fit."""

import copy
import json

import pytest
from pydantic import ValidationError

from sftplug import Message, RowError, ToolCall
from sftplug_formats import Alpaca, Columns, Messages, PromptCompletion, ShareGPT, Text

CALL = {"function": {"name": "look", "arguments": {"w": 1}}}


def turns(format_, row):
    before = copy.deepcopy(row)
    conversation = format_.to_conversation(row)
    assert row == before, "a format must not change the row"
    return [(message.role, message.content) for message in conversation.messages]


def refused(format_, row):
    with pytest.raises(RowError) as caught:
        format_.to_conversation(row)
    return str(caught.value)


def test_text():
    assert turns(Text(), {"text": "a"}) == [("document", "a")]
    assert Text().to_conversation({"text": "a"}).plain
    assert turns(Text(column="body"), {"body": "a"}) == [("document", "a")]
    assert refused(Text(), {"txt": "a"}) == "text: is missing. Did you mean 'txt'? The row has: txt."
    assert refused(Text(), {"text": 3}) == "text: must be text, not a number"


def test_prompt_completion_of_strings_and_of_messages():
    conversation = PromptCompletion().to_conversation({"prompt": "1+1=", "completion": "2"})
    assert conversation.plain
    assert conversation.completion_from == 1
    row = {"prompt": [{"role": "user", "content": "a"}], "completion": [{"role": "assistant", "content": "b"}]}
    conversation = PromptCompletion().to_conversation(row)
    assert (conversation.plain, conversation.completion_from, len(conversation.messages)) == (False, 1, 2)
    assert refused(PromptCompletion(), {**row, "completion": "b"}) == (
        "completion: must be a list of messages, as the prompt is, not text"
    )


def test_messages_keep_calls_reasoning_parts_and_weights():
    row = {
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "a"}], "name": None},
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [{"id": "c", **CALL}],
                "thinking": "hm",
                "train": False,
            },
            {"role": "tool", "content": "x", "tool_call_id": "c"},
            {"role": "assistant", "content": "b", "weight": 2},
        ],
        "tools": json.dumps([{"name": "look", "parameters": {}}]),
    }
    conversation = Messages().to_conversation(row)
    assert conversation.messages[1] == Message(
        "assistant", None, (ToolCall("look", {"w": 1}, "c"),), reasoning_content="hm", weight=0.0
    )
    assert conversation.messages[3].weight == 2.0
    assert conversation.tools == ({"type": "function", "function": {"name": "look", "parameters": {}}},)
    assert conversation.messages[0].to_dict() == {"role": "user", "content": [{"type": "text", "text": "a"}]}


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ("hi", "messages[0]: must be an object with role and content, not text"),
        ({"content": "x"}, "messages[0].role: is missing"),
        ({"role": "user"}, "messages[0].content: is missing, and the message has no tool calls"),
        ({"role": "user", "content": 1}, "messages[0].content: must be text or a list of parts, not a number"),
        (
            {"role": "user", "content": ["x"]},
            "messages[0].content[0]: must be a part with a type, such as {type: text, text: …}",
        ),
        ({"role": "user", "content": [{"type": "text"}]}, "messages[0].content[0].text: must be text, not null"),
        (
            {"role": "a", "content": "", "tool_calls": {}},
            "messages[0].tool_calls: must be a list of calls, not an object",
        ),
        (
            {"role": "a", "content": "", "tool_calls": [{}]},
            "messages[0].tool_calls[0]: must be a call with a name and arguments",
        ),
        (
            {"role": "a", "content": "", "tool_calls": [{"name": "f", "arguments": "{"}]},
            "messages[0].tool_calls[0].arguments: is not valid JSON: Expecting property name enclosed in double "
            "quotes at column 2",
        ),
        (
            {"role": "a", "content": "", "tool_calls": [{"name": "f", "arguments": '{"x": 1, "x": 2}'}]},
            "messages[0].tool_calls[0].arguments: holds the key 'x' twice in one object, and only one could be read",
        ),
        ({"role": "a", "content": "", "weight": -1}, "messages[0].weight: must be a number of at least 0, not -1"),
        ({"role": "a", "content": "", "train": 1}, "messages[0].train: must be true or false, not a number"),
        (
            {"role": "a", "content": "", "train": True, "weight": 1},
            "messages[0].train: does not go together with weight",
        ),
        (
            {"role": "a", "content": "", "thinking": "x", "reasoning": "x"},
            "messages[0].thinking: says the same as reasoning: keep one of them",
        ),
    ],
)
def test_messages_that_do_not_fit_are_named(message, reason):
    assert refused(Messages(), {"messages": [message]}) == reason


def test_the_keys_of_sharegpt_are_recognized_among_messages():
    text = refused(Messages(), {"messages": [{"from": "human", "value": "x"}]})
    assert "messages[0].from: unknown key. `from` and `value` are the keys of the format `sharegpt`." in text


def test_alpaca_with_input_system_and_history():
    row = {"instruction": "Add.", "input": "1 2", "output": "3", "system": "Brief.", "history": [["Add.\n\n0 0", "0"]]}
    assert turns(Alpaca(), row) == [
        ("system", "Brief."),
        ("user", "Add.\n\n0 0"),
        ("assistant", "0"),
        ("user", "Add.\n\n1 2"),
        ("assistant", "3"),
    ]
    assert turns(Alpaca(separator=": "), {**row, "history": None, "system": ""})[0] == ("user", "Add.: 1 2")
    assert refused(Alpaca(), {"instruction": "x"}) == "output: is missing. The row has: instruction."
    assert refused(Alpaca(), {**row, "history": [["x"]]}) == "history[0]: must be [question, reply], two texts"


def test_sharegpt_in_both_spellings_with_calls_and_results():
    row = {
        "conversations": [
            {"from": "human", "value": "a"},
            {"from": "function_call", "value": json.dumps([CALL["function"], CALL["function"]])},
            {"from": "observation", "value": "x"},
            {"role": "assistant", "content": "b"},
        ],
        "system": "Brief.",
    }
    assert turns(ShareGPT(), row) == [
        ("system", "Brief."),
        ("user", "a"),
        ("assistant", None),
        ("tool", "x"),
        ("assistant", "b"),
    ]
    assert len(ShareGPT().to_conversation(row).messages[2].tool_calls) == 2
    text = refused(ShareGPT(), {"conversations": [{"from": "humn", "value": "x"}]})
    assert text.startswith("conversations[0].from: nobody knows 'humn'. Did you mean 'human'? Known: system, human, ")
    text = refused(ShareGPT(), {"conversations": [{"from": "function_call", "value": "look(1)"}]})
    assert text == "conversations[0].value: is not valid JSON: Expecting value at column 1"
    assert refused(ShareGPT(), {"conversation": []}) == (
        "conversations: must be a list of turns, not null. Did you mean 'conversation'?"
    )


def test_sharegpt_has_one_system_prompt_from_column_or_turn():
    said = [{"from": "system", "value": "Brief."}, {"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]
    once = [("system", "Brief."), ("user", "a"), ("assistant", "b")]
    assert turns(ShareGPT(), {"conversations": said, "system": "Brief."}) == once
    assert turns(ShareGPT(), {"conversations": said, "system": ""}) == once
    assert turns(ShareGPT(), {"conversations": said[1:], "system": "Brief."}) == once
    other = {"conversations": said, "system": "Long."}
    assert refused(ShareGPT(), other).startswith("system: is another system prompt than that of the turns in conversat")
    assert turns(ShareGPT(system=""), other) == once


def test_columns_by_name_and_by_text_with_columns_in_it():
    format_ = Columns(system="Be {{brief}}.", user="Say {word} in {language}.", assistant="answer")
    row = {"word": "sea", "language": "French", "answer": "mer"}
    assert turns(format_, row) == [("system", "Be {brief}."), ("user", "Say sea in French."), ("assistant", "mer")]
    assert refused(Columns(user="wrd", assistant="answer"), row) == (
        "user: there is no column 'wrd'. Did you mean 'word'? The row has: word, language, answer."
    )
    assert refused(format_, {**row, "word": None}) == "word: is null"
    with pytest.raises(ValidationError, match="braces must hold the name of a column"):
        Columns(user="{} {word}", assistant="answer")


def test_turns_of_sharegpt_have_weights_too():
    turns = [{"from": "human", "value": "a", "weight": None}, {"from": "gpt", "value": "b", "weight": 0}]
    turns += [{"from": "gpt", "value": "c", "train": False}, {"from": "gpt", "value": "d"}]
    found = ShareGPT().to_conversation({"conversations": turns})
    assert [message.weight for message in found.messages] == [None, 0, 0, None]
    with pytest.raises(RowError, match=r"conversations\[0\]\.weight: must be a number of at least 0, not 'x'"):
        ShareGPT().to_conversation({"conversations": [{"from": "gpt", "value": "b", "weight": "x"}]})
