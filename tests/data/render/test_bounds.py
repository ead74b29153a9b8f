"""A template that does not end, or makes too much, is stopped with its name, in any thread."""

import contextlib
import re
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jinja2.sandbox
import pytest
import trl
from conftest import transformers_text

from sftplug.data.render import budget, compile_template, enforce
from sftplug.data.render.bounds import BoundedEnvironment
from sftplug.data.render.costs import charge_method
from sftplug.data.render.template import Template
from sftplug.errors import TemplateError, TemplateStopped

FOLDER = Path(trl.__file__).parent / "chat_templates"
TOOL = {
    "name": "weather",
    "description": "Tells the weather.\n",
    "parameters": {
        "type": "object",
        "properties": {
            "city": {"type": "string", "enum": ["Oslo", "Bergen"], "description": "Where é"},
            "days": {"type": ["integer", "null"]},
            "more": {"type": "object", "properties": {"units": {"type": "array", "items": {"type": "string"}}}},
        },
        "required": ["city"],
    },
}
_CALL = {
    "id": "abcdefghi",
    "type": "function",
    "function": {"name": "weather", "arguments": {"city": "Oslo", "days": 3}},
}
_ASK, _SAY = {"role": "user", "content": "How is it?"}, {"role": "assistant", "content": "Fine."}
CONVERSATIONS = [
    ([{"role": "system", "content": "Be brief."}, _ASK, _SAY], None),
    ([_ASK, {**_SAY, "reasoning_content": "Hm."}, _ASK, _SAY], None),
    (
        [
            _ASK,
            {"role": "assistant", "content": "", "tool_calls": [_CALL]},
            {"role": "tool", "name": "weather", "tool_call_id": "abcdefghi", "content": "sun"},
            _SAY,
        ],
        [{"type": "function", "function": TOOL}],
    ),
]

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
    "a width that is given": "{{ '{:>{}}'.format(1, 1000000000) }}",
    "a large indent": "{{ messages | tojson(indent=1000000000) }}",
    "a macro that calls itself": "{% macro f(n) %}{{ f(n + 1) }}{% endmacro %}{{ f(0) }}",
    "macros that call themselves twice": "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}"
    "{{ f(60) }}",
}


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    """Nobody has to wait for a million turns."""
    monkeypatch.setattr(budget, "TURNS", 20_000)
    monkeypatch.setattr(budget, "SIZE", 200_000)


def stopped(source, name="bomb"):
    with pytest.raises(TemplateStopped, match=f"chat template '{name}' is stopped: ") as caught:
        compile_template(source, name).render(MESSAGES)
    return str(caught.value)


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_bomb_is_stopped_by_name(bomb):
    started = time.thread_time()
    stopped(BOMBS[bomb] + CHATML)
    assert time.thread_time() - started < 30


def test_the_message_says_what_was_too_much():
    assert stopped(BOMBS["nested loops"]).endswith("its loops and macros run more than 20,000 times.")
    assert stopped(BOMBS["a message repeated"]).endswith("it repeats a text or list 1,000,000,000 times.")


def test_a_bomb_that_only_a_prompt_sets_off_is_stopped():
    said = stopped(CHATML + "{% if add_generation_prompt %}" + BOMBS["nested loops"] + "{% endif %}")
    assert said.endswith("its loops and macros run more than 20,000 times.")


@pytest.mark.parametrize(
    "dead", ["10 ** (10 ** 10)", "'a' | center(1000000000)", "'%1000000000d' % 1", "'a' * 10 ** 9", "[0] * 10 ** 9"]
)
def test_nothing_is_computed_as_it_is_compiled(dead):
    template = compile_template("{% if false %}{{ " + dead + " }}{% endif %}" + CHATML)
    assert template.text(MESSAGES) == compile_template(CHATML).text(MESSAGES)


def test_it_works_in_threads():
    with ThreadPoolExecutor(2) as threads:
        said = list(threads.map(stopped, [BOMBS["nested loops"], BOMBS["doubling"]], ["first", "second"]))
    assert said[0] == "chat template 'first' is stopped: its loops and macros run more than 20,000 times."
    assert re.fullmatch(
        r"chat template 'second' is stopped: it makes a text or list of more than [\d,]+ items.", said[1]
    )


def test_a_template_that_was_stopped_is_not_tried_again():
    template = Template(BOMBS["macros that call themselves twice"] + CHATML, "bomb")
    with pytest.raises(TemplateStopped) as first:
        template.render(MESSAGES)
    started = time.thread_time()
    for method in (template.render, template.analyse, template.text):
        with pytest.raises(TemplateStopped, match=re.escape(str(first.value))):
            method(MESSAGES)
    assert time.thread_time() - started < 0.1


def test_what_many_renders_take_together_is_bounded(monkeypatch):
    monkeypatch.setattr(budget, "SECONDS", 0.2)
    slow = Template("{% for a in range(9000) %}{% set x = a ~ a %}{% endfor %}" + CHATML, "slow")
    slow.text(MESSAGES)
    with pytest.raises(TemplateStopped, match=r"it takes more than 0\.2 seconds"):
        [slow.text(MESSAGES) for _ in range(10_000)]


# --- what another process must try ------------------------------------------------------------------------------------

UNPROVEN = {
    "a text of many words": "{{ lipsum(n=100000000) }}",
    "a list that is added up": "{{ ([[1]] * 99999) | sum(start=[]) }}",
    "a translation": "{{ ('a' * 1000000).translate({97: 'b' * 1000}) }}",
    "the bytes of a number": "{{ (1).to_bytes(2000000000, 'big') }}",
}


@pytest.fixture
def _quick(monkeypatch):
    monkeypatch.undo()
    monkeypatch.setattr(enforce, "SECONDS", 0.5)
    monkeypatch.setattr(enforce, "GRACE", 0.5)


@pytest.mark.usefixtures("_quick")
@pytest.mark.parametrize("bomb", UNPROVEN)
def test_what_is_not_known_to_end_is_ended_from_outside(bomb):
    template = Template(UNPROVEN[bomb] + CHATML, "bomb")
    with pytest.raises(TemplateStopped, match=r"chat template 'bomb' is stopped: it (takes|makes) "):
        template.render(MESSAGES)
    assert template.outside


def test_what_is_not_known_to_end_may_end():
    template = Template("{% for m in messages %}<|{{ m.role }}|>{{ m.content.encode().hex() }}{% endfor %}", "odd")
    assert template.text(MESSAGES) == "<|user|>61<|assistant|>62"
    assert template.outside
    with pytest.raises(TemplateError, match="chat template 'odd' refuses a conversation of user: it turns the text"):
        template.analyse(MESSAGES[:1])
    refusing = Template("{{ (1).bit_length() }}{{ raise_exception('no') }}", "odd")
    with pytest.raises(TemplateError, match="chat template 'odd' refuses a conversation of user, assistant: no"):
        refusing.render(MESSAGES)
    assert refusing.outside


def test_a_row_that_is_nested_too_deep_is_refused_and_the_template_goes_on():
    nested = {}
    for _ in range(2000):
        nested = {"more": nested}
    template = Template(CHATML, "plain")
    for method in (template.text, template.render):
        with pytest.raises(TemplateError, match="the row is nested deeper than chat templates are given it"):
            method([*MESSAGES, {"role": "tool", "content": "c", "arguments": nested}])
    assert template.stopped is None


# --- and what is none of all this -------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["\n" * 10, "\x85" * 10, "a\r\nb\n", "a b " * 600, "é b"])
@pytest.mark.parametrize("name", ["split", "splitlines"])
def test_a_cut_costs_no_less_than_the_pieces_that_it_makes(text, name):
    spent = budget.Budget()
    charge_method(spent, text, name, (), {})
    assert spent._work >= budget.ITEM * len(getattr(text, name)())


def test_operators_still_do_what_they_did():
    source = (
        "{% for m in messages %}{{ '=' * 3 + m.role + '\n' ~ m.content ~ (2 ** 3 * 2 + 1) }}<|im_end|>\n{% endfor %}"
    )
    source += "{{ '**{}** 12345678'.format(messages[0].role) }}{{ '%s 12345678 * %d%%' % ('a', 5) }}"
    template = compile_template(source, "plain")
    assert template.render(MESSAGES).text == transformers_text(template, MESSAGES)


@pytest.mark.parametrize("name", sorted(path.stem for path in FOLDER.glob("*.jinja")))
def test_real_templates_render_as_in_transformers_and_in_this_process(name):
    template = compile_template((FOLDER / f"{name}.jinja").read_text(), name)
    for messages, tools in CONVERSATIONS:
        for prompt in (False, True):
            arguments = {"add_generation_prompt": prompt, "bos_token": "<s>", "eos_token": "</s>"}
            try:
                expected = transformers_text(template, messages, tools, **arguments)
            except Exception:  # noqa: BLE001 - its way of refusing
                with pytest.raises(TemplateError, match="refuses a conversation"):
                    template.text(messages, tools, **arguments)
            else:
                assert template.text(messages, tools, **arguments) == expected
        with contextlib.suppress(TemplateError):
            template.analyse(messages, tools, bos_token="<s>", eos_token="</s>")
    assert not template.outside


@pytest.mark.parametrize("value", [{"role": "user", "items": 1}, "text", ["a"], 7])
def test_an_attribute_is_what_the_sandbox_says(value):
    """Looked up by a shorter way where that is the same."""
    ours = BoundedEnvironment(budget.Budget())
    sandbox = jinja2.sandbox.ImmutableSandboxedEnvironment()
    for name in ("role", "items", "keys", "clear", "update", "append", "upper", "real", "__class__", "_x", "missing"):
        for _ in range(2):
            outcomes = [looked_up(environment, value, name) for environment in (ours, sandbox)]
            assert outcomes[0] == outcomes[1]


def looked_up(environment, value, name):
    found = environment.getattr(value, name)
    if isinstance(found, jinja2.runtime.Undefined):
        return "undefined", found._undefined_message
    return getattr(found, "__qualname__", found)
