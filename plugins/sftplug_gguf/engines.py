"""A GGUF file in the hands of the programs that read it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr
from importlib.metadata import version
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sftplug import ServedModel, render_prompt
from sftplug_gguf.vocabulary import split_digits

if TYPE_CHECKING:
    from torch import Tensor

INSTALL_LLAMA = "pip install 'sftplug[llama_cpp]'"
SHORTEST = 512
"""Tokens that a context of llama.cpp has at least; it is made anew for a longer row."""


def has_llama_cpp() -> bool:
    """Whether llama.cpp is there."""
    return find_spec("llama_cpp") is not None


class LlamaCppModel(ServedModel):
    """llama.cpp itself, by the library llama-cpp-python."""

    def __init__(self, file: Path) -> None:
        """Read the file; the context is as long as rows need it."""
        self.engine = f"llama.cpp ({version('llama-cpp-python')})"
        self._file, self._length = file, 0
        self._model: Any = None
        self._open(SHORTEST)

    def _open(self, length: int) -> Any:
        if length > self._length:
            from llama_cpp import Llama

            self.close()
            self._length = max(length, SHORTEST)
            self._model = Llama(str(self._file), n_ctx=self._length, logits_all=True, verbose=False)
        return self._model

    def close(self) -> None:
        """Let go of weights and context."""
        if self._model is not None:
            self._model.close()

    def text_ids(self, text: str) -> list[int]:
        """Return the ids; llama.cpp's server puts the first token before what does not begin with it."""
        adds = self._metadata("add_bos_token") == "true" and not text.startswith(self._first())
        return list(self._model.tokenize(text.encode(), add_bos=adds, special=True))

    def chat_ids(self, messages: Sequence[Mapping[str, Any]]) -> list[int]:
        """Return the ids of a conversation, rendered by llama-cpp-python with the file's template."""
        from llama_cpp.llama_chat_format import Jinja2ChatFormatter

        end = self._token(int(self._metadata("eos_token_id") or -1))
        template = self._model.metadata["tokenizer.chat_template"]
        formatted = Jinja2ChatFormatter(template, end, self._first())(messages=[dict(each) for each in messages])
        return self.text_ids(formatted.prompt)

    def _metadata(self, name: str) -> str | None:
        value = self._model.metadata.get(f"tokenizer.ggml.{name}")
        return None if value is None else str(value)

    def _first(self) -> str:
        return self._token(int(self._metadata("bos_token_id") or -1))

    def _token(self, index: int) -> str:
        return str(self._model._model.token_get_text(index)) if index >= 0 else ""

    def logits(self, ids: Sequence[int]) -> Tensor:
        """Return the logits at each of the tokens, from an empty cache."""
        import torch

        model = self._open(len(ids) + 1)
        model.reset()
        model.eval(list(ids))
        return torch.from_numpy(model.scores[: len(ids)].copy())

    def reply(self, ids: Sequence[int], most: int) -> list[int]:
        """Return what follows, up to a token at which llama.cpp ends a generation."""
        from llama_cpp import llama_vocab_is_eog

        model = self._open(len(ids) + most + 1)
        said: list[int] = []
        model.reset()
        model.eval(list(ids))
        while len(said) < most:
            token = int(model.scores[model.n_tokens - 1].argmax())
            if llama_vocab_is_eog(model._model.vocab, token):
                break
            said.append(token)
            model.eval([token])
        return said


class TransformersModel(ServedModel):
    """transformers' own reader of GGUF: a second pair of eyes where llama.cpp is not installed."""

    def __init__(self, file: Path, trained: Path) -> None:
        """Read the file. `trained` is the folder of the model that it was made of."""
        import torch
        from gguf import GGUFReader
        from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

        self.engine = f"transformers' GGUF reader ({version('transformers')})"
        config = AutoConfig.from_pretrained(trained).get_text_config()
        # The reader does not know all that a file says (size of heads, scaled positions): weights and names are
        # compared, and the configuration is that of training. It has none of Mistral's, a Llama for llama.cpp.
        known = {} if config.model_type == "mistral" else {"config": config}
        with redirect_stderr(StringIO()):  # a progress bar of its own, which no setting turns off
            self._model: Any = AutoModelForCausalLM.from_pretrained(
                file.parent, gguf_file=file.name, dtype=torch.float32, **known
            ).eval()
            self._tokenizer: Any = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
        told = GGUFReader(file)
        if value_of(told, "tokenizer.ggml.pre") == "smollm":
            split_digits(self._tokenizer)
        # Of the file, not of the configuration: an engine stops at these.
        ends = [value_of(told, f"tokenizer.ggml.{name}_token_id") for name in ("eos", "eot")]
        self._ends: list[int] = [index for index in ends if index is not None]

    def text_ids(self, text: str) -> list[int]:
        """Return the ids of a text, as it is."""
        return list(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def chat_ids(self, messages: Sequence[Mapping[str, Any]]) -> list[int]:
        """Return the ids of a conversation in the file's template."""
        return self.text_ids(render_prompt(self._tokenizer, messages))

    def logits(self, ids: Sequence[int]) -> Tensor:
        """Return the logits at each of the tokens."""
        import torch

        with torch.inference_mode():
            logits: Tensor = self._model(input_ids=torch.tensor([list(ids)]), use_cache=False).logits[0]
        return logits

    def reply(self, ids: Sequence[int], most: int) -> list[int]:
        """Return what follows, up to the end token of the file."""
        import torch

        given = torch.tensor([list(ids)])
        how = {"do_sample": False, "max_new_tokens": most, "eos_token_id": self._ends or None}
        with torch.inference_mode():
            out = self._model.generate(input_ids=given, attention_mask=torch.ones_like(given), **how)
        said: list[int] = out[0, len(ids) :].tolist()
        return said[: next((at for at, token in enumerate(said) if token in self._ends), len(said))]


def value_of(file: Any, key: str) -> Any:
    """Return what a GGUF file says under a key; None where it says nothing."""
    field = file.get_field(key)
    return None if field is None else field.contents()
