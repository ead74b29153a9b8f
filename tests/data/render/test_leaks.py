"""Whatever a template does with a text, nobody else's text is trained, and no lost text is passed over."""

import pytest
from conftest import transformers_text

from sftplug import MaskError
from sftplug.data.render.template import Template
from sftplug.testing import assistant_spans

CHAT = [
    {"role": "user", "content": "How are you?"},
    {"role": "assistant", "content": "Fine, thanks."},
    {"role": "user", "content": "And now?"},
    {"role": "assistant", "content": "Still fine."},
]
ASK = "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
EXACT = ["Fine, thanks.<|end|>", "Still fine.<|end|>"]
SAID = "messages[loop.index0 - 1].content"


def spans(template, messages=CHAT, **kwargs):
    text, found = assistant_spans(template, messages, bos_token="<s>", eos_token="</s>", **kwargs)
    return [text[start:end] for start, end in found]


def after_the_reply(extra):
    """Return a template that prints `extra` after each reply and before its stop."""
    return (
        "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}{% if m.role == 'assistant' %}"
        + extra
        + "{% endif %}<|end|>\n{% endfor %}"
        + ASK
    )


def with_content(expression):
    """Return a template that prints `expression` for the content of ``m``."""
    return "{% for m in messages %}<|{{ m.role }}|>\n" + expression + "<|end|>\n{% endfor %}" + ASK


LEAKS = [
    *(
        f"{{{{ {SAID} | {name} }}}}"
        for name in ("title", "wordwrap(5)", "e", "center(40)", "indent(2, true)", "urlencode")
    ),
    *(
        f"{{{{ {SAID} | {name} }}}}"
        for name in ("truncate(6)", "pprint", "striptags", "reverse", "sort | join", "upper")
    ),
    *(f"{{{{ {SAID}.{name} }}}}" for name in ("swapcase()", "casefold()", "ljust(40)", "center(40)", "zfill(40)")),
    *(f"{{{{ {SAID}.{name} }}}}" for name in ("expandtabs()", "translate({})", "encode()", "encode().hex()")),
    f"{{{{ [{SAID}] }}}}",
    f"{{{{ {{'asked': {SAID}}} }}}}",
    f"{{{{ {{{SAID}: 1}} | tojson }}}}",
    f"{{{{ {{'asked': {SAID}}} | xmlattr }}}}",
    f"{{{{ 'asked' | replace('asked', {SAID}) }}}}",
    f"{{{{ '%r' % {SAID} }}}}",
    f"{{{{ '{{0!r:>40}}'.format({SAID}) }}}}",
    f"{{{{ 'asked: ' ~ [{SAID}] }}}}",
    f"{{{{ [[{SAID}], 1] | join(' ') }}}}",
    f"{{{{ ({SAID}, ) | string }}}}",
    f"{{{{ ('<' | safe) + {SAID} }}}}",
    f"{{{{ {SAID} + ('<' | safe) }}}}",
    "{{ loop.previtem }}",
    "{{ loop.previtem.items() }}",
    "{{ messages | map(attribute='content') | unique | join(' ') }}",
]


@pytest.mark.parametrize("extra", LEAKS)
def test_a_question_in_the_reply_is_refused_however_it_is_written(extra):
    with pytest.raises(MaskError):
        spans(after_the_reply(extra))


LOST = [
    "{{ m.content | truncate(6, true, '') }}",
    "{{ m.content | replace('ne', '') }}",
    "{{ m.content | length }}",
    "{{ m.content.encode().hex() }}",
    "{{ [m.content] }}",
    "{{ {'text': [m.content]} | string }}",
    "{{ m.content | wordwrap(4) | replace('\n', '') | truncate(9) }}",
]


@pytest.mark.parametrize("expression", LOST)
def test_a_reply_that_cannot_be_followed_is_refused(expression):
    with pytest.raises(MaskError):
        spans(with_content(expression))


FOLLOWED = [
    "{{ m.content | e }}",
    "{{ m.content | indent(2) }}",
    "{{ m.content.expandtabs() }}",
    "{{ m.content.split(', ') | join(', ') }}",
    "{{ ('%s' % m.content) }}",
    "{{ '%(text)s' | format(text=m.content) }}",
    "{{ '{text}'.format(text=m.content) }}",
    "{{ '{content}'.format(**m) }}",
    "{{ '%(content)s' % m }}",
    "{{ 'TEXT' | replace('TEXT', m.content) }}",
]


@pytest.mark.parametrize("expression", FOLLOWED)
def test_a_reply_that_stands_in_the_text_is_followed(expression):
    assert spans(with_content(expression)) == EXACT


@pytest.mark.parametrize("reply", ["assistant", "a", "%s", "1"])
def test_a_pattern_s_slots_are_told_apart_when_they_hold_the_same(reply):
    messages = [{"role": "user", "content": reply}, {"role": "assistant", "content": reply}]
    for pattern in (
        "{{ '<|%s|>\n%s<|end|>\n' % (m.role, m.content) }}",
        "{{ '<|{}|>\n{}<|end|>\n'.format(m.role, m.content) }}",
    ):
        template = "{% for m in messages %}" + pattern + "{% endfor %}" + ASK
        assert spans(template, messages) == [f"{reply}<|end|>"]


def test_json_keys_that_equal_a_reply_are_told_from_it():
    template = with_content("{{ {'content': m.content, 'of': m.role} | tojson }}")
    messages = [{"role": "user", "content": "content"}, {"role": "assistant", "content": "content"}]
    assert spans(template, messages) == ['{"content": "content", "of": "assistant"}<|end|>']


def test_json_options_may_be_given_by_position():
    assert (
        spans(with_content("{{ {'é': m.content} | tojson(true, 1) }}"))[0] == '{\n "\\u00e9": "Fine, thanks."\n}<|end|>'
    )


def test_what_is_marked_safe_escapes_what_is_added_to_it_as_in_transformers():
    template = with_content("{{ m.content }}").replace("<|end|>", "{{ '<|'|safe + 'end|>' }}")
    text, _ = assistant_spans(template, CHAT)
    assert "<|end|&gt;" in text


# --- shapes -----------------------------------------------------------------------------------------------------------

TWICE = [
    "{{ m.content }}{{ [m.content] }}",
    "{{ m.content ~ [m.content] }}",
    "{{ m.content }}{{ m }}",
    "{{ m.content }}{{ {m.content: 1} | tojson }}",
    "{{ m.content }}{{ [m.content] | string }}",
    "{{ m.content }}{{ [[m.content]] | join }}",
    "{{ m.content }}{{ '%s' % [m.content] }}",
    "{{ m.content }}{{ m.content | title }}",
    "{{ ('<' | safe) + m.content }}",
    "{{ m.content + ('<' | safe) }}",
]


@pytest.mark.parametrize("expression", TWICE)
def test_a_row_is_never_filled_with_the_words_of_another(expression):
    template = Template(with_content(expression), "twice")
    for name in ("one", "two", "three", "<four>"):
        messages = [{"role": "user", "content": f"{name}?"}, {"role": "assistant", "content": f"{name}."}]
        rendered = template.render(messages)
        assert rendered.text == transformers_text(template, messages)
        assert rendered.spans == template.analyse(messages).spans
