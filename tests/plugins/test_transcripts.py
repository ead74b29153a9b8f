"""Turns that are texts alone, transcripts, and calls that stand in texts: what they become, and what is refused."""

import json

import pytest
from plugins.test_formats import refused, turns

from sftplug import Message, RowError, ToolCall
from sftplug_formats import Alternating, Messages, PromptCompletion, Segments, ShareGPT, Transcript

# --- turns that are texts alone, and transcripts ----------------------------------------------------------------------


def test_texts_take_turns():
    assert turns(Alternating(), {"conversations": ["a", "b", "c"]}) == [
        ("user", "a"),
        ("assistant", "b"),
        ("user", "c"),
    ]
    assert turns(Alternating(first="assistant", column="d"), {"d": json.dumps(["a", "b"]), "system": "s"}) == [
        ("system", "s"),
        ("assistant", "a"),
        ("user", "b"),
    ]
    assert turns(Alternating(), {"conversations": [["a", "b"], ["c", "d"]]})[2:] == [("user", "c"), ("assistant", "d")]
    assert refused(Alternating(), {"conversations": ["a", 3]}) == "conversations[1]: must be text, not a number"
    assert refused(Alternating(), {"conversations": {}}) == "conversations: must be a list of texts, not an object"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("### Human: a ### b### Assistant:   c\n\n  d  ### Human: e", ["a ### b", "c\n\n  d", "e"]),
        ("\n\nHuman: Human: a\n\nAssistant: b\nHuman: c\n\nHuman:", ["Human: a", "b\nHuman: c", ""]),
        ("USER: a USER: b\n\n\nASSISTANT:\n    c <|endoftext|>\n\n\nUSER: d", ["a USER: b", "    c", "d"]),
        ("USER: a ASSISTANT: b</s>USER: c</s>", ["a", "b", "c"]),
        ("Human: a\n\nAssistant: b", ["a", "b"]),
        ("### Human: a", ["a"]),
    ],
)
def test_known_transcripts_are_cut_at_their_markers(text, said):
    roles = ["user", "assistant", "user"]
    assert turns(Transcript(), {"text": text}) == [*zip(roles, said, strict=False)]


def test_a_transcript_has_markers_of_its_own_and_what_stands_before_them():
    named = Transcript(markers={"Q:": "user", "A:": "assistant", "Note:": "system"}, column="talk")
    row = {"talk": "Q: Is A: first?\nA: No.", "system": "Note: Be brief.", "tools": [{"name": "f"}]}
    assert turns(named, row) == [("system", "Be brief."), ("user", "Is A: first?"), ("assistant", "No.")]
    vicuna = {"text": "A chat. USER: a ASSISTANT: b</s>"}
    assert turns(Transcript(before="system"), vicuna) == [("system", "A chat."), ("user", "a"), ("assistant", "b")]
    assert refused(Transcript(), vicuna).startswith("text: begins with what no marker says the role of: 'A chat.'.")
    assert refused(Transcript(), {"text": "a"}).startswith("text: has no turns that are marked as in any known")
    assert refused(Transcript(), {"text": "USER: a\nASSISTANT: b</s> c"}) == (
        "text: turn 2 goes on after its </s>, and no marker says whose turn it is"
    )


def test_glaive_calls_tools_that_its_system_prompt_declares():
    tool = {"name": "rate", "description": "d", "parameters": {"type": "object"}}
    quoted = (
        """ASSISTANT: Sure. <functioncall> {"name": "rate", "arguments": '{"n": 5, "to": "it\\'s"}'} <|endoftext|>"""
    )
    row = {
        "system": f"SYSTEM: Use them -\n{json.dumps(tool, indent=4)}\n",
        "chat": f"USER: a\n\n\n{quoted}\n\n\nFUNCTION RESPONSE: 4\n\n\nASSISTANT: b <|endoftext|>",
    }
    made = Transcript(column="chat").to_conversation(row)
    assert made.tools == ({"type": "function", "function": tool},)
    assert made.messages == (
        Message("system", "Use them -"),
        Message("user", "a"),
        Message("assistant", "Sure.", (ToolCall("rate", '{"n": 5, "to": "it\'s"}'),)),
        Message("tool", "4"),
        Message("assistant", "b"),
    )
    as_text = Transcript(column="chat", calls_in_text=None, tools_in_system=False).to_conversation(row)
    assert not as_text.tools
    assert json.dumps(tool, indent=4) in as_text.messages[0].content
    assert "<functioncall>" in as_text.messages[2].content


CALLED = (ToolCall("look up", {"w": "a, f(x=1)"}), ToolCall("f", {}))
WRITTEN = {
    "python": '[look up(w="a, f(x=1)"), f()]',
    "json": json.dumps([{"name": call.name, "arguments": call.arguments} for call in CALLED]),
    "tool_call": "<tool_call>\n{'name': 'look up', 'arguments': {'w': 'a, f(x=1)'}}\n</tool_call>\n"
    '<tool_call>{"name": "f"}</tool_call>',
    "functioncall": '<functioncall> {"name": "look up", "arguments": {"w": "a, f(x=1)"}}<functioncall>{"name": "f"}',
}


@pytest.mark.parametrize("notation", WRITTEN)
def test_calls_in_text_become_calls_where_that_is_said(notation):
    row = {"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": WRITTEN[notation]}]}
    made = ShareGPT(calls_in_text=notation).to_conversation(row)
    assert made.messages[1] == Message("assistant", None, CALLED)
    assert ShareGPT().to_conversation(row).messages[1].content == WRITTEN[notation]
    prompt = {"prompt": "a", "completion": WRITTEN[notation]}
    assert PromptCompletion.model_validate({"as": "chat", "calls_in_text": notation}).to_conversation(prompt).messages[
        1
    ] == Message("assistant", None, CALLED)


@pytest.mark.parametrize("text", ["[1] See (a).", "[see (a)](b)", "[f(1)]", '{"name": "Ada"}', "[]", "<tool_call>", ""])
@pytest.mark.parametrize("notation", WRITTEN)
def test_other_text_stays_text(text, notation):
    row = {"conversations": [{"from": "gpt", "value": text}]}
    assert ShareGPT(calls_in_text=notation).to_conversation(row).messages == (Message("assistant", text),)


@pytest.mark.parametrize(
    ("notation", "text", "reason"),
    [
        ("python", "[f(x=y)]", "seems to be calls of tools, and cannot be read as such: '[f(x=y)]'"),
        ("functioncall", "<functioncall> {", "is not valid JSON"),
        ("tool_call", "<tool_call>{</tool_call>", "is not valid JSON"),
        ("tool_call", '<tool_call>{"name": "f"}</tool_call> So.', "goes on after a call"),
        ("tool_call", '<tool_call>{"name": "f"}', "holds a call of which only one of the tags"),
        (
            "tool_call",
            '<tool_call>{"a"<tool_call>{"name": "f"}</tool_call>',
            "holds a call of which only one of the tags",
        ),
    ],
)
def test_calls_in_text_that_cannot_be_read_are_refused(notation, text, reason):
    row = {"conversations": [{"from": "gpt", "value": text}]}
    assert refused(ShareGPT(calls_in_text=notation), row).startswith(f"conversations[0].value: {reason}")


def test_tools_are_taken_out_of_a_system_prompt():
    tools = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
    answers = "<tool_response>1</tool_response>\n<tool_response>\n2\n</tool_response>"
    for written in (json.dumps(tools), repr(tools)):
        said = [
            {"from": "system", "value": f"Hi {{}}. <tools>{written}</tools> Bye."},
            {"from": "tool", "value": answers},
        ]
        made = ShareGPT(tools_in_system=True, calls_in_text="tool_call").to_conversation({"conversations": said})
        assert made.tools == tuple(tools)
        assert [message.content for message in made.messages] == ["Hi {}.  Bye.", "1", "2"]
    other = {"conversations": said, "tools": [{"name": "g"}]}
    assert refused(ShareGPT(tools_in_system=True), other).startswith("tools: declares other tools than the system turn")


def test_segments_are_plain_text_of_which_some_is_trained():
    pieces = [{"text": "<s>Q: ", "label": False}, {"text": "A", "label": True, "id": 3}]
    made = Segments().to_conversation({"segments": json.dumps(pieces)})
    assert made.messages == (Message("user", "<s>Q: "), Message("assistant", "A"))
    assert (made.plain, made.unread) == (True, ("segments[].id",))
    assert refused(Segments(), {"segments": [{"text": "a", "label": 1}]}) == (
        "segments[0].label: must be true or false, not a number"
    )
    assert refused(Segments(), {"segments": []}).startswith("segments: must be a list of pieces")


def test_calls_in_plain_text_are_refused_with_what_makes_turns_of_it():
    plain = PromptCompletion(calls_in_text="json")
    assert refused(plain, {"prompt": "a", "completion": WRITTEN["json"]}).startswith(
        "completion: is plain text, which no chat template renders, so `calls_in_text` makes no calls of it."
    )


# --- tables that other programs wrote ---------------------------------------------------------------------------------


def test_what_python_prints_is_read_where_nothing_of_it_is_lost():
    said = [{"role": "user", "content": 'It\'s "so"?'}, {"role": "assistant", "content": "Yes.", "tool_calls": None}]
    assert Messages().to_conversation({"messages": str(said)}) == Messages().to_conversation({"messages": said})
    for twice in (
        "[{'role': 'user', 'content': 'a', 'content': 'b'}]",
        '[{"role": "user", "role": "user"}]',
        "[{'role'",
    ):
        with pytest.raises(RowError):
            Messages().to_conversation({"messages": twice})


def test_messages_may_be_an_object_of_lists_of_one_length():
    said = {"from": ["human", "gpt"], "value": ["Hi?", "Hello."], "weight": [None, 0.5]}
    made = ShareGPT().to_conversation({"conversations": said})
    assert made.messages == (Message("user", "Hi?"), Message("assistant", "Hello.", weight=0.5))
    with pytest.raises(RowError, match="must be a list of messages, not an object"):
        ShareGPT().to_conversation({"conversations": {**said, "value": ["Hi?"]}})


def test_a_reply_may_be_one_turn():
    row = {"conversations": [{"from": "human", "value": "Hi?"}], "chosen": {"from": "gpt", "value": "Hello."}}
    made = PromptCompletion(prompt="conversations", completion="chosen").to_conversation(row)
    assert (made.messages, made.completion_from) == ((Message("user", "Hi?"), Message("assistant", "Hello.")), 1)


def test_pairs_may_have_names():
    pairs = [{"human": "Hi?", "assistant": "Hello."}, {"assistant": "Bye.", "human": "Bye?"}]
    made = Alternating(column="c").to_conversation({"c": pairs})
    assert [message.content for message in made.messages] == ["Hi?", "Hello.", "Bye?", "Bye."]
    assert (
        refused(Alternating(column="c"), {"c": [{**pairs[0], "mood": "good"}]}) == "c[0]: must be text, not an object"
    )
