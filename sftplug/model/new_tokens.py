"""New tokens: given to the tokenizer, to the model's embeddings and head, and to what is trained."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from sftplug.errors import ModelError

if TYPE_CHECKING:
    from peft import PeftConfig
    from torch import nn
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def add_tokens(tokenizer: PreTrainedTokenizerBase, tokens: Sequence[str]) -> None:
    """Give `tokenizer` new special tokens, in this order. Raises ModelError for one that it has already."""
    known = tokenizer.get_vocab()
    for token in tokens:
        if token in known:
            raise ModelError(
                f"model.add_tokens: the tokenizer has {token!r} already, with the id {known[token]}. Leave it out."
            )
    tokenizer.add_tokens(list(tokens), special_tokens=True)


def resize_embeddings(model: PreTrainedModel, ids: Sequence[int]) -> None:
    """Give `model` rows for the tokens `ids`, in the embeddings and in a head of its own.

    Each new row is the mean of the rows before it: the same in every run, and as likely as an average token.
    """
    import torch

    # Many tables have more rows than the tokenizer has tokens: then a new token gets one that nobody has used.
    if max(ids) >= model.get_input_embeddings().weight.shape[0]:
        model.resize_token_embeddings(max(ids) + 1, mean_resizing=False)
    with torch.no_grad():
        for layer in _tables(model):
            for table in layer.parameters():
                table[list(ids)] = table[: min(ids)].float().mean(0).to(table.dtype)


def _tables(model: PreTrainedModel) -> Iterator[nn.Module]:
    """Yield the embeddings, and the head where it has weights of its own."""
    embeddings, head = model.get_input_embeddings(), model.get_output_embeddings()
    yield embeddings
    if head is not None and head.weight is not embeddings.weight:
        yield head


def train_new_embeddings(config: PeftConfig, model: PreTrainedModel, ids: Sequence[int]) -> None:
    """Change `config` so that the rows `ids` of embeddings and head are trained with the adapter, and no other rows.

    Raises ModelError for an adapter type that can train neither rows nor whole modules beside its own parameters.
    """
    tables = [name for table in _tables(model) for name, module in model.named_modules() if module is table]
    names = [name.rpartition(".")[2] for name in tables]
    whole = list(getattr(config, "modules_to_save", None) or ())
    missing = [name for name in names if name not in whole]
    if hasattr(config, "trainable_token_indices"):
        known = config.trainable_token_indices or {}
        # With ids 300 and 301 for new tokens, [12] becomes {"embed_tokens": [12, 300, 301], "lm_head": [300, 301]}.
        known = {names[0]: list(known)} if not isinstance(known, dict) else known
        rows = {name: [*known.get(name, ()), *ids] for name in missing}
        config.trainable_token_indices = {**known, **rows} or None
    elif hasattr(config, "modules_to_save"):
        config.modules_to_save = [*whole, *missing]
    elif missing:
        raise ModelError(no_rows(str(config.peft_type)))


def no_rows(adapter: str) -> str:
    """Return the sentence for an adapter that leaves new rows as they are."""
    return (
        f"model.add_tokens: the adapter '{adapter}' does not train the rows of the new tokens, which would stay the "
        "mean of the others. Use `lora`, `qlora` or `full`, or let `freeze` train the embeddings."
    )


def refuse_untrained(adapter: str, model: PreTrainedModel) -> None:
    """Raise ModelError when the rows of new tokens are not among what is trained of `model`, adapter and all."""
    for table in _tables(model):
        if not any(parameter.requires_grad for parameter in table.parameters()):
            raise ModelError(no_rows(adapter))
