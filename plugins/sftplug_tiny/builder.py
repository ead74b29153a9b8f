"""Build a tokenizer and a small model, and pretrain it briefly."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from sftplug import Field, ModelBuilder
from sftplug_tiny.world import prose

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

SPECIAL = ("<|endoftext|>", "<|pad|>", "<|im_start|>", "<|im_end|>")


class Tiny(ModelBuilder):
    """A small Llama or Qwen3 with its own tokenizer, pretrained for a moment on a small world of facts."""

    type: Literal["tiny"] = "tiny"
    architecture: Literal["llama", "qwen3"] = "llama"
    """Family of the model."""
    vocab_size: int = Field(1024, ge=300)
    """Size of the byte-level BPE vocabulary."""
    hidden_size: int = Field(128, gt=0, multiple_of=32)
    """Width of the model."""
    layers: int = Field(3, gt=0)
    """Number of layers."""
    pretrain_steps: int = Field(400, ge=0)
    """Steps of pretraining on prose; 0 leaves the weights random."""
    learning_rate: float = Field(4e-3, gt=0)
    """Highest learning rate of the pretraining."""
    seed: int = 0
    """Seed of the weights and of the order of the prose."""

    def build(self, directory: Path) -> None:
        """Write tokenizer, configuration and weights."""
        import torch

        tokenizer = build_tokenizer(self.vocab_size)
        # The run's own random state must not depend on whether the model came from the cache.
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            model = self._model(tokenizer)
            if self.pretrain_steps:
                self._pretrain(model, tokenizer)
        model.save_pretrained(directory)
        tokenizer.save_pretrained(directory)

    def _model(self, tokenizer: PreTrainedTokenizerFast) -> PreTrainedModel:
        from transformers import AutoConfig, AutoModelForCausalLM

        heads = self.hidden_size // 32
        config = AutoConfig.for_model(
            self.architecture,
            vocab_size=len(tokenizer),
            hidden_size=self.hidden_size,
            intermediate_size=self.hidden_size * 3,
            num_hidden_layers=self.layers,
            num_attention_heads=heads,
            num_key_value_heads=heads,
            head_dim=32,
            max_position_embeddings=8192,  # rotary: longer rows cost no parameter
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
        return AutoModelForCausalLM.from_config(config)

    def _pretrain(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> None:
        import torch

        optimizer = torch.optim.AdamW(model.parameters(), lr=self.learning_rate, betas=(0.9, 0.95), weight_decay=0.01)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, self.learning_rate, total_steps=self.pretrain_steps, pct_start=0.1
        )
        blocks = _blocks(tokenizer, self.seed)
        from rich.progress import Progress

        with Progress(transient=True) as bar:  # which goes however this ends
            for step in bar.track(range(self.pretrain_steps), description="pretraining the base model"):
                batch = _batch(blocks, step, self.seed)
                model(input_ids=batch, labels=batch).loss.backward()
                torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                schedule.step()
                optimizer.zero_grad()


def build_tokenizer(vocab_size: int) -> PreTrainedTokenizerFast:
    """Return a byte-level BPE tokenizer trained on the prose, with the control tokens of ChatML and no template."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer: Any = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIAL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(prose(seed=0, rounds=4), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|endoftext|>",
        pad_token="<|pad|>",
        extra_special_tokens=["<|im_start|>", "<|im_end|>"],
    )


_LENGTH = 128
_BATCH = 16


def _blocks(tokenizer: PreTrainedTokenizerFast, seed: int) -> Tensor:
    """Return (N, 128) token ids of prose, paragraphs separated by the end-of-text token.

    Each tenth stands between the control tokens of ChatML, as chats do in what most base models of today have read.
    Rows of tokens that no text holds stay all alike, and an adapter beside frozen embeddings could never tell them
    apart: it would end no turn.
    """
    import torch

    texts = [
        f"<|im_start|>{paragraph}<|im_end|>" if index % 10 == 9 else f"{paragraph}{tokenizer.eos_token}"
        for index, paragraph in enumerate(prose(seed, rounds=40))
    ]
    ids = torch.tensor([token for row in tokenizer(texts)["input_ids"] for token in row])
    return ids[: len(ids) // _LENGTH * _LENGTH].view(-1, _LENGTH)


def _batch(blocks: Tensor, step: int, seed: int) -> Tensor:
    import torch

    generator = torch.Generator().manual_seed(seed * 1_000_003 + step)
    return blocks[torch.randint(len(blocks), (_BATCH,), generator=generator)]
