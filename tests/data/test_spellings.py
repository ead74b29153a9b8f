"""The same conversation in every spelling: each format makes the same text, ids and trained spans of it."""

import json
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest
import trl
from hypothesis import given, settings
from hypothesis import strategies as st

from sftplug import Row, RowContext
from sftplug.api.encoding import template_of
from sftplug.data.convert import convert
from sftplug.data.encoder import encoder
from sftplug.data.rendering import Policies, open_gate
from sftplug.data.tokenize import tokenize
from sftplug.recipe.model import SourceSection
from sftplug.types.ledger import Account
from sftplug_formats import Alpaca, Alternating, Columns, Messages, PromptCompletion, ShareGPT, Transcript
from sftplug_rows import MessageTrees
from sftplug_tiny.builder import build_tokenizer

QWEN = Path(trl.__file__).parent / "chat_templates" / "qwen3.jinja"
TOOL = {
    "type": "function",
    "function": {"name": "look", "description": "Look.", "parameters": {"type": "object", "properties": {}}},
}


class Exchange(NamedTuple):
    """A question and its reply."""

    asked: str
    said: str
    thought: str = ""
    calls: tuple[dict, ...] = ()
    """Arguments of the calls that are made, and answered, before it is said."""


class Talk(NamedTuple):
    """A conversation."""

    system: str
    exchanges: tuple[Exchange, ...]

    @property
    def tools(self):
        return [TOOL] if any(exchange.calls for exchange in self.exchanges) else []


# No text is a marker of a transcript, a stop or a call; all else may stand in it.
TEXTS = st.text("ab \n\t<>{}[]/|\"'\\#:,é漢🙂", min_size=1, max_size=12).map(lambda text: text.strip()).filter(bool)
VALUES = TEXTS | st.integers(-9, 9) | st.none() | st.booleans() | st.lists(TEXTS, max_size=2)
ARGUMENTS = st.dictionaries(st.sampled_from(["a", "b_c"]), VALUES, max_size=2)
PLAIN = st.builds(lambda asked, said: Exchange(asked, said), TEXTS, TEXTS)
CALLING = st.builds(
    lambda asked, said, calls: Exchange(asked, said, "", tuple(calls)),
    TEXTS,
    TEXTS,
    st.lists(ARGUMENTS, min_size=1, max_size=2),
)
THINKING = st.builds(
    lambda asked, said, thought: Exchange(asked, said, thought),
    TEXTS,
    TEXTS,
    TEXTS.filter(lambda text: "<" not in text),
)


def talks(*kinds, most=3):
    return st.builds(
        lambda system, exchanges: Talk(system, tuple(exchanges)),
        st.just("") | TEXTS,
        st.lists(st.one_of(*kinds), min_size=1, max_size=most),
    )


def messages(talk, call=lambda arguments: {"type": "function", "function": {"name": "look", "arguments": arguments}}):
    """Return the messages as OpenAI has them."""
    made = [{"role": "system", "content": talk.system}] if talk.system else []
    for exchange in talk.exchanges:
        made.append({"role": "user", "content": exchange.asked})
        if exchange.calls:
            made.append({"role": "assistant", "content": "", "tool_calls": [*map(call, exchange.calls)]})
            made += [{"role": "tool", "content": f"answer {number}"} for number, _ in enumerate(exchange.calls)]
        thought = {"reasoning_content": exchange.thought} if exchange.thought else {}
        made.append({"role": "assistant", "content": exchange.said, **thought})
    return made


# --- spellings --------------------------------------------------------------------------------------------------------


def renamed(talk, who="from", what="value", **roles):
    return [{who: roles.get(said["role"], said["role"]), what: said["content"]} for said in messages(talk)]


def sharegpt(talk):
    turns = []
    for said in messages(talk):
        if "reasoning_content" in said:
            turns.append({"from": "thinking", "value": said["reasoning_content"]})
        if "tool_calls" in said:
            calls = [call["function"] for call in said["tool_calls"]]
            turns += [{"from": "function_call", "value": json.dumps(call)} for call in calls]
            continue
        name = {"user": "human", "assistant": "gpt", "tool": "observation"}.get(said["role"], said["role"])
        turns.append({"from": name, "value": said["content"]})
    return ShareGPT(), {"conversations": turns, "tools": json.dumps(talk.tools)}


def anthropic(talk):
    turns = []
    for said in messages(talk._replace(system="")):
        blocks = [{"type": "thinking", "thinking": said["reasoning_content"]}] if "reasoning_content" in said else []
        if said["content"] and said["role"] != "tool":
            blocks.append({"type": "text", "text": said["content"]})
        for call in said.get("tool_calls", ()):
            blocks.append({"type": "tool_use", "name": "look", "input": call["function"]["arguments"]})
        if said["role"] == "tool":
            blocks = [{"type": "tool_result", "content": said["content"]}]
        turns.append({"role": "user" if said["role"] == "tool" else said["role"], "content": blocks})
    function = TOOL["function"]
    tool = {**{key: function[key] for key in ("name", "description")}, "input_schema": function["parameters"]}
    return Messages(), {"messages": turns, "system": talk.system, "tools": [tool] if talk.tools else []}


def gemini(talk):
    turns = []
    for said in messages(talk._replace(system="")):
        parts = [{"text": said["content"]}] if said["content"] and said["role"] != "tool" else []
        parts += [{"functionCall": {"name": "look", "args": call["function"]["arguments"]}} for call in called(said)]
        if said["role"] == "tool":
            parts = [{"functionResponse": {"name": "look", "response": said["content"]}}]
        turns.append({"role": {"assistant": "model", "tool": "user"}.get(said["role"], said["role"]), "parts": parts})
    tools = [{"functionDeclarations": [TOOL["function"]]}] if talk.tools else []
    system = {"parts": [{"text": talk.system}]} if talk.system else None
    format_ = Messages(column="contents", system="systemInstruction")
    return format_, {"contents": turns, "systemInstruction": system, "tools": tools}


def called(said):
    return said.get("tool_calls", ())


def responses(talk):
    items = []
    for said in messages(talk):
        if "reasoning_content" in said:
            items.append(
                {"type": "reasoning", "summary": [{"type": "summary_text", "text": said["reasoning_content"]}]}
            )
        for call in called(said):
            arguments = json.dumps(call["function"]["arguments"], ensure_ascii=False)  # which stays as it is written
            items.append({"type": "function_call", "name": "look", "arguments": arguments})
        if said["role"] == "tool":
            items.append({"type": "function_call_output", "output": said["content"]})
        elif not called(said):
            items.append({"type": "message", "role": said["role"], "content": said["content"]})
    return Messages(column="input"), {"input": items, "tools": talk.tools}


def alpaca(talk):
    *before, last = talk.exchanges
    history = [[exchange.asked, exchange.said] for exchange in before]
    return Alpaca(), {
        "instruction": last.asked,
        "input": None,
        "output": last.said,
        "system": talk.system,
        "history": history,
    }


def alternating(talk):
    texts = [text for exchange in talk.exchanges for text in (exchange.asked, exchange.said)]
    return Alternating(column="data"), {"data": texts, "system": talk.system}


def transcript(written, **markers):
    def write(talk):
        names = {role: mark.replace("_", " ") for role, mark in markers.items()}
        text = "".join(written.format(mark=names[said["role"]], text=said["content"]) for said in messages(talk))
        return Transcript(column="chosen"), {"chosen": text}

    return write


def glaive(talk):
    said = []
    for message in messages(talk._replace(system="")):
        name = {"user": "USER", "assistant": "ASSISTANT", "tool": "FUNCTION RESPONSE"}[message["role"]]
        calls = [call["function"] for call in called(message)]
        text = "".join(
            f'<functioncall> {{"name": "look", "arguments": \'{json.dumps(call["arguments"], ensure_ascii=False)}\'}} '
            for call in calls
        )
        stop = " <|endoftext|>" if message["role"] == "assistant" else ""
        said.append(f"{name}: {text or message['content']}{stop}")
    tools = "".join(f"\n{json.dumps(tool['function'], indent=4)}\n" for tool in talk.tools)
    return Transcript(column="chat"), {"chat": "\n\n\n".join(said), "system": f"SYSTEM: {talk.system}{tools}"}


def hermes(talk):
    turns = []
    for said in messages(talk._replace(system="")):
        text = "\n".join(f"<tool_call>\n{json.dumps(call['function'])}\n</tool_call>" for call in called(said))
        if said["role"] == "tool":
            text = f"<tool_response>\n{said['content']}\n</tool_response>"
        turns.append({"from": said["role"], "value": text or said["content"]})
    system = f"{talk.system}\n<tools>{json.dumps(talk.tools)}</tools>" if talk.tools else talk.system
    turns = [{"from": "system", "value": system}, *turns] if system else turns
    return ShareGPT(calls_in_text="tool_call", tools_in_system=True), {"conversations": turns}


def in_text(notation, write):
    def written(talk):
        turns = [
            {"from": said["role"], "value": write(said["tool_calls"]) if called(said) else said["content"]}
            for said in messages(talk)
        ]
        return ShareGPT(calls_in_text=notation), {"conversations": turns, "tools": talk.tools}

    return written


def as_python(calls):
    made = [", ".join(f"{key}={value!r}" for key, value in call["function"]["arguments"].items()) for call in calls]
    return f"[{', '.join(f'look({arguments})' for arguments in made)}]"


def columns(talk):
    (exchange,) = talk.exchanges
    row = {"q": exchange.asked, "a": exchange.said, "s": talk.system, "t": exchange.thought}
    return Columns(user="q", assistant="a", reasoning="t", **({"system": "s"} if talk.system else {})), row


def parted(talk):
    """Write the last reply in a column of its own, as text."""
    *before, last = messages(talk)
    return PromptCompletion(prompt="input", completion="output"), {
        "input": before,
        "output": last["content"],
        "tools": talk.tools,
    }


def as_chat(talk):
    (exchange,) = talk.exchanges
    row = {"prompt": exchange.asked, "completion": exchange.said, "system": talk.system}
    return PromptCompletion.model_validate({"as": "chat"}), row


def tree(talk):
    """Write a table of messages, and make conversations of it."""
    said = messages(talk._replace(system=""))
    table = [
        {"message_id": number, "parent_id": number - 1 if number else None, "role": one["role"], "text": one["content"]}
        for number, one in enumerate(said)
    ]
    rows = [Row(row, f"rows.jsonl:{number}") for number, row in enumerate(table)]
    (made,) = MessageTrees().stream(iter(rows), RowContext(0, "train", lambda: iter(())))
    return Messages(), {**made.data, "system": talk.system}


SPELLINGS = {
    "from and value": (talks(PLAIN), lambda talk: (ShareGPT(), {"conversations": renamed(talk)})),
    "LangChain": (
        talks(PLAIN),
        lambda talk: (Messages(), {"messages": renamed(talk, "type", "content", user="human", assistant="ai")}),
    ),
    "JSON text": (
        talks(PLAIN, CALLING, THINKING),
        lambda talk: (Messages(), {"messages": json.dumps(messages(talk)), "tools": json.dumps(talk.tools)}),
    ),
    "ShareGPT": (talks(PLAIN, CALLING, THINKING), sharegpt),
    "Anthropic": (talks(PLAIN, CALLING, THINKING), anthropic),
    "Gemini": (talks(PLAIN, CALLING), gemini),
    "Responses": (talks(PLAIN, CALLING, THINKING), responses),
    "Alpaca": (talks(PLAIN), alpaca),
    "alternating": (talks(PLAIN), alternating),
    "Guanaco": (
        talks(PLAIN).map(lambda talk: talk._replace(system="")),
        transcript("{mark} {text}", user="###_Human:", assistant="###_Assistant:"),
    ),
    "HH-RLHF": (
        talks(PLAIN).map(lambda talk: talk._replace(system="")),
        transcript("\n\n{mark} {text}", user="Human:", assistant="Assistant:"),
    ),
    "Vicuna": (talks(PLAIN), transcript(" {mark} {text}", user="USER:", assistant="ASSISTANT:", system="SYSTEM:")),
    "Glaive": (talks(PLAIN, CALLING), glaive),
    "Hermes": (talks(PLAIN, CALLING), hermes),
    "calls as Python": (talks(PLAIN, CALLING), in_text("python", as_python)),
    "calls as JSON": (
        talks(PLAIN, CALLING),
        in_text("json", lambda calls: json.dumps([call["function"] for call in calls])),
    ),
    "columns": (talks(PLAIN, THINKING, most=1), columns),
    "prompt and reply": (talks(PLAIN, CALLING), parted),
    "two texts": (talks(PLAIN, most=1), as_chat),
    "message trees": (talks(PLAIN), tree),
}


# --- what becomes of them ---------------------------------------------------------------------------------------------


@cache
def machine(template):
    """Return what renders and what tokenizes."""
    tokenizer = build_tokenizer(1024)
    chosen = template_of(tokenizer, QWEN.read_text() if template == "qwen3" else template)
    gate = open_gate(chosen, tokenizer, frozenset(), Policies())
    return gate, encoder(tokenizer, gate.controls(tokenizer, ()), escape=True)


def trained(template, format_, row):
    """Return (text, ids, trained ids' places) of each row that a row becomes."""
    gate, encode = machine(template)
    account, source = Account("rows.jsonl"), SourceSection.model_construct(format=format_)
    texts = [
        text for example in convert([Row(row, "rows.jsonl:1")], source, account) for text in gate.rows(example, account)
    ]
    assert texts, (row, account.reasons)
    assert not account.unread, "the format reads all of its own spelling"
    tokens = tokenize([text.conversation for text in texts], [text.rendered for text in texts], encode).tokens
    return [text.rendered.text for text in texts], tokens.ids.tolist(), tokens.trainable.tolist(), tokens.row.tolist()


@pytest.mark.parametrize("template", ["chatml", "qwen3"])
@pytest.mark.parametrize("name", SPELLINGS)
def test_a_conversation_is_the_same_in_every_spelling(name, template):
    strategy, spell = SPELLINGS[name]

    @settings(max_examples=15, deadline=None)
    @given(strategy)
    def same(talk):
        format_, row = spell(talk)
        plain = {"messages": messages(talk), "tools": talk.tools}
        assert trained(template, format_, row) == trained(template, Messages(), plain), row

    same()
