"""The prompts of a long conversation share what they print; what is found must be what renders one by one show."""

import functools
import itertools
import sys
from typing import ClassVar

import pytest
from data.render.test_templates import TEMPLATES

from sftplug.data.render import compile_template, prompts, template
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


def agents(*calls):
    """Return a conversation with one question after the other, each answered after so many calls of a tool."""
    messages = []
    for number, count in enumerate(calls):
        messages.append({"role": "user", "content": f"Count to {count}."})
        for to in range(count):
            call = {"type": "function", "id": f"call{to:05}", "function": {"name": "add", "arguments": {"to": to}}}
            thought = {"reasoning_content": f"Now {to}."} if to % 3 == 0 else {}
            messages.append({"role": "assistant", "content": "", "tool_calls": [call], **thought})
            messages.append({"role": "tool", "name": "add", "tool_call_id": call["id"], "content": str(to)})
        messages.append({"role": "assistant", "content": f"Done {number}.", "reasoning_content": "That was all."})
    return messages


CHATS |= {"an agent": agents(12), "agents": agents(3, 9, 0, 1, 4)}


class Watched(prompts.Prompts):
    """The prompts of a conversation, which keep what was followed and how much ran."""

    made: ClassVar[list] = []

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.followed_prompts = 0
        self.made.append(self)

    def _follow(self, message, *, asks, traced):
        found = super()._follow(message, asks=asks, traced=traced)
        self.followed_prompts += found is not None and asks and not traced
        return found

    @property
    def all_ran(self):
        return self.ran + sum(whole.ran for whole in self._wholes.values() if whole is not None)


@pytest.fixture(autouse=True)
def _watched(monkeypatch):
    Watched.made.clear()
    monkeypatch.setattr(template, "Prompts", Watched)


@functools.cache
def templates(source):
    """Return two templates: one that is followed, and one whose prompts are rendered one by one."""
    both = Template(source, "template"), Template(source, "template")
    both[1]._walks._made = {True: None, False: None}
    return both


def outcome(source, messages, *, walk=True):
    """Return all that a render says, and how many prompts were found by following the template."""
    Watched.made.clear()
    try:
        row = templates(source)[not walk].analyse(messages, **KWARGS)
    except TemplateError as error:
        return str(error), 0
    said = row.text, [array.tolist() for array in row.runs], row.spans, row.findings
    return said, sum(made.followed_prompts for made in Watched.made)


def test_every_template_says_the_same_as_without():
    proven = {}
    names = [name for name in TEMPLATES if not name.endswith("_training")]
    for name, kind in zip(names, itertools.cycle(CHATS), strict=False):
        source = TEMPLATES[name]
        said, found = outcome(source, CHATS[kind])
        assert said == outcome(source, CHATS[kind], walk=False)[0]
        proven[name] = found
    assert sum(found >= 8 for found in proven.values()) >= 30


TURN = "<|{{ message.role }}|>{{ message.content }}<end>\n"
ASK = "{% if add_generation_prompt %}<|assistant|>{% endif %}"
LOOP = "{% for message in messages %}" + TURN + "{% endfor %}"
ONCE_THROUGH = {
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
LOOKS_AHEAD = {
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
    "looks for the last question": "{% set ns = namespace(many=true, last=messages|length - 1) %}"
    "{% for m in messages[::-1] %}{% set index = (messages|length - 1) - loop.index0 %}"
    "{% if ns.many and m.role == 'user' %}{% set ns.many = false %}{% set ns.last = index %}{% endif %}{% endfor %}"
    "{% for message in messages %}{% if loop.index0 > ns.last and (loop.last or message.reasoning_content) %}"
    "<think>{{ message.reasoning_content }}</think>{% endif %}" + TURN + "{% endfor %}" + ASK,
    "notes the last question": "{% set ns = namespace(last=-1) %}{% for m in messages %}{% if m.role == 'user' %}"
    "{% set ns.last = loop.index0 %}{% endif %}{% endfor %}{% for message in messages %}"
    "{{ '<think>' ~ message.reasoning_content ~ '</think>' if loop.index0 > ns.last else '' }}" + TURN
    + "{% endfor %}" + ASK,
    "looks at all that is to come": "{% for message in messages %}{% set ns = namespace(done=false) %}"
    "{% for later in messages[loop.index:] %}{% if later.role == 'assistant' and 'tool_calls' not in later %}"
    "{% set ns.done = true %}{% endif %}{% endfor %}{{ '~' if ns.done }}" + TURN + "{% endfor %}" + ASK,
    "counts down": "{% for i in range(messages | length) %}{% set message = messages[i] %}" + TURN
    + "{{ '!' if messages | length - i == 3 }}{% endfor %}" + ASK,
    "compares what it kept with what is to come": "{% set ns = namespace(n=0, kept='') %}{% for message in messages %}"
    "{% if message.role == 'user' %}{% set ns.n = ns.n + 2 %}{% set ns.kept = message.content %}{% endif %}"
    "{{ '+' if ns.n > messages | length }}{{ ns.kept[:3] }}" + TURN + "{% endfor %}"
    "{{ ns.n if add_generation_prompt }}" + ASK,
    "sets something before it looks": "{% set most = messages | length - 3 %}{% set last = messages[-1].role %}"
    "{% for message in messages %}{{ '^' if loop.index > most }}{{ '$' if last == 'user' }}" + TURN + "{% endfor %}" + ASK,
    "stops early": "{% for message in messages %}{% if loop.index > 9 %}{% break %}{% endif %}" + TURN + "{% endfor %}"
    "{% for message in messages[9:] %}{% if loop.first %}{% continue %}{% endif %}" + TURN + "{% endfor %}" + ASK,
    "prints what is far behind": "{% for message in messages %}{{ messages[:loop.index0][-2:] | map(attribute='role') "
    "| join(' ') }}" + TURN + "{% endfor %}" + ASK,
    "gives its loop away": "{% macro end(l) %}{{ '~' if l.last }}{% endmacro %}{% for message in messages %}" + TURN
    + "{{ end(loop) }}{% endfor %}" + ASK,
}  # fmt: skip


@pytest.mark.parametrize("name", ONCE_THROUGH)
def test_what_goes_through_the_messages_once_is_proven(name):
    for messages in (chat(30), chat(30, system=True)):
        said, found = outcome(ONCE_THROUGH[name], messages)
        assert said == outcome(ONCE_THROUGH[name], messages, walk=False)[0]
        assert found >= 29


@pytest.mark.parametrize("kind", CHATS)
@pytest.mark.parametrize("name", LOOKS_AHEAD)
def test_what_may_depend_on_later_messages_is_never_passed_over(name, kind):
    assert outcome(LOOKS_AHEAD[name], CHATS[kind])[0] == outcome(LOOKS_AHEAD[name], CHATS[kind], walk=False)[0]


@pytest.mark.parametrize(
    "name", ["what is kept tells the end", "looks for the last question", "notes the last question", "counts down"]
)
@pytest.mark.parametrize("kind", [lambda size: chat(size // 2), lambda size: agents(size // 8 * 3, size // 8)])
def test_what_is_rendered_grows_as_the_conversation_does(name, kind):
    source = {**ONCE_THROUGH, **LOOKS_AHEAD}[name]
    assert_grows_evenly(source, kind, (100, 200, 400))


@pytest.mark.parametrize("name", ["qwen3", "glm4moe", "gptoss", "qwen3_5_think", "nemotron_3_nano", "lfm2_2_5"])
def test_what_a_model_s_template_renders_grows_as_the_conversation_does(name):
    assert_grows_evenly(TEMPLATES[name], lambda size: agents(size // 8 * 3, size // 8), (100, 200))


def assert_grows_evenly(source, kind, sizes):
    """Check that twice the messages take about twice the turns of loops, whatever is rendered for them."""
    ran = []
    for size in sizes:
        said, _ = outcome(source, kind(size))
        assert len(said) == 4
        ran.append(Watched.made[0].all_ran)
    assert all(after < 2.5 * before for before, after in itertools.pairwise(ran)), ran
    assert ran[-1] < 20 * sizes[-1]


KEEPS_A_CYCLE = (
    "{% set next = cycler('a', 'b') %}{% for m in messages %}<{{ m.role }}>{{ m.content }}</s>{% endfor %}<assistant>"
)


def test_a_conversation_of_too_many_prompts_is_refused_before_one_is_rendered():
    template = Template(KEEPS_A_CYCLE, "template")
    plain, template._renderer._plain = template._renderer._plain, None
    with pytest.raises(
        TemplateError, match=r"of 3,000 turns have to be rendered one by one: 9,000,000 messages, and 2,"
    ):
        template.analyse(chat(3_000), **KWARGS)
    template._renderer._plain = plain
    assert len(template.analyse(chat(30), **KWARGS).spans) == 30


@pytest.mark.parametrize("name", ["qwen2_5", "llama3", "qwen3"])
def test_four_times_the_turns_cost_four_times_as_much_at_most(name):
    """A conversation of thousands of turns is rendered in proportion to its turns, which is counted in calls."""
    compiled = compile_template(TEMPLATES[name])
    turn = [{"role": "user", "content": "Hi?"}, {"role": "assistant", "content": "Ho."}]
    calls = [_calls(lambda turns=turns: compiled.analyse(turn * turns, **KWARGS)) for turns in (150, 600)]
    assert calls[1] < 4.4 * calls[0]


def _calls(work):
    """Return how many functions are called, those of C too, until `work` is done."""
    count = 0

    def note(_frame, event, _argument):
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(before)
    return count
