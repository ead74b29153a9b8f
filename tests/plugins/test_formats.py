"""Each format: what a row becomes, and the exact words about a row that does not fit."""

import copy
import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from sftplug import Message, RowError, ToolCall
from sftplug_formats import Alpaca, Columns, Messages, PromptCompletion, ShareGPT, Text
from sftplug_formats.roles import ROLES

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
    assert turns(PromptCompletion(), {**row, "completion": "b", "system": "c"}) == [
        ("system", "c"),
        ("user", "a"),
        ("assistant", "b"),
    ]
    assert refused(PromptCompletion(), {**row, "completion": 3}) == (
        "completion: must be text, or a list of messages, not a number"
    )
    in_a_table = PromptCompletion().to_conversation({name: json.dumps(said) for name, said in row.items()})
    assert in_a_table == conversation, "JSON texts of messages are messages"


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
        ({"content": "x"}, "messages[0].role: is missing. The message has: content"),
        ({"role": "user"}, "messages[0].content: is missing, and the message has no tool calls. It has: role"),
        ({"role": "user", "content": 1}, "messages[0].content: must be text or a list of parts, not a number"),
        (
            {"role": "user", "content": ["x"]},
            "messages[0].content[0]: must be a part with a type, such as {type: text, text: …}",
        ),
        ({"role": "user", "content": [{"type": "text"}]}, "messages[0].content[0].text: must be text, not null"),
        (
            {"role": "ai", "content": "", "tool_calls": 3},
            "messages[0].tool_calls: must be a list of calls, not a number",
        ),
        (
            {"role": "ai", "content": "", "tool_calls": [{}]},
            "messages[0].tool_calls[0]: must be a call with a name and arguments",
        ),
        (
            {"role": "ai", "content": "", "tool_calls": [{"name": "f", "arguments": "{"}]},
            "messages[0].tool_calls[0].arguments: is not valid JSON: Expecting property name enclosed in double "
            "quotes at column 2",
        ),
        (
            {"role": "ai", "content": "", "tool_calls": [{"name": "f", "arguments": '{"x": 1, "x": 2}'}]},
            "messages[0].tool_calls[0].arguments: holds the key 'x' twice in one object, and only one could be read",
        ),
        ({"role": "ai", "content": "", "weight": -1}, "messages[0].weight: must be a number of at least 0, not -1"),
        ({"role": "ai", "content": "", "train": 1}, "messages[0].train: must be true or false, not a number"),
        (
            {"role": "ai", "content": "", "train": True, "weight": 1},
            "messages[0].train: does not go together with weight",
        ),
        (
            {"role": "ai", "content": "", "thinking": "x", "reasoning": "y"},
            "messages[0].thinking: is another name for `reasoning`, and says something else: keep one",
        ),
    ],
)
def test_messages_that_do_not_fit_are_named(message, reason):
    assert refused(Messages(), {"messages": [message]}) == reason


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
    assert text.startswith(
        "conversations[0].from: nobody knows the role 'humn'. Did you mean 'human'? Known: system, dev"
    )
    text = refused(ShareGPT(), {"conversations": [{"from": "function_call", "value": "look(1)"}]})
    assert text == (
        "conversations[0].value: is not valid JSON: Expecting value at column 1. To train it as it stands, write "
        "`roles: {function_call: assistant}` in the format"
    )
    assert refused(ShareGPT(), {"conversation": []}) == (
        "conversations: is missing. Did you mean 'conversation'? The row has: conversation."
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


# --- one reader of turns ----------------------------------------------------------------------------------------------

IN_LISTS = [(Messages(), "messages"), (ShareGPT(), "conversations")]


@pytest.mark.parametrize(("format_", "column"), IN_LISTS)
def test_every_format_of_turns_knows_the_same_keys_and_roles(format_, column):
    spelled = [
        {"role": "Human", "value": "a"},
        {"from": "model", "text": "b", "reasoning": "hm", "loss": False},
        {"from": "prompter", "content": "c"},
        {"role": "thinking", "content": "first"},
        {"from": "gpt", "value": "I look."},
        {"role": "tool_call", "content": json.dumps({"name": "look", "parameters": {"w": 1}})},
        {"from": "function_call", "value": 'look(w=2, x=["é", None])'},
        {"role": "tool_response", "content": "x"},
        {"role": "ai", "content": None, "function_call": {"name": "look", "arguments": "{}"}},
        {"role": "function", "name": "look", "content": {"a": 1}},
    ]
    before = copy.deepcopy(spelled)
    assert list(format_.to_conversation({column: spelled}).messages) == [
        Message("user", "a"),
        Message("assistant", "b", reasoning_content="hm", weight=0.0),
        Message("user", "c"),
        Message(
            "assistant",
            "I look.",
            (ToolCall("look", {"w": 1}), ToolCall("look", {"w": 2, "x": ["é", None]})),
            reasoning_content="first",
        ),
        Message("tool", "x"),
        Message("assistant", None, (ToolCall("look", "{}"),)),
        Message("tool", '{"a": 1}', name="look"),
    ]
    assert spelled == before


@pytest.mark.parametrize(("format_", "column"), IN_LISTS)
def test_dumps_of_langchain_and_of_the_ai_sdk_are_read(format_, column):
    said = [
        {"type": "human", "content": "a", "additional_kwargs": {}},
        {"type": "ai", "content": "", "tool_calls": [{"name": "f", "args": {"x": 1}, "id": "1", "type": "tool_call"}]},
        {"type": "tool", "content": "b", "tool_call_id": "1"},
        {"role": "assistant", "content": [{"type": "tool-call", "toolName": "f", "toolCallId": "2", "args": {}}]},
        {"role": "tool", "content": [{"type": "tool-result", "toolCallId": "2", "toolName": "f", "result": "c"}]},
        {"role": "tool_call", "content": '{"name": "f"}\n{"name": "g"}'},
    ]
    assert list(format_.to_conversation({column: said}).messages) == [
        Message("user", "a"),
        Message("assistant", "", (ToolCall("f", {"x": 1}, "1"),)),
        Message("tool", "b", tool_call_id="1"),
        Message("assistant", None, (ToolCall("f", {}, "2"),)),
        Message("tool", "c", name="f", tool_call_id="2"),
        Message("assistant", None, (ToolCall("f", {}), ToolCall("g", {}))),
    ]


@pytest.mark.parametrize(("format_", "column"), IN_LISTS)
def test_keys_that_nobody_reads_are_told_all_at_once_and_empty_ones_say_nothing(format_, column):
    turns = [
        {"role": "user", "content": [{"type": "text", "text": "a", "cache_control": {"type": "x"}}], "id": 7},
        {"role": "assistant", "content": "b", "annotations": [], "audio": None, "id": 8, "redacted": False},
        {"role": "assistant", "tool_calls": [{"index": 0, "function": {"name": "f", "strict": True}}]},
    ]
    unread = format_.to_conversation({column: turns}).unread
    assert unread == tuple(
        f"{column}[].{key}"
        for key in ("id", "content[].cache_control", "redacted", "tool_calls[].index", "tool_calls[].function.strict")
    )


def test_names_of_roles_come_from_the_recipe_too():
    said = [{"from": "Ann", "value": "a"}, {"from": "bing", "value": "b"}, {"from": "function_call", "value": "f()"}]
    with pytest.raises(RowError) as caught:
        ShareGPT().to_conversation({"conversations": said})
    assert caught.value.options == {"roles": {"Ann": "user", "bing": "assistant"}}
    named = {"Ann": "user", "bing": "assistant", "function_call": "assistant"}
    for format_ in (ShareGPT(roles=named), Messages(roles=named, column="conversations")):
        assert turns(format_, {"conversations": said}) == [("user", "a"), ("assistant", "b"), ("assistant", "f()")]
    row = {"prompt": said[:1], "completion": said[1:2]}
    assert turns(PromptCompletion(roles=named), row) == [("user", "a"), ("assistant", "b")]
    with pytest.raises(ValidationError, match="roles"):
        ShareGPT(roles={"bing": "wizard"})


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (
            [{"role": "thought", "content": "hm"}, {"role": "user", "content": "a"}],
            "messages[0]: is a thought, and no turn of the assistant's follows it",
        ),
        (
            [{"role": "tool_call", "content": '{"name": "f"}'}, {"role": "tool_call", "content": "f()", "loss": False}],
            "messages[1]: is one turn with messages[0], and is trained with another weight",
        ),
        (
            [{"role": "tool_call", "content": '{"name": "f", "why": "x"}'}],
            "messages[0].content: holds what no call has: messages[].content.why",
        ),
        (
            [{"role": "ai", "content": [{"type": "tool_use", "name": "f"}, {"type": "text", "text": "x"}]}],
            "messages[0].content[1]: comes too late: a turn is rendered as its thoughts, its text and then its calls",
        ),
        (
            [{"role": "ai", "content": "a", "value": "b"}],
            "messages[0].value: is another name for `content`, and says something else: keep one",
        ),
        (
            [{"role": "ai", "content": "a", "function_call": {"name": "f"}, "tool_calls": [CALL]}],
            "messages[0].function_call: is another name for `tool_calls`, and says something else: keep one",
        ),
        (
            [{"role": "user", "content": [{"type": "tool_result", "content": "x"}], "tool_calls": [CALL]}],
            "messages[0].tool_calls: stands beside answers of tools, and nobody reads it there",
        ),
    ],
)
def test_turns_that_cannot_be_one_thing_are_refused(said, reason):
    assert refused(Messages(), {"messages": said}) == reason


def test_a_system_turn_may_declare_the_tools_of_the_row():
    said = [{"role": "system", "content": "a", "tools": [{"name": "f"}]}, {"role": "user", "content": "b"}]
    made = Messages().to_conversation({"messages": said})
    assert made.tools == ({"type": "function", "function": {"name": "f"}},)
    assert refused(Messages(), {"messages": said, "tools": [{"name": "g"}]}) == (
        "tools: declares other tools than the system turn of the row: keep one of them"
    )
    said[1]["tools"] = [{"name": "f"}]
    assert Messages().to_conversation({"messages": said}).unread == ("messages[].tools",)


def test_columns_make_calls_of_a_column():
    row = {"q": "a", "calls": json.dumps([{"name": "f", "arguments": {"x": 1}}]), "tools": [{"name": "f"}], "say": "b"}
    made = Columns(user="q", calls="calls").to_conversation(row)
    assert made.messages[-1] == Message("assistant", None, (ToolCall("f", {"x": 1}),))
    assert made.tools == ({"type": "function", "function": {"name": "f"}},)
    assert Columns(user="q", assistant="say", calls="calls").to_conversation(row).messages[-1].content == "b"
    assert refused(Columns(user="q", calls="calls"), {**row, "calls": []}).startswith("calls: holds no call, and there")
    with pytest.raises(ValidationError, match="needs `assistant`, the reply, or `calls`"):
        Columns(user="q")


def test_columns_have_a_thought_before_the_reply():
    made = Columns(user="q", assistant="a", reasoning="why").to_conversation({"q": "1", "a": "2", "why": "3"})
    assert made.messages[-1] == Message("assistant", "2", reasoning_content="3")


# --- nothing that a turn holds is lost without a word -----------------------------------------------------------------

_mark = st.integers(10_000, 99_999).map(lambda number: f"said{number}")
_part = st.one_of(
    st.fixed_dictionaries({"type": st.just("text"), "text": _mark}, optional={"cache": _mark}),
    st.fixed_dictionaries({"type": st.just("thinking"), "thinking": _mark}, optional={"signature": _mark}),
    st.fixed_dictionaries({"type": st.just("tool_use"), "name": _mark, "input": st.dictionaries(_mark, _mark)}),
    st.fixed_dictionaries({"type": st.just("tool_result"), "content": _mark}, optional={"is_error": _mark}),
    st.fixed_dictionaries(
        {"functionCall": st.fixed_dictionaries({"name": _mark, "args": st.dictionaries(_mark, _mark)})}
    ),
    st.fixed_dictionaries({"type": st.just("image"), "url": _mark}),
)
_call = st.fixed_dictionaries({"name": _mark, "arguments": st.dictionaries(_mark, _mark)}, optional={"extra": _mark})
_calls = st.one_of(st.lists(_call, max_size=2), _call.map(json.dumps), _call, _mark)
_rest = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys(("reasoning", "thinking", "name", "tool_call_id", "other", "functions"), _mark),
        **dict.fromkeys(("tool_calls", "function_call"), _calls),
        "loss": st.booleans(),
    },
)
_turn = st.builds(
    lambda who, role, what, content, rest: {who: role, what: content, **rest},
    st.sampled_from(["role", "from"]),
    st.sampled_from([*ROLES]),
    st.sampled_from(["content", "value", "text", "parts"]),
    st.one_of(_mark, st.lists(_part, min_size=1, max_size=3), _calls),
    st.one_of(st.just({}), _rest),
)


def leaves(value, path):
    """Yield (path, text) of every text in a value, JSON texts unpacked."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from leaves(inner, f"{path}.{key}")
    elif isinstance(value, list):
        for inner in value:
            yield from leaves(inner, f"{path}[]")
    elif isinstance(value, str) and value.startswith("{"):
        yield from leaves(json.loads(value), path)
    elif isinstance(value, str):
        yield path, value


@given(st.lists(_turn, min_size=1, max_size=3))
def test_what_a_turn_says_is_in_the_conversation_or_told_as_unread_or_refused(said):
    try:
        made = Messages().to_conversation({"messages": said})
    except RowError:
        return
    held = json.dumps([[message.to_dict() for message in made.messages], list(made.tools)])
    texts = [*leaves(said, "messages")]
    told = " ".join(
        text for path, text in texts if any(path == key or path.startswith(f"{key}.") for key in made.unread)
    )
    for word in re.findall("said[0-9]+", " ".join(text for _, text in texts)):
        assert word in held or word in told, (word, held, made.unread)
