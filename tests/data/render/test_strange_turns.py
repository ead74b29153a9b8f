"""Turns that real templates print in ways of their own: each class of them, in a template written for it."""

import pytest

from sftplug import MaskError
from sftplug.data.render import compile_template
from sftplug.testing import assistant_spans

CALL = {"id": "call_0001", "type": "function", "function": {"name": "lookup", "arguments": {"word": "tide"}}}
CHAT = [
    {"role": "user", "content": "How are you?"},
    {"role": "assistant", "content": "Fine, thanks."},
    {"role": "user", "content": "And now?"},
    {"role": "assistant", "content": "Still fine."},
]
CALLS = [
    {"role": "user", "content": "Tide?"},
    {"role": "assistant", "content": "", "tool_calls": [CALL]},
    {"role": "tool", "content": "high", "tool_call_id": "call_0001"},
    {"role": "assistant", "content": "It is high."},
]
ASK = "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
EXACT = ["Fine, thanks.<|end|>", "Still fine.<|end|>"]


def spans(template, messages=CHAT):
    text, found = assistant_spans(template, messages, bos_token="<s>", eos_token="</s>")
    return [text[start:end] for start, end in found]


THINKS = (
    "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n<think>\n{% endif %}"
)


@pytest.mark.parametrize("reply", ["", " ", "\n"])
def test_an_empty_reply_whose_header_diverges_is_only_its_stop(reply):
    messages = [CHAT[0], {"role": "assistant", "content": reply}, *CHAT[2:]]
    assert spans(THINKS, messages) == [f"{reply}<|end|>", "Still fine.<|end|>"]


def test_a_default_system_prompt_before_an_opening_reply_is_not_trained():
    template = (
        "{% for m in messages %}{% if loop.first and m.role != 'system' %}<|im_start|>system\nBe nice.<|im_end|>\n"
        "{% endif %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    assert spans(template, CHAT[1:]) == ["Fine, thanks.<|im_end|>", "Still fine.<|im_end|>"]


def test_a_reply_may_open_a_conversation_whose_template_never_asks_for_one():
    template = (
        "{{ bos_token }}{% if messages[0].role == 'system' %}{{ messages[0].content }}{% endif %}{% for m in messages %}"
        "{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]{% else %} {{ m.content }}{{ eos_token }}{% endif %}"
        "{% endfor %}"
    )
    assert spans(template, CHAT[1:]) == [" Fine, thanks.</s>", " Still fine.</s>"]


@pytest.mark.parametrize(
    ("header", "prompt"),
    [("### Answer:\n", "### Answer:\n\n"), ("[|assistant|]", "\n[|assistant|]<thought>\n"), ("BOT: ", "BOT:")],
)
def test_a_reply_that_opens_is_found_by_its_header_whatever_the_white_space(header, prompt):
    template = (
        "{% if messages[0].role == 'x' %}{% endif %}{% for m in messages %}{% if m.role == 'user' %}Q: {{ m.content }}\n"
        "{% else %}" + header + "{{ m.content }}</s>\n{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}" + prompt + "{% endif %}"
    )
    first, second = spans(template, CHAT[1:])
    assert first.strip() == "Fine, thanks.</s>"
    assert second.strip() == "Still fine.</s>"


def test_the_name_of_a_call_in_the_tool_s_turn_is_not_trained():
    template = (
        "{% macro name_of(id) %}{% for m in messages if m.tool_calls %}{% for call in m.tool_calls %}"
        "{% if call.id == id %}{{ call.function.name }}{% endif %}{% endfor %}{% endfor %}{% endmacro %}"
        "{% for m in messages %}<|{{ m.role }}|>\n{% if m.role == 'tool' %}{{ name_of(m.tool_call_id) }}: {% endif %}"
        "{{ m.content }}{% for call in m.tool_calls or [] %}{{ call.function | tojson }}{% endfor %}<|end|>\n{% endfor %}"
        + ASK
    )
    call = '{"name": "lookup", "arguments": {"word": "tide"}}<|end|>'
    assert spans(template, CALLS) == [call, "It is high.<|end|>"]


def test_the_name_of_a_call_remembered_for_the_tool_s_turn_is_not_trained():
    template = (
        "{% set ns = namespace(name='', out='') %}{% for m in messages %}{% if m.tool_calls %}"
        "{% set ns.name = m.tool_calls[0].function.name %}{% endif %}"
        "{% set ns.out = ns.out + '<|' + m.role + '|>\n' + (ns.name + ': ' if m.role == 'tool' else '') + m.content %}"
        "{% for call in m.tool_calls or [] %}{% set ns.out = ns.out + call.function | tojson %}{% endfor %}"
        "{% set ns.out = ns.out + '<|end|>\n' %}{% endfor %}{{ ns.out }}" + ASK
    )
    assert spans(template, CALLS) == ['{"name": "lookup", "arguments": {"word": "tide"}}<|end|>', "It is high.<|end|>"]


GOES_ON = (
    "{% for m in messages %}{% if m.role == 'user' %}<|user|>{{ m.content }}{% elif m.role == 'tool' %}<|result|>"
    "{{ m.content }}<|/result|>\n{% else %}{% if loop.previtem.role == 'user' %}<|assistant|>{% endif %}"
    "{{ HISTORY }}{{ m.content }}{% for call in m.tool_calls or [] %}{{ call.function | tojson }}{% endfor %}"
    "<|end|>{% endif %}{% endfor %}{% if add_generation_prompt %}"
    "{% if messages[-1].role == 'user' %}<|assistant|>{% endif %}{{ PROMPT }}{% endif %}"
)


def test_a_turn_that_goes_on_after_a_tool_starts_where_prompt_and_history_part():
    template = GOES_ON.replace("{{ HISTORY }}", "</think>").replace("{{ PROMPT }}", "<think>")
    call = '</think>{"name": "lookup", "arguments": {"word": "tide"}}<|end|>'
    assert spans(template, CALLS) == [call, "</think>It is high.<|end|>"]


def test_the_prompt_after_a_tool_is_known_by_its_words_whatever_the_white_space():
    template = GOES_ON.replace("{{ HISTORY }}", "    <|all|>").replace("{{ PROMPT }}", "  <|all|>\n")
    call = '{"name": "lookup", "arguments": {"word": "tide"}}<|end|>'
    assert spans(template, CALLS) == [call, "It is high.<|end|>"]


OUTSIDE = {
    "a macro that calls itself": (
        "{% macro go(i) %}{% if i < messages | length %}<|{{ messages[i].role }}|>\n{{ messages[i].content }}<|end|>\n"
        "{{ go(i + 1) }}{% endif %}{% endmacro %}{{ go(0) }}" + ASK
    ),
    "a last turn outside of the loop": (
        "{% for m in messages[:-1] %}<|{{ m.role }}|>\n{{ m.content }}<|end|>\n{% endfor %}"
        "<|{{ messages[-1].role }}|>\n{{ messages[-1].content }}<|end|>\n" + ASK
    ),
    "no loop at all": "".join(
        f"{{% if messages | length > {i} %}}<|{{{{ messages[{i}].role }}}}|>\n{{{{ messages[{i}].content }}}}<|end|>\n"
        "{% endif %}"
        for i in range(6)
    )
    + ASK,
    "pairs by batch": (
        "{% for pair in messages | batch(2) %}<|user|>\n{{ pair[0].content }}<|end|>\n<|assistant|>\n"
        "{% if pair[1] is defined %}{{ pair[1].content }}<|end|>\n{% endif %}{% endfor %}"
    ),
    "pairs by index": (
        "{% for i in range(0, messages | length, 2) %}<|user|>\n{{ messages[i].content }}<|end|>\n<|assistant|>\n"
        "{% if i + 1 < messages | length %}{{ messages[i + 1].content }}<|end|>\n{% endif %}{% endfor %}"
    ),
}


@pytest.mark.parametrize("name", OUTSIDE)
def test_the_stop_is_found_where_no_loop_says_whose_it_is(name):
    assert spans(OUTSIDE[name]) == EXACT


LAST = "{% if messages[-1].role == 'assistant' %}</s>{% endif %}"
AFTER = {
    "the stop that other turns have, on a line of its own": (
        "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% if not loop.last %}</s>{% endif %}{{ '\n' }}{% endfor %}"
        + LAST
        + "{% if add_generation_prompt %}<|assistant|>{% endif %}",
        ["Fine, thanks.</s>", "Still fine.\n</s>"],
    ),
    "a last turn outside of the loop, and its stop after it": (
        "{% for m in messages[:-1] %}<|{{ m.role }}|>{{ m.content }}</s>{% endfor %}"
        "<|{{ messages[-1].role }}|>{{ messages[-1].content }}"
        + LAST
        + "{% if add_generation_prompt %}</s><|assistant|>{% endif %}",
        ["Fine, thanks.</s>", "Still fine.</s>"],
    ),
    "the only stop that there is": (
        "{% for m in messages %}{% if m.role == 'user' %}[INST]{{ m.content }}[/INST]{% else %}{{ m.content }}{% endif %}"
        "{% endfor %}" + LAST,
        ["Fine, thanks.", "Still fine.</s>"],
    ),
}


@pytest.mark.parametrize("name", AFTER)
@pytest.mark.parametrize("turns", [1, 2])
def test_a_stop_that_is_printed_once_after_all_turns_is_the_last_one_s(name, turns):
    template, exact = AFTER[name]
    messages = CHAT[: 2 * turns]
    row = compile_template(template).render(messages, end_tokens=frozenset({"</s>"}))
    last = exact[-1].replace("Still fine.", messages[-1]["content"])
    assert [row.text[span.start : span.end] for span in row.spans] == [*exact[: turns - 1], last]


def test_the_header_of_a_second_reply_stops_nothing_where_the_headers_of_questions_do():
    template = "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}{% endfor %}" + ASK
    messages = [*CHAT[:2], CHAT[3], CHAT[2]]
    assert spans(template, messages) == ["Fine, thanks.", "Still fine.<|user|>"]


def test_the_end_of_the_document_is_no_stop_where_turns_have_one():
    template = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>\n{% endfor %}<|endoftext|>"
    assert spans(template) == ["<|assistant|>Fine, thanks.<|end|>", "<|assistant|>Still fine.<|end|>"]


WRONG_ORDER = {
    "replies before questions": (
        "{% for m in messages if m.role == 'assistant' %}<|assistant|>\n{{ m.content }}<|end|>\n{% endfor %}"
        "{% for m in messages if m.role == 'user' %}<|user|>\n{{ m.content }}<|end|>\n{% endfor %}" + ASK
    ),
    "reversed": "{% for m in messages | reverse %}<|{{ m.role }}|>\n{{ m.content }}<|end|>\n{% endfor %}" + ASK,
}


@pytest.mark.parametrize("name", WRONG_ORDER)
@pytest.mark.parametrize("count", [2, 4])
def test_a_reply_that_stands_before_its_question_is_refused(name, count):
    with pytest.raises(MaskError):
        spans(WRONG_ORDER[name], CHAT[:count])


def test_what_the_user_s_turn_prints_is_not_trained_where_no_prompt_says_so():
    template = (
        "{% for m in messages %}{{ m.role }}: {{ m.content }} ({{ 'last' if loop.last else 'turn' }})\n{% endfor %}"
    )
    assert spans(template) == ["assistant: Fine, thanks. (turn)", "assistant: Still fine. (last)"]


def test_numbers_of_a_call_must_be_in_the_text():
    template = (
        "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}{% for call in m.tool_calls or [] %}"
        "{{ call.function.name }}{% endfor %}<|end|>\n{% endfor %}" + ASK
    )
    call = {"type": "function", "function": {"name": "add", "arguments": {"a": 1, "b": 2}}}
    with pytest.raises(MaskError, match=r"tool_calls\[0\] '1' is dropped"):
        spans(template, [CALLS[0], {"role": "assistant", "content": "", "tool_calls": [call]}])


def test_a_second_reply_in_a_row_without_a_header_starts_where_the_first_ends():
    template = (
        "{% for m in messages %}{% if loop.first or m.role != loop.previtem.role %}<|{{ m.role }}|>\n{% endif %}"
        "{{ m.content }}<|end|>\n{% endfor %}" + ASK
    )
    messages = [*CHAT[:2], {"role": "assistant", "content": "And you?"}]
    assert spans(template, messages) == ["Fine, thanks.<|end|>", "And you?<|end|>"]


def test_a_reply_printed_before_its_header_is_refused():
    template = "{% for m in messages %}{{ m.content }}<|{{ m.role }}|>\n{{ m.content }}<|end|>\n{% endfor %}" + ASK
    with pytest.raises(MaskError):
        spans(template)


def test_a_content_of_parts_written_as_json_is_all_there():
    template = "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content | tojson }}<|end|>\n{% endfor %}" + ASK
    messages = [CHAT[0], {"role": "assistant", "content": [{"type": "text", "text": text} for text in ("a", "b")]}]
    assert spans(template, messages) == ['[{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]<|end|>']


def test_a_system_prompt_shown_with_the_last_question_is_in_the_row_of_every_reply_that_inference_shows_it_to():
    template = compile_template(
        "{% set system = messages[0].content if messages[0].role == 'system' else '' %}{% for m in messages %}"
        "{% if m.role == 'user' %}[INST]{{ system + ' ' if system and loop.last else '' }}{{ m.content }}[/INST]"
        "{% elif m.role == 'assistant' %}{{ m.content }}</s>{% endif %}{% endfor %}"
    )
    messages = [{"role": "system", "content": "Be nice."}, *CHAT]
    rendered = template.analyse(messages)
    assert {(finding.kind, finding.severity) for finding in rendered.findings} == {("divergent_context", "policy")}
    whole, first, second = template.split_divergent(rendered, messages)
    assert not whole.spans
    assert first.text == "[INST]Be nice. How are you?[/INST]Fine, thanks.</s>"
    assert second.text.endswith("[INST]Be nice. And now?[/INST]Still fine.</s>")
    assert [row.text[span.start : span.end] for row in (first, second) for span in row.spans] == [
        "Fine, thanks.</s>",
        "Still fine.</s>",
    ]


def test_a_reply_that_begins_like_the_prompt_that_its_turn_lacks_is_refused():
    template = "{% for m in messages %}{{ m.content }}{% endfor %}{% if add_generation_prompt %}Answer:{% endif %}"
    with pytest.raises(MaskError):
        spans(template, [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "Answer me."}])
