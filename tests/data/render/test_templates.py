"""Every chat template that ships with TRL, and random conversations: exact spans, or a refusal with a reason."""

import contextlib
from pathlib import Path

import pytest
import trl
from conftest import transformers_text
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.utils.chat_template_utils import render_jinja_template

from sftplug import PARTS, MaskError, TemplateError
from sftplug.data.render import compile_template
from sftplug.testing import assistant_spans

FOLDER = Path(trl.__file__).parent / "chat_templates"
# TRL's own copies for training are other texts than the models'; they are templates too, and must be as exact.
TEMPLATES = {file.stem: file.read_text() for file in sorted(FOLDER.glob("*.jinja"))}
KWARGS = {"bos_token": "<s>", "eos_token": "</s>"}
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "lookup",
            "description": "Look something up.",
            "parameters": {"type": "object", "properties": {"word": {"type": "string"}}, "required": ["word"]},
        },
    }
]
CALL = {"id": "call_0001", "type": "function", "function": {"name": "lookup", "arguments": {"word": "tide"}}}
CONVERSATIONS = {
    "two turns": [
        {"role": "user", "content": "uuu one"},
        {"role": "assistant", "content": "aaa one"},
        {"role": "user", "content": "uuu two"},
        {"role": "assistant", "content": "aaa two"},
    ],
    "system": [
        {"role": "system", "content": "sss zero"},
        {"role": "user", "content": "uuu one"},
        {"role": "assistant", "content": "aaa one"},
    ],
    "reasoning": [
        {"role": "user", "content": "uuu one"},
        {"role": "assistant", "content": "aaa one", "reasoning_content": "rrr one"},
        {"role": "user", "content": "uuu two"},
        {"role": "assistant", "content": "aaa two", "reasoning_content": "rrr two"},
    ],
    "thoughts in the content": [
        {"role": "user", "content": "uuu one"},
        {"role": "assistant", "content": "<think>\nrrr one\n</think>\n\naaa one"},
        {"role": "user", "content": "uuu two"},
        {"role": "assistant", "content": "aaa two"},
    ],
    "tool call": [
        {"role": "user", "content": "uuu one"},
        {"role": "assistant", "content": "", "tool_calls": [CALL]},
        {"role": "tool", "content": "ttt one", "tool_call_id": "call_0001", "name": "lookup"},
        {"role": "assistant", "content": "aaa one"},
    ],
    "parts": [
        {"role": "user", "content": [{"type": "text", "text": "uuu one"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "aaa one"}]},
    ],
}
FOREIGN = ("uuu", "sss", "ttt")


def check(template, messages, tools=None):
    """Check all that can be said of spans without knowing the template; return how many there are."""
    text, spans = assistant_spans(template, messages, tools, **KWARGS)
    (plain,), _ = render_jinja_template([messages], tools=tools, chat_template=template, **KWARGS)
    assert text == plain
    assert spans == sorted(spans)
    assistants = [index for index, message in enumerate(messages) if message["role"] == "assistant"]
    assert len(spans) >= len(assistants)
    position = 0
    for index, (start, end) in zip(assistants, spans, strict=False):
        assert position <= start <= end <= len(text)
        assert text[start:end] == text[start:end].rstrip() or messages[index]["content"] != ""
        check_start(template, messages, tools, index, (text, start))
        position = end
    return len(spans)


def check_start(template, messages, tools, index, found):
    """A span starts where the prompt of inference ends, whenever that prompt is the beginning of the text."""
    text, start = found
    try:
        (prompt,), _ = render_jinja_template(
            [messages[:index]], tools=tools, chat_template=template, add_generation_prompt=True, **KWARGS
        )
    except Exception:  # noqa: BLE001 - a template may refuse the shorter conversation in any way it likes
        return
    if text.startswith(prompt):
        assert start == len(prompt)


@pytest.mark.parametrize("name", TEMPLATES)
def test_spans_hold_the_reply_and_nothing_of_others(name):
    exact = 0
    for label, messages in CONVERSATIONS.items():
        tools = TOOLS if label == "tool call" else None
        try:
            count = check(TEMPLATES[name], messages, tools)
        except MaskError:
            continue  # refused, with a reason: tested below and beside each law of the check
        exact += 1
        text, spans = assistant_spans(TEMPLATES[name], messages, tools, **KWARGS)
        trained = [text[start:end] for start, end in spans]
        assert not any(word in span for word in FOREIGN for span in trained), (label, trained)
        replies = [m["content"] for m in messages if m["role"] == "assistant" and isinstance(m["content"], str)]
        for reply in replies:
            assert any(reply.rpartition("</think>")[2].strip() in span for span in trained), (label, reply)
        assert count == len(spans)
    assert exact >= 1


@pytest.mark.parametrize("name", TEMPLATES)
def test_everything_between_the_start_and_the_stop_of_a_mere_call_is_of_the_call(name):
    """What a template writes between a call's name and its arguments too: masked calls leave nothing to train."""
    messages = CONVERSATIONS["tool call"]
    try:
        rendered = compile_template(TEMPLATES[name]).analyse(messages, TOOLS, **KWARGS)
    except (MaskError, TemplateError):
        pytest.skip("the template refuses calls, or its spans cannot be told")
    if "tide" not in rendered.text:
        pytest.skip("the template leaves calls out: rows with them are refused")
    start, end = rendered.spans[0].start, rendered.spans[0].end
    ends = [*rendered.runs.starts[1:].tolist(), len(rendered.text)]
    parts = {
        PARTS[part]: rendered.text[max(first, start) : min(last, end)]
        for first, last, part in zip(rendered.runs.starts, ends, rendered.runs.part, strict=True)
        if first < end and last > start
    }
    assert {"tool_call"} <= parts.keys() <= {"tool_call", "reasoning", "end_of_turn"}, parts


def test_all_of_trl_s_templates_were_looked_at():
    assert len(TEMPLATES) >= 60


PIECES = [*"ab <>|{}%/\n\t'\"\\é漢🙂", "<|im_end|>", "<|eot_id|>", "</think>", "[/INST]"]
TEXT = st.lists(st.sampled_from(PIECES), min_size=1, max_size=12).map("".join).filter(lambda text: text.strip())
TURNS = st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=3)


@settings(max_examples=60, deadline=None)
@given(TURNS, st.sampled_from(sorted(TEMPLATES)), st.booleans())
def test_random_conversations_are_exact_or_refused(turns, name, repeat):
    messages = []
    for question, answer in turns * (2 if repeat else 1):
        messages += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    with contextlib.suppress(MaskError):
        assert check(TEMPLATES[name], messages) >= len(turns)


@settings(max_examples=40, deadline=None)
@given(TURNS, st.sampled_from(["qwen2_5", "llama3", "gemma", "phi3", "qwen3_instruct_2507"]))
def test_in_plain_families_every_reply_is_exact_whatever_it_says(turns, name):
    messages = []
    for question, answer in turns:
        messages += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    stops = {"llama3": "<|eot_id|>", "gemma": "<end_of_turn>", "phi3": "<|end|>"}
    trimmed = name in ("llama3", "gemma")
    try:
        text, spans = assistant_spans(TEMPLATES[name], messages, **KWARGS)
    except MaskError:
        # Only a thought's end may make these templates drop text.
        assert any("</think>" in answer for _, answer in turns)
        return
    stop = stops.get(name, "<|im_end|>")
    expected = [(answer.strip() if trimmed else answer) + stop for _, answer in turns]
    assert [text[start:end] for start, end in spans] == expected


def test_divergent_turns_become_rows_of_their_own_as_inference_renders_them():
    template = compile_template(TEMPLATES["qwen3"], name="qwen3")
    messages = CONVERSATIONS["reasoning"]
    rendered = template.render(messages, **KWARGS)
    assert [finding.kind for finding in rendered.findings] == ["divergent_context"]
    whole, apart = template.split_divergent(rendered, messages, **KWARGS)
    assert [span.message for span in whole.spans] == [3]
    (span,) = apart.spans
    prompt = transformers_text(template, messages[:1], add_generation_prompt=True, **KWARGS)
    assert apart.text[: span.start] == prompt
    assert apart.text[span.start : span.end] == "<think>\nrrr one\n</think>\n\naaa one<|im_end|>"
    assert span.end == len(apart.text)


def test_a_stop_that_the_next_message_prints_is_there_in_the_row_apart():
    template = compile_template(TEMPLATES["glm4moe"], name="glm4moe")
    messages = CONVERSATIONS["reasoning"]
    rendered = template.render(messages, **KWARGS)
    _, apart, *_ = template.split_divergent(rendered, messages, **KWARGS)
    (span,) = apart.spans
    assert apart.text[span.start : span.end].endswith("aaa one<|user|>")


def test_a_template_that_refuses_says_which_roles_it_was_given():
    template = compile_template(TEMPLATES["gemma"], name="gemma")
    with pytest.raises(TemplateError) as caught:
        template.render([{"role": "system", "content": "x"}, *CONVERSATIONS["two turns"]], **KWARGS)
    assert str(caught.value) == (
        "chat template 'gemma' refuses a conversation of system, user, assistant, user, assistant: "
        "System role not supported"
    )


def test_a_template_that_is_no_jinja_names_the_line():
    with pytest.raises(TemplateError, match=r"chat template 'mine', line 2: "):
        compile_template("a\n{% for m in %}", name="mine")


@settings(max_examples=40, deadline=None)
@given(TURNS, st.sampled_from(sorted(TEMPLATES)))
def test_trained_tokens_decode_to_the_spans_and_no_other_role_s_token_is_trained(turns, name):
    from sftplug import Conversation, Message, ModelError
    from sftplug.data.encoder import encoder
    from sftplug.data.tokenize import tokenize
    from sftplug_tiny.builder import build_tokenizer

    tokenizer = _cached(build_tokenizer)
    messages = []
    for question, answer in turns:
        messages += [Message("user", question), Message("assistant", answer)]
    template = compile_template(TEMPLATES[name])
    with contextlib.suppress(TemplateError, ModelError):
        rendered = template.render([message.to_dict() for message in messages], **KWARGS)
        if any(finding.severity == "error" for finding in rendered.findings):
            return
        tokens = tokenize([Conversation(tuple(messages))], [rendered], encoder(tokenizer)).tokens
        trained = tokenizer.decode(tokens.ids[tokens.trainable].tolist())
        assert trained == "".join(rendered.text[span.start : span.end] for span in rendered.spans)
        assert tokenizer.decode(tokens.ids.tolist()) == rendered.text
        assert set(tokens.role[tokens.trainable].tolist()) <= {tokens.role_code("assistant")}
        _check_prompts(template, tokenizer, rendered, tokens)


def _check_prompts(template, tokenizer, rendered, tokens):
    """The ids of the prompt that inference shows are the beginning of the ids trained, at every turn of one piece."""
    divergent = {finding.message for finding in rendered.findings}
    messages = [message.to_dict() for message in tokens.conversations[0].messages]
    for span in rendered.spans:
        prompt = transformers_text(template, messages[: span.message], add_generation_prompt=True, **KWARGS)
        if span.message not in divergent and rendered.text.startswith(prompt):
            ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
            assert tokens.ids[: len(ids)].tolist() == ids


_CACHE = {}


def _cached(build):
    if build not in _CACHE:
        _CACHE[build] = build(1024)
    return _CACHE[build]
