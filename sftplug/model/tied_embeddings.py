"""A head that shares its weights with the embeddings, and an adapter that changes one of the two alone."""

from __future__ import annotations

from typing import Any


def says_tied(config: Any) -> bool:
    """Whether a configuration says that the head shares its weights; some of images and text say it for both parts."""
    return bool(getattr(config.get_text_config(), "tie_word_embeddings", getattr(config, "tie_word_embeddings", False)))


def parted(model: Any) -> Any | None:
    """Return the head of `model`, if it shares its weights with the embeddings and an adapter changes one of the two.

    `model` is the base, with the adapter's layers in it. What PEFT trains whole or a row at a time, it parts or keeps
    together by itself.
    """
    find = getattr(model, "get_output_embeddings", None)
    head, embeddings = (find() if callable(find) else None), model.get_input_embeddings()
    if head is None or embeddings is None or _is_adapted(head) == _is_adapted(embeddings):
        return None
    return _base(head) if _base(head).weight is _base(embeddings).weight else None


def part(model: Any, head: Any) -> None:
    """Give `head` a copy of the weights that it shares with the embeddings of `model`, and say so in its configuration.

    Then the update of the one can become part of its weights, and the other stays as it was when it was trained.
    """
    from torch import nn

    head.weight = nn.Parameter(head.weight.detach().clone(), requires_grad=head.weight.requires_grad)
    for config in {id(config): config for config in (model.config, model.config.get_text_config())}.values():
        config.tie_word_embeddings = False


def _is_adapted(module: Any) -> bool:
    return hasattr(type(module), "get_base_layer") and not hasattr(module, "token_adapter")


def _base(module: Any) -> Any:
    return module.get_base_layer() if hasattr(type(module), "get_base_layer") else module
