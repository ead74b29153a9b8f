"""Talk to what a run has trained, with the template that it was trained with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from sftplug.model.loading import load_base
from sftplug.model.patching import for_inference, patches_in_force
from sftplug.model.prompt import encode_prompt
from sftplug.ship.tuned import load_tuned, load_tuned_tokenizer, placed

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from sftplug.recipe.model import Recipe
    from sftplug.run import RunDirectory

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
    messages: list[dict[str, str]] = field(init=False)

    def __post_init__(self) -> None:
        """Begin."""
        self.reset()

    def reset(self) -> None:
        """Forget everything but the system prompt."""
        self.messages = [{"role": "system", "content": self.system}] if self.system is not None else []

    def ask(self, text: str, tell: Tell = lambda _: None) -> str:
        """Return the answer to `text`; `tell` gets it piece by piece."""
        import torch

        ids = torch.tensor([self._prompt(text)], device=self.model.device)
        # At each answer, so that the same conversation is answered alike, whatever was asked before it was begun.
        if self.sampling.seed is not None:
            torch.manual_seed(self.sampling.seed)
        patched = patches_in_force(self.recipe) if self.recipe is not None else nullcontext()
        with patched, _without_adapter(self.model) if self.base else nullcontext(), torch.inference_mode():
            out = self.model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                streamer=_streamer(self.tokenizer, tell),
                eos_token_id=self.generation.eos_token_id,
                pad_token_id=self.generation.pad_token_id,
                **self.sampling.options(),
            )
        reply = out[0, ids.shape[1] :]
        answer = str(self.tokenizer.decode(reply, skip_special_tokens=True)).strip()
        self.messages.append({"role": "assistant", "content": answer})
        return answer

    def _prompt(self, text: str) -> list[int]:
        """Return what the model continues: the conversation in the template of training, or the text itself."""
        self.messages.append({"role": "user", "content": text})
        said = self.messages if self.tokenizer.chat_template else text
        return encode_prompt(self.tokenizer, said, words=self.words, escape=self.escape)


def _streamer(tokenizer: PreTrainedTokenizerBase, tell: Tell) -> Any:
    """Return transformers' streamer, which hands over whole words, with `tell` in the place of print."""
    from transformers import TextStreamer

    class Streamer(TextStreamer):  # type: ignore[misc]
        def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
            tell(text)

    return Streamer(tokenizer, skip_prompt=True, skip_special_tokens=True)


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
