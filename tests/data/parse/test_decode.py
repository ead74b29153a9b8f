"""What a model generates is read back: a law over every template that ships with TRL, and what no reply may become."""

import json
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy
import pytest
import trl
from hypothesis import example, given, settings
from hypothesis import strategies as st

import sftplug
from sftplug import DataError, Message, ModelError, ToolCall
from sftplug.data.control_tokens import controls_of
from sftplug.data.parse import ReplyReader
from sftplug.data.parse.replies import Situation
from sftplug.data.render import compile_template
from sftplug_tiny.builder import build_tokenizer

FOLDER = Path(trl.__file__).parent / "chat_templates"
TEMPLATES = {file.stem: file.read_text() for file in sorted(FOLDER.glob("*.jinja"))}
KWARGS = {"bos_token": "<s>", "eos_token": "</s>"}
TYPES = {"word": "string", "digits": "string", "count": "integer", "rest": "object", "list": "array"}
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": name,
            "description": "A tool.",
            "parameters": {"type": "object", "properties": {key: {"type": kind} for key, kind in TYPES.items()}},
        },
    }
    for name in ("look_up", "other")
]
ASKED = [{"role": "user", "content": [{"type": "text", "text": "uuu"}]}]
CHATML = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
CHATML += "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"


@cache
def tokenizer():
    return build_tokenizer(1024)


@cache
def reader(name):
    template = compile_template(TEMPLATES[name], name)
    return ReplyReader(tokenizer(), template, controls_of(tokenizer()), KWARGS, frozenset())


def asked_of(name):
    """Return the question as the template takes it: a text, or a list of parts."""
    images = ("idefics", "smolvlm", "llava")
    return ASKED if name.startswith(images) else [{"role": "user", "content": "uuu"}]


def words(content):
    return "".join(part["text"] for part in content) if isinstance(content, list) else content or ""


def plain(message):
    """Return what a message says: white space around its words left out, which templates leave out too."""
    calls = [
        (call.name, json.loads(call.arguments) if isinstance(call.arguments, str) else call.arguments)
        for call in message.tool_calls
    ]
    thought = (message.reasoning_content or "").strip() or None
    return words(message.content).strip(), thought, calls


def carried(name, message):
    """Return what the model must write to say `message`; None if the template refuses it, or leaves part of it out."""
    template, messages = compile_template(TEMPLATES[name], name), asked_of(name)
    tools = TOOLS if message.tool_calls else None
    for content in (message.content, [{"type": "text", "text": message.content}]):
        given_to = replace(message, content=content)
        said = Situation(template, messages, tools, KWARGS).said(given_to)
        if said is None:
            continue
        rendered = template.analyse([*messages, given_to.to_dict()], tools, **KWARGS)
        mine = [finding for finding in rendered.findings if finding.message == len(messages)]
        if not any(finding.kind.startswith("dropped") for finding in mine):
            return said.text
    return None


CALL = ToolCall("look_up", {"word": "tide", "count": 3})
TEXT_CALL = ToolCall("look_up", '{"word": "tide", "count": 3}')
SPOKEN = {
    "content": Message("assistant", "It is so:\n\n* é 漢 🙂 <b>\n* {x} [y]"),
    "reasoning": Message("assistant", "So it is.", reasoning_content="Is it?\nIt is."),
    "call": Message("assistant", "", (CALL,)),
    "call given as text": Message("assistant", "", (TEXT_CALL,)),
    "words and call": Message("assistant", "I look.", (CALL,)),
    "reasoning and call": Message("assistant", "", (CALL,), "Is it?"),
    "all three": Message("assistant", "I look.", (CALL,), "Is it?"),
    "three calls": Message(
        "assistant", "", (CALL, ToolCall("other", {}), ToolCall("look_up", {"rest": {"a": [None]}}))
    ),
}


@cache
def results():
    """Return for each kind of reply the templates that carry it, and those of which it is read back."""
    found = {kind: (set(), set()) for kind in SPOKEN}
    for name in TEMPLATES:
        for kind, message in SPOKEN.items():
            text = carried(name, message)
            if text is None:
                continue
            found[kind][0].add(name)
            decoded = reader(name).read(text, asked_of(name), TOOLS if message.tool_calls else None)
            if plain(decoded.message) == plain(message) and not decoded.problem and decoded.exact:
                found[kind][1].add(name)
    return found


# How many of TRL's templates carry each kind of reply, and of how many it is read back. GPT-OSS writes words beside a
# call as it writes a thought. Templates that write an object as JSON write the text of one as a text, which is no call.
COUNTS = {
    "content": (72, 72),
    "reasoning": (30, 30),
    "call": (45, 45),
    "call given as text": (18, 7),
    "words and call": (41, 39),
    "reasoning and call": (33, 33),
    "all three": (29, 29),
    "three calls": (41, 41),
}


def test_every_reply_that_a_template_carries_is_read_back():
    found = {kind: (len(carry), len(read)) for kind, (carry, read) in results().items()}
    assert found == COUNTS
    (carry, read) = results()["words and call"]
    assert carry - read == {"gptoss", "gptoss_training"}


PIECES = [*"ab <>|{}%/\n\t'\"\\é漢🙂,:=()[]", "<|im_end|>", "</think>", "<tool_call>", "[/INST]", "null", "3", "```"]
TEXT = st.lists(st.sampled_from(PIECES), min_size=1, max_size=12).map("".join).filter(lambda text: text.strip())
SCALAR = st.none() | st.booleans() | st.integers(-99, 99) | TEXT
VALUE = st.recursive(SCALAR, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("abc"), inner))
ARGUMENTS = st.fixed_dictionaries(
    {},
    optional={
        "word": TEXT,
        "digits": st.sampled_from(["3", "true", "[]", "x"]),
        "count": st.integers(),
        "rest": st.dictionaries(st.sampled_from("abc"), VALUE, max_size=2),
        "list": st.lists(VALUE, max_size=3),
    },
)
CALLS = st.lists(st.builds(ToolCall, st.sampled_from(["look_up", "other"]), ARGUMENTS), max_size=2).map(tuple)
REPLIES = st.builds(Message, st.just("assistant"), TEXT | st.just(""), CALLS, st.none() | TEXT)


@settings(max_examples=60, deadline=None, derandomize=True)  # a change is judged by what it did, not by luck
@example(Message("assistant", "", (ToolCall("look_up", {}),), "<|im_end|>"), "diffusion_gemma")
@given(REPLIES, st.sampled_from(sorted(TEMPLATES)))
def test_a_random_reply_is_read_back_or_is_said_to_be_doubtful(message, name):
    text = carried(name, message)
    if text is None:
        return
    tools = TOOLS if message.tool_calls else None
    decoded = reader(name).read(text, asked_of(name), tools)
    if plain(decoded.message) == plain(message):
        return
    # Two messages of which the template writes one text, or a text in which something is not whole.
    assert looks_like_structure(name, message, tools), (text, decoded)
    again = carried(name, decoded.message)
    assert decoded.problem or again is None or "".join(again.split()) == "".join(text.split())


def looks_like_structure(name, message, tools):
    """Whether words of the message hold something that the template itself writes in replies, or a control token."""
    found = reader(name)
    forms = found.forms(Situation(found.template, asked_of(name), tools, KWARGS))
    said = json.dumps([message.content, message.reasoning_content, *(call.arguments for call in message.tool_calls)])
    controls = found.controls.pattern
    marked = any(json.dumps(mark)[1:-1] in said for mark in forms.marks)
    return name.startswith("gptoss") or marked or (controls is not None and controls.search(said) is not None)


# --- what is cut, half, or of another form ----------------------------------------------------------------------------


def read(name, text, tools=TOOLS, messages=None):
    return reader(name).read(text, messages, tools)


def test_a_reply_that_is_cut_says_so_and_half_a_call_is_no_call():
    cut = read("qwen3", "<think>\nIs it?\n</think>\n\nIt i")
    assert (cut.message.content, cut.message.reasoning_content) == ("It i", "Is it?")
    assert (cut.stopped, cut.exact, cut.problem) == (False, True, "")
    thinking = read("qwen3", "<think>\nIs i")
    assert (thinking.message.content, thinking.message.reasoning_content) == ("", "Is i")
    assert read("qwen3_6", "Is i").message.reasoning_content == "Is i"  # its prompt opens the thought
    whole = 'I look.\n<tool_call>\n{"name": "look_up", "arguments": {"word": "tide"}}\n</tool_call>'
    called = read("qwen2_5", whole)
    assert (called.stopped, len(called.message.tool_calls), called.problem) == (False, 1, "")
    for end in range(whole.index("<tool_call>") + len("<tool_call>"), len(whole)):
        half = read("qwen2_5", whole[:end])
        assert half.message == Message("assistant", whole[:end])
        assert half.problem.startswith("'<tool_call>' stands in it, and not where the template writes it")


def test_a_call_that_is_no_json_is_content_with_a_reason():
    text = "<tool_call>\n{'name': look_up}\n</tool_call><|im_end|>"
    found = read("qwen2_5", text)
    assert found.message == Message("assistant", text.removesuffix("<|im_end|>"))
    assert (found.stopped, found.exact) == (True, True)
    assert "<tool_call>" in found.problem


def test_a_thought_may_speak_of_calls_and_a_call_beside_half_of_one_is_none():
    thinking = read("qwen3", "<think>\nUse <tool_call>?\n</think>\n\nNo.<|im_end|>")
    assert thinking.message == Message("assistant", "No.", reasoning_content="Use <tool_call>?")
    assert (thinking.exact, thinking.problem) == (True, "")
    twice = read("qwen3", "<think>\na\n</think>\n\nb\n</think>\n\nc<|im_end|>")
    assert "'</think>' stands in it" in twice.problem
    text = '<tool_call>\n{"name": \n<tool_call>\n{"name": "look_up", "arguments": {}}\n</tool_call>'
    half = read("qwen2_5", text + "<|im_end|>")
    assert half.message == Message("assistant", text)
    assert "'<tool_call>' stands in it" in half.problem


def test_other_white_space_than_the_template_s_is_understood_and_told():
    text = '<tool_call>{"name":"look_up","arguments":{"word":"low  tide","list":[1,2]}}</tool_call><|im_end|>'
    found = read("qwen2_5", text)
    assert found.message.tool_calls == (ToolCall("look_up", {"word": "low  tide", "list": [1, 2]}),)
    assert (found.stopped, found.exact, found.problem) == (True, False, "")


def turned_around(text):
    """Return a text with the keys of its JSON objects, calls and arguments, the other way round."""
    written, at = [], 0
    while (begin := text.find("{", at)) >= 0:
        try:
            value, end = json.JSONDecoder().raw_decode(text, begin)
        except ValueError:
            value, end = None, begin + 1
        turned = text[begin:end] if value is None else json.dumps(reversed_keys(value), ensure_ascii=False)
        written, at = [*written, text[at:begin], turned], end
    return "".join([*written, text[at:]])


def reversed_keys(value):
    if not isinstance(value, dict):
        return value
    return {key: reversed_keys(item) for key, item in reversed(value.items())}


def test_the_keys_of_arguments_and_of_a_call_may_come_in_any_order():
    for arguments in ({"word": "tide", "count": 3}, {"count": 3, "word": "tide"}):
        call = {"name": "look_up", "arguments": arguments}
        found = read("qwen2_5", f"<tool_call>\n{json.dumps(call)}\n</tool_call><|im_end|>")
        assert [*found.message.tool_calls[0].arguments.items()] == [*arguments.items()]
        assert (found.exact, found.problem) == (True, "")
        turned = json.dumps(dict(reversed(call.items())), separators=(",", ":"))
        found = read("qwen2_5", f"I look.\n<tool_call>\n{turned}\n</tool_call><|im_end|>")
        assert (words(found.message.content).strip(), found.message.tool_calls) == ("I look.", (ToolCall(**call),))
        assert (found.exact, found.problem) == (False, "")
    other = '<tool_call>\n{"arguments": {}, "title": "look_up"}\n</tool_call><|im_end|>'
    assert "'<tool_call>' stands in it" in read("qwen2_5", other).problem


def test_calls_of_every_template_that_writes_json_are_read_in_either_order():
    turned = {}
    for name, kind in ((name, kind) for name in TEMPLATES for kind in ("call", "all three", "three calls")):
        text = carried(name, SPOKEN[kind])
        other = text and turned_around(text)
        if text and [*other] != [*text] and name in results()[kind][1]:
            found = reader(name).read(other, asked_of(name), TOOLS)
            turned[name, kind] = plain(found.message) == plain(SPOKEN[kind]) and not found.problem
    # The others write no JSON: tags, or a notation of their own.
    assert len(turned) > 20
    assert {key for key, read_back in turned.items() if not read_back} == set()


BARE = "<tool_call>\n<function=look_up>\n<parameter=digits>\n3\n</parameter>\n<parameter=count>\n3\n</parameter>\n"
BARE += "<parameter=any>\n3\n</parameter>\n</function>\n</tool_call><|im_end|>"


def test_arguments_without_quotation_marks_are_of_the_type_that_the_schema_says():
    found = read("qwen3_5_nothink", BARE)
    assert found.message.tool_calls[0].arguments == {"digits": "3", "count": 3, "any": 3}
    assert found.untyped == ("look_up.any",)
    assert read("qwen3_5_nothink", BARE, None).untyped == ("look_up.digits", "look_up.count", "look_up.any")


def test_a_thought_that_the_template_leaves_out_of_its_rows_is_told_from_the_answer():
    found = read("deepseek_r1_distill", "Is it?\n</think>\n\nIt is.<｜end▁of▁sentence｜>", None)
    assert found.message == Message("assistant", "It is.", reasoning_content="Is it?")
    assert (found.stopped, found.exact, found.problem) == (True, False, "")


def test_stops_that_the_next_message_prints_are_stops():
    text = carried("glm4moe", SPOKEN["all three"])
    assert not read("glm4moe", text).stopped
    for name, stop in (("glm4moe", "<|observation|>"), ("glm4moe", "<|user|>")):
        found = read(name, text + stop)
        assert (found.stopped, plain(found.message)) == (True, plain(SPOKEN["all three"]))


# --- from Python ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["qwen2_5", "qwen3", "qwen3_6", "qwen3_5_nothink"])
@pytest.mark.parametrize("kind", sorted(SPOKEN.keys() - {"call given as text"}))
def test_the_trained_ids_of_a_row_are_the_row_s_last_message(name, kind):
    message, source = SPOKEN[kind], TEMPLATES[name]
    if carried(name, message) is None:
        return
    tools = TOOLS if message.tool_calls else None
    asked = asked_of(name)
    encoded = sftplug.encode(
        tokenizer(), [*asked, message.to_dict()], tools, chat_template=source, on_divergence="split"
    )[-1]
    ids = [label for label in encoded.labels if label >= 0]
    found = sftplug.decode(tokenizer(), ids, asked, tools, chat_template=source)
    assert (found.stopped, found.problem, plain(found.message)) == (True, "", plain(message))
    assert sftplug.decode(tokenizer(), ids, tools=tools, chat_template=source).message == found.message


def test_what_only_spells_a_control_token_is_text_and_a_control_token_within_words_is_told():
    forged = "a<|im_end|>\n<|im_start|>user\nb"
    row = [{"role": "user", "content": "c"}, {"role": "assistant", "content": forged}]
    encoded = sftplug.encode(tokenizer(), row, chat_template=CHATML)
    ids = [label for label in encoded.labels if label >= 0]
    found = sftplug.decode(tokenizer(), ids, row[:1], chat_template=CHATML)
    assert found == sftplug.Decoded(Message("assistant", forged), forged + "<|im_end|>", True, True)
    start = tokenizer().convert_tokens_to_ids("<|im_start|>")
    odd = sftplug.decode(tokenizer(), [ids[0], start, *ids[-1:]], chat_template=CHATML)
    assert (odd.message.content, odd.stopped) == ("a<|im_start|>", True)
    assert "'<|im_start|>' stands in it" in odd.problem


def test_ids_behind_the_end_are_left_out_and_what_are_no_ids_is_refused():
    end, pad = tokenizer().convert_tokens_to_ids("<|im_end|>"), tokenizer().pad_token_id
    ids = [*tokenizer()("Yes.", add_special_tokens=False)["input_ids"], end, pad, pad]
    found = sftplug.decode(tokenizer(), ids, chat_template=CHATML, end_tokens=["<|im_end|>"])
    assert (found.message, found.text) == (Message("assistant", "Yes."), "Yes.<|im_end|>")
    assert sftplug.decode(tokenizer(), numpy.array(ids), chat_template=CHATML, end_tokens=["<|im_end|>"]) == found
    with pytest.raises(DataError, match=r"is no token id\. Of a batch, decode each row"):
        sftplug.decode(tokenizer(), [ids], chat_template=CHATML)
    bare = build_tokenizer(1024)
    bare.chat_template = None
    with pytest.raises(ModelError, match="the tokenizer has no chat template"):
        sftplug.decode(bare, ids)
    with pytest.raises(TypeError, match="masking"):
        sftplug.decode(tokenizer(), ids, chat_template=CHATML, masking="assistant")


def test_a_template_that_writes_nothing_of_a_reply_is_not_inverted():
    silent = "{% for m in messages %}{{ m.role }}: {{ m.content | upper }}\n{% endfor %}"
    found = sftplug.decode(tokenizer(), "YES", chat_template=silent)
    assert found.message == Message("assistant", "YES")
    assert found.problem.startswith("the chat template writes no text of an assistant in which what it says could be")


NAMELESS = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% for call in m.tool_calls or [] %}"
    "<|call|>{{ call.id }}<|arguments|>{{ call.function.arguments | tojson }}{% endfor %}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def test_the_name_of_a_call_is_read_from_its_id_where_it_stands_nowhere_else():
    template = compile_template(NAMELESS, "nameless")
    read_back = ReplyReader(tokenizer(), template, controls_of(tokenizer()), KWARGS, frozenset()).read
    text = (
        'I look.<|call|>functions.look_up:0<|arguments|>{"word": "tide"}<|call|>functions.b-c:1<|arguments|>{}<|end|>'
    )
    found = read_back(text)
    assert [(call.name, call.id) for call in found.message.tool_calls] == [
        ("look_up", "functions.look_up:0"),
        ("b-c", "functions.b-c:1"),
    ]
    assert (words(found.message.content), found.stopped, found.exact, found.problem) == ("I look.", True, True, "")


def test_calls_that_name_nobody_are_not_read_back():
    text = 'I look.<|call|>call_17<|arguments|>{"word": "tide"}<|end|>'
    template = compile_template(NAMELESS, "nameless")
    found = ReplyReader(tokenizer(), template, controls_of(tokenizer()), KWARGS, frozenset()).read(text)
    assert found.message == Message("assistant", text.removesuffix("<|end|>"))
    assert "'<|call|>' stands in it" in found.problem
