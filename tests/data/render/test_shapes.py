"""A row that is filled into the shape of another must be what it would be if it were rendered in full."""

import datetime
import itertools

import numpy as np
import pytest
from conftest import transformers_text
from data.render.test_templates import TEMPLATES
from hypothesis import given, settings
from hypothesis import strategies as st

from sftplug.data.render import compile_template
from sftplug.data.render.template import Template
from sftplug.errors import TemplateError

KWARGS = {"bos_token": "<s>", "eos_token": "</s>"}
PIECES = [*"ab 1A<>\n", "<|im_end|>", "</think>", "<think>", "[/INST]", "<tool_response>", "</tool_response>", "é漢🙂"]
TEXT = st.lists(st.sampled_from(PIECES), max_size=8).map("".join)


def conversation(*texts):
    roles = itertools.cycle(["user", "assistant"])
    return [{"role": role, "content": text} for role, text in zip(roles, texts, strict=False)]


def outcome(render, messages):
    """Return all that a render says, as plain values that can be compared."""
    try:
        row = render(messages, **KWARGS)
    except TemplateError as error:
        return str(error)
    return row.text, [array.tolist() for array in row.runs], row.spans, row.findings


def knows_a_shape(template):
    return any(template._shapes.known.values())


def learned(source):
    """Return a template that has seen plain rows of two, four and six turns."""
    template = Template(source, "template")
    for turns in (2, 4, 6):
        for word in ("tide", "rain"):
            outcome(template.render, conversation(*[f"{word} {turn}" for turn in range(turns)]))
    return template


LEARNED = {name: learned(source) for name, source in TEMPLATES.items()}


def test_most_templates_have_shapes():
    assert sum(map(knows_a_shape, LEARNED.values())) >= 50


@settings(max_examples=300, deadline=None)
@given(st.lists(TEXT, min_size=2, max_size=6), st.sampled_from(sorted(TEMPLATES)), st.booleans())
def test_random_rows_are_filled_in_as_they_are_rendered(texts, name, system):
    template, messages = LEARNED[name], conversation(*texts)
    messages = [{"role": "system", "content": texts[0]}, *messages] if system else messages
    for _ in range(3):  # the first may teach a shape, the next is filled into it
        assert outcome(template.render, messages) == outcome(template.analyse, messages)


def test_reasoning_has_a_slot_of_its_own():
    template = Template(TEMPLATES["qwen3"], "qwen3")
    rows = [
        [{"role": "user", "content": f"q{n}"}, {"role": "assistant", "content": f"a{n}", "reasoning_content": f"r{n}"}]
        for n in range(9)
    ]
    for row in rows:
        assert outcome(template.render, row) == outcome(template.analyse, row)
    assert knows_a_shape(template)


# Every way to look at a text that Jinja has: the answer must not be taken from another row.
LOOKS = [
    "'b' in m.content",
    "m.content in 'abc'",
    "m.content in ['a', 'b']",
    "m.content in {'a': 1}",
    "m.content is in 'abc'",
    "m.content not in 'ab'",
    "'a' == m.content",
    "m.content != 'a'",
    "m.content < 'b'",
    "m.content is lt 'b'",
    "m.content is upper",
    "m.content[0] == 'a'",
    "m.content[:1] in ['a']",
    "m.content | first == 'a'",
    "m.content | last == 'a'",
    "m.content | length > 2",
    "2 > m.content | length",
    "m.content | length is even",
    "m.content | length + 1 > 3",
    "(m.content | length | string) == '2'",
    "range(m.content | length) | list | length > 2",
    "m.content | upper == 'AB'",
    "m.content | int > 3",
    "m.content | list | length > 2",
    "m.content | tojson | length > 4",
    "messages | tojson | length > 90",
    "m.content | trim != m.content",
    "m.content.strip() == 'a'",
    "m.content.isdigit()",
    "m.content.startswith('a')",
    "m.content.startswith(('a', '1'))",
    "m.content.find('b') > 0",
    "m.content.count('a') == 2",
    "m.content.split('a') | length > 1",
    "m.content.split() | length > 1",
    "m.content | wordcount > 1",
    "m.content | replace('a', '') | length < 2",
    "'ab'.startswith(m.content)",
    "'a-b'.replace('a', m.content) == 'a-b'",
    "{'a': 1}.get(m.content)",
    "['a', 'b'].count(m.content)",
    "m.content == messages[0].content",
    "(m.content ~ 'x') == 'ax'",
    "('a' + m.content).startswith('aa')",
    "('%s' | format(m.content)) == 'a'",
    "('%s' % m.content) == 'a'",
    "'{}'.format(m.content) == 'a'",
    "namespace(x=m.content).x == 'a'",
    "dict(x=m.content).x == 'a'",
    "messages | map(attribute='content') | join | length > 9",
    "messages | selectattr('content', 'equalto', 'a') | list | length",
    "messages | selectattr('content', 'in', 'ab') | list | length",
    "messages | groupby('content') | list | length > 2",
    "messages | unique(attribute='content') | list | length > 2",
    "messages | sort(attribute='content') | first == messages[0]",
    "messages | map(attribute='content') | map('upper') | first == 'A'",
    "'a' in (messages | map(attribute='content') | list)",
    "messages | map(attribute='content') | map('length') | sum > 3",
    "m.content and m.content.endswith('b')",
    "loop.changed(m.content)",
]
WORDS = ["a", "b", "ab", "ba", "1", "12", "A", "AB", "a b", " a", "b\n", "abc", "aa"]


@pytest.mark.parametrize("look", LOOKS)
def test_no_answer_is_taken_from_another_row(look):
    source = "{% for m in messages %}{{ '<|' + m.role + '|>' }}{% if " + look + " %}!{% else %}?{% endif %}"
    source += "{{ m.content }}<|end|>{{ '\\n' }}{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
    template = Template(source, "template")
    for texts in itertools.product(WORDS, WORDS):
        row = conversation(*texts)
        expected = transformers_text(template, row, **KWARGS)
        assert template.render(row, **KWARGS).text == expected, texts


def test_a_text_that_was_looked_for_in_another_teaches_nothing():
    source = "{% for m in messages %}<|x|>{{ m.content }}{% if m.content in 'abc' %}!{% endif %}<|end|>{% endfor %}"
    template = learned(source)
    assert not knows_a_shape(template)


def test_a_template_that_prints_the_date_is_learned_anew_on_another_day(monkeypatch):
    source = "{{ strftime_now('%d %b %Y') }}{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
    source += "{% if add_generation_prompt %}<|assistant|>{% endif %}"
    template = learned(source)
    (shape, *_), *_ = template._shapes.known.values()
    texts = dict.fromkeys(shape.outline.slots, "x")
    assert shape.fits(texts)

    class Tomorrow(datetime.date):
        @classmethod
        def today(cls):
            return datetime.date.fromordinal(datetime.date(2000, 1, 1).toordinal())

    monkeypatch.setattr("sftplug.data.render.shape.datetime.date", Tomorrow)
    assert not shape.fits(texts)


def test_a_template_that_prints_the_time_teaches_nothing():
    source = "{{ strftime_now('%H:%M') }}{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
    assert not knows_a_shape(learned(source))


def test_starts_of_runs_move_with_the_lengths_of_the_texts():
    template = compile_template(TEMPLATES["qwen2_5"])
    for length in (1, 2, 50, 3):
        row = template.render(conversation("q" * length, "a" * (2 * length)), **KWARGS)
        (span,) = row.spans
        assert row.text[span.start : span.end] == "a" * (2 * length) + "<|im_end|>"
        assert np.all(np.diff(row.runs.starts) > 0)
