"""A model of any architecture that transformers knows, with random weights."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from sftplug import Field, ModelBuilder, ModelError
from sftplug_tiny.builder import build_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast


class Random(ModelBuilder):
    """A model of any architecture that transformers knows, with random weights: what a run does, without a download."""

    type: Literal["random"] = "random"
    config: dict[str, Any] = Field(min_length=1, examples=[{"model_type": "qwen3", "hidden_size": 64}])
    """Its configuration: ``model_type``, and what shall be otherwise than in transformers' own default, which may be
    billions of parameters. The size of the vocabulary is the tokenizer's."""
    vocab_size: int = Field(1024, ge=300)
    """Size of the byte-level BPE vocabulary, control tokens left out."""
    control_tokens: list[str] = Field(default_factory=list)
    """Control tokens besides those of ChatML, such as those of a chat template."""
    eos_token: str | None = None
    """The token that ends a turn, one of the control tokens; by default ``<|endoftext|>``."""
    bos_token: str | None = None
    """The token that a text begins with, where a chat template asks for it."""
    chat_template: str | None = None
    """Jinja source of the tokenizer's chat template."""
    seed: int = 0
    """Seed of the weights."""

    def build(self, directory: Path) -> None:
        """Write tokenizer, configuration and weights."""
        import torch

        tokenizer = self._tokenizer()
        # The run's own random state must not depend on whether the model came from the cache.
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            self._model(tokenizer).save_pretrained(directory)
        tokenizer.save_pretrained(directory)

    def _tokenizer(self) -> PreTrainedTokenizerFast:
        tokenizer = build_tokenizer(self.vocab_size)
        named = [token for token in (self.eos_token, self.bos_token) if token is not None]
        tokenizer.add_tokens(list(dict.fromkeys([*self.control_tokens, *named])), special_tokens=True)
        if self.eos_token is not None:
            tokenizer.eos_token = self.eos_token
        if self.bos_token is not None:
            tokenizer.bos_token = self.bos_token
        if self.chat_template is not None:
            tokenizer.chat_template = self.chat_template
        return tokenizer

    def _model(self, tokenizer: PreTrainedTokenizerFast) -> PreTrainedModel:
        from transformers import AutoConfig

        kind, options = self.config.get("model_type"), {k: v for k, v in self.config.items() if k != "model_type"}
        ids = {
            "vocab_size": len(tokenizer),
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        }
        # Of a model that takes images too, these are figures of its language model.
        options |= {"text_config": {**options["text_config"], **ids}} if "text_config" in options else ids
        try:
            config = AutoConfig.for_model(kind, **options)
            return _class_for(config).from_config(config)
        except Exception as error:  # what a configuration may say is transformers' affair, in errors of its own
            raise ModelError(f"`config` makes no model: {type(error).__name__}: {error}") from error


def _class_for(config: Any) -> Any:
    """Return the class that makes the model: where there is one of text and one of images too, `config` may name it."""
    from transformers import (
        MODEL_FOR_CAUSAL_LM_MAPPING,
        MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
        AutoModelForCausalLM,
        AutoModelForImageTextToText,
    )

    kind = type(config)
    if kind not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING:
        return AutoModelForCausalLM
    named = MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING[kind].__name__ in (config.architectures or ())
    return AutoModelForImageTextToText if named or kind not in MODEL_FOR_CAUSAL_LM_MAPPING else AutoModelForCausalLM
