"""Templates written to mislead: every span is exact, or the template is refused."""

import pytest

from sftplug import MaskError
from sftplug.testing import assistant_spans

U1, A1, U2, A2 = "How are you?", "Fine, thanks.", "And now?", "Still fine."
CHAT = [
    {"role": "user", "content": U1},
    {"role": "assistant", "content": A1},
    {"role": "user", "content": U2},
    {"role": "assistant", "content": A2},
]
PROMPT = "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
STOPPED = [f"{A1}<|end|>", f"{A2}<|end|>"]


def spans(template, messages=CHAT, **kwargs):
    text, found = assistant_spans(template, messages, **kwargs)
    return [text[start:end] for start, end in found]


EXACT = {
    "macro prints the message": (
        "{% macro turn(m) %}<|{{ m.role }}|>\n{{ m.content }}<|end|>\n{% endmacro %}"
        "{% for m in messages %}{{ turn(m) }}{% endfor %}" + PROMPT,
        STOPPED,
    ),
    "macro prints parts": (
        "{% macro head(role) %}<|{{ role }}|>\n{% endmacro %}{% macro tail() %}<|end|>\n{% endmacro %}"
        "{% for m in messages %}{{ head(m.role) ~ m.content ~ tail() }}{% endfor %}" + PROMPT,
        STOPPED,
    ),
    "namespace collects the whole text": (
        "{% set ns = namespace(out='') %}{% for m in messages %}"
        "{% set ns.out = ns.out + '<|' + m.role + '|>\n' + m.content + '<|end|>\n' %}{% endfor %}{{ ns.out }}" + PROMPT,
        STOPPED,
    ),
    "a list is joined at the end": (
        "{% set ns = namespace(parts=[]) %}{% for m in messages %}"
        "{% set ns.parts = ns.parts + ['<|' ~ m.role ~ '|>\n' ~ m.content ~ '<|end|>\n'] %}{% endfor %}"
        "{{ ns.parts | join('') }}" + PROMPT,
        STOPPED,
    ),
    "a string's own join": (
        "{% set ns = namespace(parts=[]) %}{% for m in messages %}"
        "{% set ns.parts = ns.parts + ['<|' ~ m.role ~ '|>\n' ~ m.content ~ '<|end|>\n'] %}{% endfor %}"
        "{{ ''.join(ns.parts) }}" + PROMPT,
        STOPPED,
    ),
    "set block": (
        "{% for m in messages %}{% set body %}<|{{ m.role }}|>\n{{ m.content }}<|end|>\n{% endset %}{{ body }}{% endfor %}"
        + PROMPT,
        STOPPED,
    ),
    "filter block": (
        "{% for m in messages %}{% filter trim %}  <|{{ m.role }}|>\n{{ m.content }}<|end|>{% endfilter %}{{ '\n' }}"
        "{% endfor %}" + PROMPT,
        STOPPED,
    ),
    "call block": (
        "{% macro wrap(role) %}<|{{ role }}|>\n{{ caller() }}<|end|>\n{% endmacro %}"
        "{% for m in messages %}{% call wrap(m.role) %}{{ m.content }}{% endcall %}{% endfor %}" + PROMPT,
        STOPPED,
    ),
    "format filter": (
        "{% for m in messages %}{{ '<|%s|>\n%s<|end|>\n' | format(m.role, m.content) }}{% endfor %}" + PROMPT,
        STOPPED,
    ),
    "percent": (
        "{% for m in messages %}{{ '<|%s|>\n%s<|end|>\n' % (m.role, m.content) }}{% endfor %}" + PROMPT,
        STOPPED,
    ),
    "str.format": (
        "{% for m in messages %}{{ '<|{}|>\n{}<|end|>\n'.format(m.role, m.content) }}{% endfor %}" + PROMPT,
        STOPPED,
    ),
    "replace in a pattern": (
        "{% for m in messages %}{{ '<|ROLE|>\nTEXT<|end|>\n'.replace('ROLE', m.role).replace('TEXT', m.content) }}"
        "{% endfor %}" + PROMPT,
        STOPPED,
    ),
    "messages are copied into new dicts": (
        "{% set ns = namespace(all=[]) %}{% for m in messages %}"
        "{% set ns.all = ns.all + [{'r': m.role, 'c': m.content | trim}] %}{% endfor %}"
        "{% for m in ns.all %}<|{{ m.r }}|>\n{{ m.c }}<|end|>\n{% endfor %}" + PROMPT,
        STOPPED,
    ),
    "indices": (
        "{% for i in range(messages | length) %}<|{{ messages[i].role }}|>\n{{ messages[i]['content'] }}<|end|>\n"
        "{% endfor %}" + PROMPT,
        STOPPED,
    ),
    "loop.index0": (
        "{% for m in messages %}<|{{ messages[loop.index0].role }}|>\n{{ messages[loop.index0].content }}<|end|>\n"
        "{% endfor %}" + PROMPT,
        STOPPED,
    ),
    "batch of two": (
        "{% for pair in messages | batch(2) %}{% for m in pair %}<|{{ m.role }}|>\n{{ m.content }}<|end|>\n{% endfor %}"
        "{% endfor %}" + PROMPT,
        STOPPED,
    ),
    "enumerated items": (
        "{% for m in messages %}{% for key, value in m.items() %}"
        "{% if key == 'content' %}{{ value }}<|end|>\n{% else %}<|{{ value }}|>\n{% endif %}{% endfor %}{% endfor %}"
        + PROMPT,
        STOPPED,
    ),
    "recursive loop": (
        "{% for m in messages[:1] recursive %}<|{{ m.role }}|>\n{{ m.content }}<|end|>\n"
        "{% set at = messages.index(m) %}{% if at + 1 < messages | length %}{{ loop(messages[at + 1:at + 2]) }}"
        "{% endif %}{% endfor %}" + PROMPT,
        STOPPED,
    ),
    "stop decided by the next message": (
        "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}"
        "{% if m.role == 'assistant' or loop.nextitem is defined %}<|end|>\n{% endif %}{% endfor %}" + PROMPT,
        STOPPED,
    ),
    "generation markers inside a macro": (
        "{% macro say(m) %}{% generation %}{{ m.content }}<|end|>{% endgeneration %}{% endmacro %}"
        "{% for m in messages %}<|{{ m.role }}|>\n{% if m.role == 'assistant' %}{{ say(m) }}{% else %}"
        "{{ m.content }}<|end|>{% endif %}\n{% endfor %}" + PROMPT,
        STOPPED,
    ),
    "white space control": (
        "{%- for m in messages -%}\n  {{- '<|' + m.role + '|>\n' -}}\n  {{- m.content -}}  \n"
        "  {{- '<|end|>' -}}\n {{- '\n' -}}\n{%- endfor -%}\n{%- if add_generation_prompt -%}"
        "{{- '<|assistant|>\n' -}}{%- endif -%}",
        STOPPED,
    ),
    "the end of the document is not a stop": (
        "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}<|end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>\n{% else %}{{ eos_token }}{% endif %}",
        STOPPED,
    ),
    "the end of the document inside the loop is not a stop": (
        "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}<|end|>\n{% if loop.last and not add_generation_prompt %}"
        "{{ eos_token }}{% endif %}{% endfor %}" + PROMPT,
        STOPPED,
    ),
    "the end of the document right after the stop is not a stop": (
        "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}<|end|>{% if loop.last %}{{ eos_token }}{% endif %}"
        "{% endfor %}" + PROMPT,
        STOPPED,
    ),
    "the last turn ends in another token": (
        "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}{% if loop.last %}{{ eos_token }}{% else %}<|end|>\n"
        "{% endif %}{% endfor %}" + PROMPT,
        [f"{A1}<|end|>", f"{A2}</s>"],
    ),
    "the user's turn prints the header": (
        "{% for m in messages %}{% if m.role == 'user' %}<|user|>\n{{ m.content }}<|end|>\n<|assistant|>\n"
        "{% else %}{{ m.content }}<|end|>\n{% endif %}{% endfor %}",
        STOPPED,
    ),
    "turns are numbered": (
        "{% for m in messages %}[{{ loop.index }}] {{ m.role }}: {{ m.content }}</s>\n{% endfor %}"
        "{% if add_generation_prompt %}[{{ messages | length + 1 }}] assistant: {% endif %}",
        [f"{A1}</s>", f"{A2}</s>"],
    ),
    "contents fetched before the loop": (
        "{% set said = messages | map(attribute='content') | list %}{% for m in messages %}<|{{ m.role }}|>\n"
        "{{ said[loop.index0] }}<|end|>\n{% endfor %}" + PROMPT,
        STOPPED,
    ),
    "dict()": (
        "{% set ns = namespace(all=[]) %}{% for m in messages %}"
        "{% set ns.all = ns.all + [dict(role=m.role, content=m.content)] %}{% endfor %}"
        "{% for m in ns.all %}<|{{ m.role }}|>\n{{ m.content }}<|end|>\n{% endfor %}" + PROMPT,
        STOPPED,
    ),
    "padded by format": (
        "{% for m in messages %}<|{{ m.role }}|>\n{{ '{:>15}'.format(m.content) }}<|end|>\n{% endfor %}" + PROMPT,
        [f"  {A1}<|end|>", f"    {A2}<|end|>"],
    ),
    "the next message prints the stop": (
        "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}{% endfor %}" + PROMPT,
        [f"{A1}<|user|>", A2],
    ),
    "the prompt opens a thought": (
        "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}<|end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>\n<think>\n{% endif %}",
        STOPPED,
    ),
    "the prompt and the turn open a thought": (
        "{% for m in messages %}<|{{ m.role }}|>\n{% if m.role == 'assistant' %}<think>\n\n</think>\n\n{% endif %}"
        "{{ m.content }}<|end|>\n{% endfor %}{% if add_generation_prompt %}<|assistant|>\n<think>\n{% endif %}",
        ["\n</think>\n\n" + text for text in STOPPED],
    ),
    "no generation prompt": (
        "{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]{% else %} {{ m.content }}</s>"
        "{% endif %}{% endfor %}",
        [f" {A1}</s>", f" {A2}</s>"],
    ),
    "a plain header that the prompt lacks is the model's to write": (
        "{% for m in messages %}{% if m.role == 'user' %}USER: {{ m.content }}\n{% else %}BOT: {{ m.content }}</s>\n"
        "{% endif %}{% endfor %}",
        [f"BOT: {A1}</s>", f"BOT: {A2}</s>"],
    ),
    "consecutive turns are merged": (
        "{% set ns = namespace(last='') %}{% for m in messages %}{% if m.role != ns.last %}"
        "{% if not loop.first %}<|end|>\n{% endif %}<|{{ m.role }}|>\n{% endif %}{{ m.content }}"
        "{% set ns.last = m.role %}{% endfor %}<|end|>\n" + PROMPT,
        STOPPED,
    ),
    "thoughts are stripped": (
        "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content.split('</think>')[-1].strip() }}<|end|>\n{% endfor %}"
        + PROMPT,
        STOPPED,
    ),
    "json of the content": (
        "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content | tojson }}<|end|>\n{% endfor %}" + PROMPT,
        [f'"{A1}"<|end|>', f'"{A2}"<|end|>'],
    ),
    "letters are changed": (
        "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content | upper }}<|end|>\n{% endfor %}" + PROMPT,
        [f"{A1.upper()}<|end|>", f"{A2.upper()}<|end|>"],
    ),
    "marked safe": (
        "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content | safe }}<|end|>\n{% endfor %}" + PROMPT,
        STOPPED,
    ),
    "system prompt inside the first user turn": (
        "{% for m in messages %}<|{{ m.role }}|>\n{% if loop.first %}Be nice.\n\n{% endif %}{{ m.content }}<|end|>\n"
        "{% endfor %}" + PROMPT,
        STOPPED,
    ),
    "turns chosen by role": (
        "{% for m in messages if m.role in ['user', 'assistant'] %}<|{{ m.role }}|>\n{{ m.content }}<|end|>\n{% endfor %}"
        + PROMPT,
        STOPPED,
    ),
    "contents mapped": (
        "{% for role, text in [] %}{% endfor %}{% for text in messages | map(attribute='content') %}"
        "<|{{ 'user' if loop.index0 is even else 'assistant' }}|>\n{{ text }}<|end|>\n{% endfor %}" + PROMPT,
        STOPPED,
    ),
}
REFUSED = {
    "an answer is printed twice": (
        "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}<|end|>\n{% endfor %}"
        "Summary: {{ messages[1].content }}\n" + PROMPT
    ),
    "an answer is printed in the next turn": (
        "{% for m in messages %}<|{{ m.role }}|>\n{% if loop.previtem is defined %}(after: {{ loop.previtem.content }}) "
        "{% endif %}{{ m.content }}<|end|>\n{% endfor %}" + PROMPT
    ),
    "a question is printed inside the answer": (
        "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}{% if m.role == 'assistant' %}"
        " (asked: {{ messages[0].content }}) ok{% endif %}<|end|>\n{% endfor %}" + PROMPT
    ),
    "the answers are dropped": (
        "{% for m in messages %}<|{{ m.role }}|>\n{% if m.role == 'user' %}{{ m.content }}{% endif %}<|end|>\n{% endfor %}"
        + PROMPT
    ),
    "all messages as one JSON text": "{{ messages | tojson }}" + PROMPT,
    "no header, no prompt, no stop": (
        "{% for m in messages %}{{ m.content }}{% if not loop.last %}\n{% endif %}{% endfor %}</s>"
    ),
    "in reversed order": (
        "{% for m in messages | reverse %}<|{{ m.role }}|>\n{{ m.content }}<|end|>\n{% endfor %}" + PROMPT
    ),
    "half of an answer is dropped": (
        "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content[:5] }}<|end|>\n{% endfor %}" + PROMPT
    ),
    "roles are refused": "{% for m in messages %}{% if m.role == 'assistant' %}{{ raise_exception('no') }}{% endif %}{% endfor %}",
}


@pytest.mark.parametrize("name", EXACT)
def test_spans_are_exact(name):
    template, expected = EXACT[name]
    assert spans(template, eos_token="</s>") == expected


@pytest.mark.parametrize("name", EXACT)
def test_one_changed_character_changes_nothing(name):
    template, expected = EXACT[name]
    assert spans(template + "{# a comment #}\n", eos_token="</s>") == expected


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_vouched_for_is_refused(name):
    with pytest.raises(MaskError) as caught:
        spans(REFUSED[name], eos_token="</s>")
    assert "message" in str(caught.value) or "refuses a conversation of user, assistant" in str(caught.value)


CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.mark.parametrize(
    "reply",
    [
        "",
        " ",
        "\n",
        "assistant",
        "<|im_end|>",
        "<|im_start|>assistant\n",
        "same",
        "user\nsame",
        "é漢字🙂",
        "{{ x }}",
        "%s",
        "</think>",
    ],
)
def test_replies_that_look_like_something_else(reply):
    messages = [{"role": "user", "content": "same"}, {"role": "assistant", "content": reply}] * 2
    assert spans(CHATML, messages) == [f"{reply}<|im_end|>"] * 2


def test_the_assistant_may_open_and_may_speak_twice():
    messages = [{"role": "assistant", "content": "Hi."}, {"role": "assistant", "content": "Hello?"}, *CHAT[:2]]
    assert spans(CHATML, messages) == ["Hi.<|im_end|>", "Hello?<|im_end|>", f"{A1}<|im_end|>"]


def test_an_error_names_message_text_and_template():
    with pytest.raises(MaskError) as caught:
        spans(REFUSED["the answers are dropped"])
    text = str(caught.value)
    assert text.startswith("chat template 'template': message 1 (assistant): content 'Fine, thanks.' is dropped")
