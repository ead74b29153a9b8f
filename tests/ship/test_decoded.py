"""Replies of a model that thinks and calls tools, as `eval` and `chat` read them; a list of ids plays the model."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import trl

import sftplug
from sftplug import Message, ToolCall
from sftplug.data.parse import ReplyReader
from sftplug.ship.chat import ChatSession, Sampling
from sftplug.ship.replies import Answering, places, scored
from sftplug_metrics.calls import ToolCallsEqual
from sftplug_tiny.builder import build_tokenizer

FOLDER = Path(trl.__file__).parent / "chat_templates"
TOOLS = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}]
CALLED = '<tool_call>\n{"name": "look", "arguments": {"at": "sky"}}\n</tool_call>'


@pytest.fixture(scope="module")
def tokenizer():
    found = build_tokenizer(1024)
    found.chat_template = (FOLDER / "qwen3.jinja").read_text()
    return found


class Actor:
    """Says what it is told to say, whatever it is asked; transformers' streamers hear it token by token."""

    device = torch.device("cpu")

    def __init__(self, tokenizer, *says):
        self._ids = [tokenizer(said, add_special_tokens=False)["input_ids"] for said in says]
        self._pad, self.asked = tokenizer.pad_token_id, []

    def generate(self, input_ids, streamer=None, **_):
        self.asked.append(input_ids)
        said = [self._ids.pop(0) for _ in input_ids]
        width = max(map(len, said))
        padded = torch.tensor([[*ids, *[self._pad] * (width - len(ids))] for ids in said])
        if streamer is not None:
            streamer.put(input_ids)
            for index in padded[0]:
                streamer.put(index[None])
            streamer.end()
        return torch.cat([input_ids, padded], dim=1)


def place(tokenizer, *messages):
    """Return the place of the last of `messages` in a row."""
    row = sftplug.encode(tokenizer, messages, TOOLS)
    (found,) = places([{"labels": row.labels, "input_ids": row.input_ids, "provenance": [0] * len(row.labels)}], None)
    return found


def test_eval_compares_calls_as_they_are_read_back_and_not_as_texts(tokenizer):
    asked = {"role": "user", "content": "Where?"}
    calls = Message("assistant", "", (ToolCall("look", {"at": "sky"}),)).to_dict()
    told = [
        asked,
        calls,
        {"role": "tool", "name": "look", "content": "blue"},
        {"role": "assistant", "content": "Blue."},
    ]
    asked_at = [place(tokenizer, asked, calls), place(tokenizer, asked, calls), place(tokenizer, *told)]
    says = [
        '<think>\n\n</think>\n\n<tool_call>{"arguments2": 1}</tool_call><|im_end|>',
        f"<think>\nUp?\n</think>\n\nI look.\n{CALLED.replace(': ', ':')}<|im_end|>",
        "<think>\n\n</think>\n\nIt is blue.<|im_end|>",
    ]
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    reader = ReplyReader.of(tokenizer, [end])
    answering = Answering(Actor(tokenizer, *says), tokenizer, [end], 3, 64, reader)
    groups = SimpleNamespace(groups=[SimpleNamespace(source=0, tags={})], sources=["rows"])
    replies = list(answering.replies(asked_at, ["a:1", "a:2", "a:3"], groups))
    assert [reply.decoded_reference.message.tool_calls for reply in replies] == [
        (ToolCall("look", {"at": "sky"}),),
        (ToolCall("look", {"at": "sky"}),),
        (),
    ]
    assert replies[1].decoded.message.reasoning_content == "Up?"
    assert replies[1].text.startswith("<think>\nUp?")  # the text is what it was
    assert "<tool_call>" in replies[0].decoded.problem
    assert scored([ToolCallsEqual()], replies)["tool_calls_equal"]["mean"] == pytest.approx(2 / 3)


def session(tokenizer, *says):
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    generation = SimpleNamespace(eos_token_id=end, pad_token_id=tokenizer.pad_token_id)
    return ChatSession(Actor(tokenizer, *says), tokenizer, generation, Sampling())


def test_chat_shows_reasoning_and_calls_apart_and_renders_the_next_turn_as_in_training(tokenizer):
    talk = session(
        tokenizer, f"<think>\nUp?\n</think>\n\nI look.\n{CALLED}<|im_end|>", "<think>\n\n</think>\n\nAye.<|im_end|>"
    )
    pieces = []
    assert talk.ask("Where?", pieces.append) == "I look."
    shown = '[thinking]\nUp?\n[answer]\nI look.\n[call] look {"at": "sky"}'
    assert (talk.shown, "".join(pieces).strip()) == (shown, shown)
    said = Message("assistant", "I look.", (ToolCall("look", {"at": "sky"}),), "Up?").to_dict()
    assert talk.messages == [{"role": "user", "content": "Where?"}, said]
    assert talk.ask("So?") == "Aye."
    prompt = tokenizer.decode(talk.model.asked[1][0])
    assert prompt == sftplug.render_prompt(tokenizer, [*talk.messages[:2], {"role": "user", "content": "So?"}])
    assert f"I look.\n{CALLED}<|im_end|>" in prompt


def test_chat_streams_words_until_something_else_begins(tokenizer):
    plain = build_tokenizer(1024)
    plain.chat_template = (FOLDER / "qwen2_5.jinja").read_text()
    talk, pieces = session(plain, f"I look at a <b>.\n{CALLED}<|im_end|>"), []
    talk.ask("Where?", pieces.append)
    assert len(pieces) > 2
    assert "".join(pieces) == 'I look at a <b>.\n[call] look {"at": "sky"}'
    talk, pieces = session(plain, "Yes, <tool_call> is a tag.<|im_end|>"), []
    assert talk.ask("What?", pieces.append) == "Yes, <tool_call> is a tag."
    assert "".join(pieces) == "Yes, <tool_call> is a tag."
    assert "'<tool_call>' stands in it" in talk.decoded.problem
