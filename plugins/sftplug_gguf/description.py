"""All that the file says beside the weights: the model, its tokenizer, its template, and how it is sampled."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from sftplug import render_prompt
from sftplug_gguf.families import Family, metadata
from sftplug_gguf.vocabulary import Vocabulary

if TYPE_CHECKING:
    from transformers import GenerationConfig, PretrainedConfig, PreTrainedTokenizerBase

FILE_TYPES = {
    "f32": 0,
    "f16": 1,
    "q4_0": 2,
    "q4_1": 3,
    "q8_0": 7,
    "q5_0": 8,
    "q5_1": 9,
    "bf16": 32,
}
"""``general.file_type`` by the type of most matrices (GGUF specification)."""
QUANTIZATION_VERSION = 2
"""Of the blocks' layout (GGUF specification)."""


def described(name: str, family: Family, config: PretrainedConfig, outtype: str) -> dict[str, Any]:
    """Return key -> value for what the model is."""
    return {
        "general.type": "model",
        "general.name": name,
        "general.file_type": FILE_TYPES[outtype],
        "general.quantization_version": QUANTIZATION_VERSION,
        **metadata(family, config),
    }


def described_tokenizer(
    words: Vocabulary, tokenizer: PreTrainedTokenizerBase, generation: GenerationConfig
) -> dict[str, Any]:
    """Return key -> value for the tokenizer, the template, and the tokens at which a reply ends."""
    keys: dict[str, Any] = {
        "model": words.model,
        "pre": words.pre,
        "tokens": words.tokens,
        "token_type": words.types,
        "merges": words.merges,
        "scores": words.scores,
        **dict(_special(tokenizer, generation)),
        "add_bos_token": _adds_first(tokenizer),
        "add_eos_token": False,
        "add_space_prefix": words.space_prefix,
    }
    written = {f"tokenizer.ggml.{name}": value for name, value in keys.items() if value not in ((), None)}
    template = tokenizer.chat_template
    return written | ({"tokenizer.chat_template": template} if isinstance(template, str) else {})


def _special(tokenizer: PreTrainedTokenizerBase, generation: GenerationConfig) -> Iterator[tuple[str, int | None]]:
    """Yield the ids of the tokens with a meaning: the first of a text, that of padding, and the ends of a reply.

    A generation has as many ends as it likes; the file has one of a text, and one of a turn.
    """
    yield "bos_token_id", tokenizer.bos_token_id
    yield "padding_token_id", tokenizer.pad_token_id
    yield "unknown_token_id", tokenizer.unk_token_id
    ends = ends_of(tokenizer, generation)
    yield "eos_token_id", ends[0] if ends else None
    yield "eot_token_id", ends[1] if len(ends) > 1 else None


def ends_of(tokenizer: PreTrainedTokenizerBase, generation: GenerationConfig) -> list[int]:
    """Return the ids of the tokens at which a reply ends; those of the trained model's generation come first."""
    given = generation.eos_token_id
    ids = [*given] if isinstance(given, list | tuple) else [given]
    return [*dict.fromkeys(index for index in (*ids, tokenizer.eos_token_id) if index is not None)]


def _adds_first(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether a prompt begins with the token of a beginning: where there is a template, as that renders it.

    A tokenizer may put it before a bare text and the template leave it out, and rows are trained as the template has
    them. llama.cpp puts none before a prompt that begins with it.
    """
    first = tokenizer.bos_token
    if first is None:
        return False
    if isinstance(tokenizer.chat_template, str):
        return render_prompt(tokenizer, [{"role": "user", "content": "a"}]).startswith(first)
    return bool(tokenizer("a")["input_ids"][0] == tokenizer.bos_token_id)


def described_sampling(generation: GenerationConfig) -> dict[str, Any]:
    """Return key -> value for how a reply is drawn, where the model says so."""
    if not generation.do_sample:
        return {}
    named = {"temp": "temperature", "top_k": "top_k", "top_p": "top_p", "min_p": "min_p"}
    values = {name: getattr(generation, ours, None) for name, ours in named.items()}
    return {f"general.sampling.{name}": value for name, value in values.items() if value is not None}
