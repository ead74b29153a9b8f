"""Talk to what a run has trained, with the template that it was trained with."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from sftplug.data.parse import ReplyReader
from sftplug.model.loading import load_base
from sftplug.model.patching import for_inference, patches_in_force
from sftplug.model.prompt import encode_prompt
from sftplug.ship.tuned import load_tuned, load_tuned_tokenizer, placed
from sftplug.types.conversation import Message, ToolCall

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from sftplug.recipe.model import Recipe
    from sftplug.run import RunDirectory
    from sftplug.types.decoded import Decoded

Tell = Callable[[str], object]
"""Takes the next piece of an answer."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How answers are drawn."""

    max_new_tokens: int = 256
    temperature: float = 0.0
    """0 takes the most likely token each time."""
    top_p: float = 1.0
    top_k: int = 50
    seed: int | None = None

    def options(self) -> dict[str, Any]:
        """Return the options of generation."""
        if not self.temperature:
            return {"max_new_tokens": self.max_new_tokens, "do_sample": False}
        drawn = {"temperature": self.temperature, "top_p": self.top_p, "top_k": self.top_k}
        return {"max_new_tokens": self.max_new_tokens, "do_sample": True, **drawn}


@dataclass(slots=True)
class ChatSession:
    """One model in conversation: it remembers what was said."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    generation: Any
    """The run's generation configuration: the tokens that end an answer, the padding token."""
    sampling: Sampling
    system: str | None = None
    base: bool = False
    """Whether the adapter is left out."""
    words: tuple[str, ...] = ()
    """Added tokens that what is said may hold; see `encode_prompt`."""
    escape: bool = True
    """Whether what is said cannot be a control token."""
    recipe: Recipe | None = None
    """The recipe, with the patches that the model computes with."""
    messages: list[dict[str, Any]] = field(init=False)
    decoded: Decoded | None = field(init=False, default=None)
    """The last answer as a message; None where no chat template asked for it."""
    shown: str = field(init=False, default="")
    """The last answer for people: its reasoning and its calls apart."""
    _reader: ReplyReader | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        """Begin."""
        self.reset()

    def reset(self) -> None:
        """Forget everything but the system prompt."""
        self.messages = [{"role": "system", "content": self.system}] if self.system is not None else []

    def ask(self, text: str, tell: Tell = lambda _: None) -> str:
        """Return what the answer to `text` says; `tell` gets the answer piece by piece, its reasoning and calls apart.

        Reasoning and calls are in `decoded`. The next question follows the answer as it is rendered in training.
        """
        import torch

        ids = torch.tensor([self._prompt(text)], device=self.model.device)
        # At each answer, so that the same conversation is answered alike, whatever was asked before it was begun.
        if self.sampling.seed is not None:
            torch.manual_seed(self.sampling.seed)
        streamed = _Streamed(tell, *self._held())
        patched = patches_in_force(self.recipe) if self.recipe is not None else nullcontext()
        with patched, _without_adapter(self.model) if self.base else nullcontext(), torch.inference_mode():
            out = self.model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                streamer=_streamer(self.tokenizer, streamed),
                eos_token_id=self.generation.eos_token_id,
                pad_token_id=self.generation.pad_token_id,
                **self.sampling.options(),
            )
        reply = out[0, ids.shape[1] :]
        answer = str(self.tokenizer.decode(reply, skip_special_tokens=True)).strip()
        message = self._read(reply.tolist()) or Message("assistant", answer)
        self.shown = readable(message)
        streamed.finish(self.shown)
        self.messages.append(message.to_dict())
        return text_of(message).strip()

    def _read(self, reply: list[int]) -> Message | None:
        """Return an answer as a message; None where it is none that the chat template could have written."""
        self.decoded = None if self._reader is None else self._reader.read(reply, self.messages)
        understood = self.decoded is not None and not self.decoded.problem
        return self.decoded.message if self.decoded is not None and understood else None

    def _held(self) -> tuple[Sequence[str], bool]:
        """Return what ends the words of an answer, and whether it begins with a thought that is opened already."""
        if not self.tokenizer.chat_template:
            return (), False
        if self._reader is None:
            ends = self.generation.eos_token_id
            ends = ends if isinstance(ends, list) else [] if ends is None else [ends]
            self._reader = ReplyReader.of(self.tokenizer, ends, self.words)
        return self._reader.marks(self.messages)

    def _prompt(self, text: str) -> list[int]:
        """Return what the model continues: the conversation in the template of training, or the text itself."""
        self.messages.append({"role": "user", "content": text})
        said = self.messages if self.tokenizer.chat_template else text
        return encode_prompt(self.tokenizer, said, words=self.words, escape=self.escape)


def text_of(message: Message) -> str:
    """Return the words of a message."""
    if isinstance(message.content, str) or message.content is None:
        return message.content or ""
    return "".join(str(part.get("text", "")) for part in message.content)


def readable(message: Message) -> str:
    """Return a message for people: reasoning, words and calls apart."""
    words, calls = text_of(message).strip(), [_call_in_words(call) for call in message.tool_calls]
    if message.reasoning_content:
        words = f"[thinking]\n{message.reasoning_content.strip()}\n" + (f"[answer]\n{words}" if words else "")
    return "\n".join(part.rstrip() for part in [words, *calls] if part)


def _call_in_words(call: ToolCall) -> str:
    given = call.arguments
    return f"[call] {call.name} {given if isinstance(given, str) else json.dumps(given, ensure_ascii=False)}"


@dataclass(slots=True)
class _Streamed:
    """Hands on the words of an answer as they come, and what is more than words when the answer is whole."""

    tell: Tell
    marks: Sequence[str]
    held: bool
    text: str = ""
    told: str = ""

    def add(self, piece: str) -> None:
        """Take the next piece."""
        self.text += piece
        if self.held:
            return
        begin = len(self.told)
        end = next((at for at in range(begin, len(self.text)) if self._begins_at(at)), len(self.text))
        self.told += self.text[begin:end]
        if end > begin:
            self.tell(self.text[begin:end])

    def _begins_at(self, at: int) -> bool:
        """Whether a mark, or what may become one, stands at `at`."""
        rest = self.text[at:]
        return any(rest.startswith(mark) or mark.startswith(rest) for mark in self.marks)

    def finish(self, whole: str) -> None:
        """Hand on what is left of the `whole` answer."""
        told = self.told.lstrip()
        told = told if whole.startswith(told) else told.rstrip()
        rest = whole[len(told) :] if whole.startswith(told) else f"\n{whole}"
        if rest:
            self.tell(rest)


def _streamer(tokenizer: PreTrainedTokenizerBase, streamed: _Streamed) -> Any:
    """Return transformers' streamer, which hands over whole words, with `streamed` in the place of print."""
    from transformers import TextStreamer

    class Streamer(TextStreamer):  # type: ignore[misc]
        def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
            streamed.add(text)

    # A mark may be a special token; what ends an answer is one.
    return Streamer(tokenizer, skip_prompt=True, skip_special_tokens=not streamed.marks)


@contextmanager
def _without_adapter(model: Any) -> Iterator[None]:
    if hasattr(model, "disable_adapter"):
        with model.disable_adapter():
            yield
    else:
        yield


def open_chat(directory: RunDirectory, recipe: Recipe) -> ChatSession:
    """Return a conversation with the trained model."""
    from transformers import GenerationConfig

    recipe = for_inference(recipe)
    with patches_in_force(recipe):
        model, tokenizer = load_tuned(directory, recipe), load_tuned_tokenizer(directory, recipe)
    generation = GenerationConfig.from_pretrained(str(directory.path))
    said = recipe.model.add_tokens, recipe.data.special_tokens_in_content != "allow"
    return ChatSession(model, tokenizer, generation, Sampling(), None, False, *said, recipe=recipe)


def base_of(tuned: ChatSession, directory: RunDirectory, recipe: Recipe) -> ChatSession:
    """Return a conversation with the model that `tuned` was trained from; beneath PEFT's adapters, it is there."""
    if hasattr(tuned.model, "disable_adapter"):
        return replace(tuned, base=True)
    recipe = for_inference(recipe)
    with patches_in_force(recipe):
        model = placed(load_base(recipe))
    return replace(tuned, model=model, base=True)
