"""A template that does not end, or makes too much, is stopped with its name, in any thread."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from sftplug.data.render import bounds, compile_template
from sftplug.errors import TemplateError

MESSAGES = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
CHATML = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
LOOP = "{% for a in range(99999) %}{% for b in range(99999) %}"
BOMBS = {
    "nested loops": LOOP + "{% endfor %}{% endfor %}",
    "printing loops": LOOP + "x{% endfor %}{% endfor %}",
    "a text repeated": "{{ 'a' * 10 ** 9 }}",
    "a message repeated": "{{ messages[0].content * 1000000000 }}",
    "a list repeated": "{% set x = [0] * 1000000000 %}",
    "a large number": "{{ 10 ** (10 ** 10) }}",
    "in a dead branch": "{% if false %}{{ 10 ** (10 ** 10) }}{% endif %}",
    "a filter in a dead branch": "{% if false %}{{ 'a' | center(1000000000) }}{% endif %}",
    "doubling": "{% set n = namespace(x='a') %}{% for i in range(99) %}{% set n.x = n.x + n.x %}{% endfor %}",
    "doubling with ~": "{% set n = namespace(x='a') %}{% for i in range(99) %}{% set n.x = n.x ~ n.x %}{% endfor %}",
    "doubling a block": "{% set n = namespace(x='a') %}{% for i in range(99) %}"
    "{% set y %}{{ n.x }}{{ n.x }}{% endset %}{% set n.x = y %}{% endfor %}",
    "doubling a list": "{% set n = namespace(x=[0]) %}{% for i in range(99) %}{% set n.x = n.x + n.x %}{% endfor %}",
    "a large join": "{{ range(99999) | list | join('a' * 100000) }}",
    "a large join of a method": "{{ ('a' * 100000).join(['b'] * 99999) }}",
    "a large replace": "{{ ('a' * 100000).replace('a', 'b' * 100000) }}",
    "a large width": "{{ 'a'.ljust(1000000000) }}",
    "a large format": "{{ '%1000000000d' | format(1) }}",
    "a large format of a method": "{{ '{:>1000000000}'.format(1) }}",
    "a large format of an operator": "{{ '%1000000000d' % 1 }}",
    "a format in a dead branch": "{% if false %}{{ '%1000000000d' % 1 }}{% endif %}",
    "a width that is given": "{{ '{:>{}}'.format(1, 1000000000) }}",
    "a large indent": "{{ messages | tojson(indent=1000000000) }}",
    "a macro that calls itself": "{% macro f(n) %}{{ f(n + 1) }}{% endmacro %}{{ f(0) }}",
    "macros that call themselves twice": "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}"
    "{{ f(60) }}",
}


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    """Nobody has to wait for a million turns."""
    monkeypatch.setattr(bounds, "TURNS", 20_000)
    monkeypatch.setattr(bounds, "SIZE", 200_000)


def stopped(source, name="bomb"):
    with pytest.raises(TemplateError, match=f"chat template '{name}' (is stopped|refuses)") as caught:
        compile_template(source, name).render(MESSAGES)
    return str(caught.value)


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_bomb_is_stopped_by_name(bomb):
    started = time.thread_time()
    stopped(BOMBS[bomb] + CHATML)
    assert time.thread_time() - started < 30


def test_the_message_says_what_was_too_much():
    assert stopped(BOMBS["nested loops"]).endswith("its loops and macros run more than 20,000 times")
    assert stopped(BOMBS["a message repeated"]).endswith("it repeats a text or list 1,000,000,000 times")


def test_a_bomb_that_only_a_prompt_sets_off_is_stopped():
    assert "is stopped" in stopped(CHATML + "{% if add_generation_prompt %}" + BOMBS["nested loops"] + "{% endif %}")


def test_it_works_in_threads():
    with ThreadPoolExecutor(2) as threads:
        said = list(threads.map(stopped, [BOMBS["nested loops"], BOMBS["doubling"]], ["first", "second"]))
    assert said[0] == "chat template 'first' is stopped: its loops and macros run more than 20,000 times"
    assert said[1] == "chat template 'second' is stopped: it makes a text or list of more than 200,000 items"


def test_operators_still_do_what_they_did():
    source = (
        "{% for m in messages %}{{ '=' * 3 + m.role + '\n' ~ m.content ~ (2 ** 3 * 2 + 1) }}<|im_end|>\n{% endfor %}"
    )
    source += "{{ '**{}** 12345678'.format(messages[0].role) }}{{ '%s 12345678 * %d%%' % ('a', 5) }}"
    template = compile_template(source, "plain")
    assert template.render(MESSAGES).text == template.render_plain(MESSAGES)
