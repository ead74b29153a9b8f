"""The prompts of a long conversation are found by one render; what is found must be what renders one by one show."""

import functools
import itertools

import pytest
from data.render.test_templates import TEMPLATES

from sftplug.data.render.template import Template
from sftplug.errors import TemplateError

KWARGS = {"bos_token": "<s>", "eos_token": "</s>"}


def chat(turns, *, system=False, tools=False, thoughts=False):
    """Return a conversation of that many questions, with replies of several kinds."""
    messages = [{"role": "system", "content": "Be brief."}] if system else []
    for turn in range(turns):
        messages.append({"role": "user", "content": f"What is {turn} plus one?" if turn % 5 else "  Well?"})
        if tools and turn % 4 == 1:
            call = {"type": "function", "function": {"name": "add", "arguments": {"to": turn}}}
            messages.append({"role": "assistant", "content": "", "tool_calls": [call]})
            messages.append({"role": "tool", "name": "add", "content": str(turn)})
        thought = {"reasoning_content": f"One more than {turn}."} if thoughts and turn % 3 == 0 else {}
        messages.append({"role": "assistant", "content": f"It is {turn + 1}." if turn % 7 else "", **thought})
    return messages


CHATS = {
    "plain": chat(9),
    "system": chat(9, system=True),
    "tools": chat(9, tools=True),
    "thoughts": chat(9, system=True, thoughts=True),
    "opened by the assistant": chat(9)[1:],
}


class Counting:
    """The walks of a template, and how many prompts they found."""

    def __init__(self, walks):
        self.walks, self.found = walks, 0

    def prompt_ends(self, call, text):
        end = self.walks.prompt_ends(call, text)

        def counted(turn):
            self.found += end(turn) is not None
            return end(turn)

        return counted


@functools.cache
def templates(source):
    """Return two templates: one that looks for proofs, and one that does not."""
    both = Template(source, "template"), Template(source, "template")
    both[1]._walks.made.append(None)
    return both


def outcome(source, messages, *, walk=True):
    """Return all that a render says, and how many prompts were found without rendering them."""
    template = templates(source)[not walk]
    walks = template._walks
    template._walks = counting = Counting(walks)
    try:
        row = template.analyse(messages, **KWARGS)
    except TemplateError as error:
        return str(error), 0
    finally:
        template._walks = walks
    said = row.text, [array.tolist() for array in row.runs], row.spans, row.findings
    return said, counting.found


def test_every_template_says_the_same_as_without():
    proven = {}
    names = [name for name in TEMPLATES if not name.endswith("_training")]
    for name, kind in zip(names, itertools.cycle(CHATS), strict=False):
        source = TEMPLATES[name]
        said, found = outcome(source, CHATS[kind])
        assert said == outcome(source, CHATS[kind], walk=False)[0]
        proven[name] = found
    assert sum(found >= 8 for found in proven.values()) >= 10


TURN = "<|{{ message.role }}|>{{ message.content }}<end>\n"
ASK = "{% if add_generation_prompt %}<|assistant|>{% endif %}"
LOOP = "{% for message in messages %}" + TURN + "{% endfor %}"
OPEN_TO_PROOF = {
    "one loop": LOOP + ASK,
    "the first apart": "{% set rest = messages[1:] %}{{ messages[0].content }}<end>\n"
    "{% for message in rest %}" + TURN + "{% endfor %}" + ASK,
    "what is kept tells the end": "{% set ns = namespace(asked=false) %}{% for message in messages %}"
    "<|{{ message.role }}|>{{ '!' if ns.asked }}{% set ns.asked = message.role == 'user' and message.content[0] == ' ' %}"
    "{{ message.content }}<end>\n{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>!' if ns.asked else '<|assistant|>' }}{% endif %}",
    "a loop before that finds the system turn": "{% set ns = namespace(said='') %}{% for message in messages %}"
    "{% if message.role == 'system' %}{% set ns.said = message.content %}{% endif %}{% endfor %}{{ ns.said }}"
    "{% for message in messages if message.role != 'system' %}" + TURN + "{% endfor %}" + ASK,
    "looks behind": "{% for message in messages %}{% if loop.index0 and messages[loop.index0 - 1].role == message.role %}~"
    "{% endif %}{% if loop.previtem is defined and loop.first %}?{% endif %}" + TURN + "{% endfor %}" + ASK,
}
CLOSED_TO_PROOF = {
    "asks whether it is the last": "{% for message in messages %}" + TURN + "{% if not loop.last %}~{% endif %}"
    "{% endfor %}" + ASK,
    "asks for the next": "{% for message in messages %}{{ '!' if loop.nextitem is defined }}" + TURN + "{% endfor %}"
    + ASK,
    "looks for the next": "{% for message in messages %}{{ '!' if messages[loop.index0 + 1] is defined }}" + TURN
    + "{% endfor %}" + ASK,
    "counts them": LOOP + "{{ messages | length if add_generation_prompt }}" + ASK,
    "asks for the last at the end": LOOP + "{% if add_generation_prompt %}{{ messages[-1].content[:1] }}"
    "<|assistant|>{% endif %}",
    "asks for the fifth at the end": LOOP + "{% if add_generation_prompt %}{{ '!' if messages[5] is defined }}"
    "<|assistant|>{% endif %}",
    "turns them round": "{% set ns = namespace(last=0) %}{% for message in messages | reverse %}{% if loop.first %}"
    "{% set ns.last = message.content | length %}{% endif %}{% endfor %}{{ ns.last }}" + LOOP + ASK,
    "prints them from a macro": "{% macro all() %}" + LOOP + "{% endmacro %}{{ all() }}" + ASK,
    "prints them from a block": "{% set all %}" + LOOP + "{% endset %}{{ all }}" + ASK,
    "keeps a count in a cycle": "{% set next = cycler('<a>', '<b>') %}{% for message in messages %}{{ next.next() }}"
    + TURN + "{% endfor %}" + ASK + "{{ next.current if add_generation_prompt }}",
    "keeps a half-read list": "{% set some = [1, 2, 3, 4, 5, 6, 7, 8, 9] | map('string') %}{% for message in messages %}"
    "{% for one in some %}{{ one }}{% break %}{% endfor %}" + TURN + "{% endfor %}" + ASK
    + "{{ some | first if add_generation_prompt }}",
    "keeps what it cannot compare": "{% set ns = namespace(last=none) %}{% for message in messages %}"
    "{% set ns.last = message %}" + TURN + "{% endfor %}{{ ns.last.content if add_generation_prompt }}" + ASK,
    "says something when there is none": "{% for message in messages if message.role == 'tool' %}{{ message.content }}"
    "{% else %}none{% endfor %}" + LOOP + ASK,
    "an earlier loop keeps what a later message says": "{% set ns = namespace(last='') %}{% for message in messages %}"
    "{% set ns.last = message.content %}{% endfor %}{{ ns.last }}" + LOOP + ASK,
    "counts in what it keeps": "{% set ns = namespace(n=0) %}{% for message in messages %}{% set ns.n = ns.n + 1 %}"
    + TURN + "{% endfor %}{{ ns.n if add_generation_prompt }}" + ASK,
    "gives its loop away": "{% macro end(l) %}{{ '~' if l.last }}{% endmacro %}{% for message in messages %}" + TURN
    + "{{ end(loop) }}{% endfor %}" + ASK,
}  # fmt: skip


@pytest.mark.parametrize("name", OPEN_TO_PROOF)
def test_what_goes_through_the_messages_once_is_proven(name):
    for messages in (chat(30), chat(30, system=True)):
        said, found = outcome(OPEN_TO_PROOF[name], messages)
        assert said == outcome(OPEN_TO_PROOF[name], messages, walk=False)[0]
        assert found >= 29


@pytest.mark.parametrize("kind", CHATS)
@pytest.mark.parametrize("name", CLOSED_TO_PROOF)
def test_what_may_depend_on_later_messages_is_never_passed_over(name, kind):
    assert outcome(CLOSED_TO_PROOF[name], CHATS[kind])[0] == outcome(CLOSED_TO_PROOF[name], CHATS[kind], walk=False)[0]


@pytest.mark.parametrize("turns", [100, 400])
def test_the_renders_of_a_long_conversation_are_few_whatever_its_length(turns):
    template, renders = Template(OPEN_TO_PROOF["what is kept tells the end"], "template"), []
    plain = template._renderer._plain

    class Counting:
        def render(self, **variables):
            renders.append(variables)
            return plain.render(**variables)

    template._renderer._plain = Counting()
    assert len(template.analyse(chat(turns), **KWARGS).spans) == turns
    assert len(renders) < 8


AHEAD = (
    "{% set last = messages | length %}{% for m in messages %}<{{ m.role }}>{{ m.content }}</s>{% endfor %}<assistant>"
)


def test_a_conversation_of_too_many_prompts_is_refused_before_one_is_rendered():
    template = Template(AHEAD, "template")
    plain, template._renderer._plain = template._renderer._plain, None
    with pytest.raises(
        TemplateError, match=r"of 3,000 turns have to be rendered one by one: 9,000,000 messages, and 2,"
    ):
        template.analyse(chat(3_000), **KWARGS)
    template._renderer._plain = plain
    assert len(template.analyse(chat(30), **KWARGS).spans) == 30
