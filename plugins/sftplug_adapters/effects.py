"""Options of a LoRA that would change nothing on a model, or more than they say."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sftplug_adapters.lora import Lora
    from sftplug_adapters.targets import Search, Targets

FROM_WEIGHTS = ("pissa", "olora", "orthogonal")
"""Initializations that compute with the weights of a layer."""


def problems_of_options(lora: Lora, search: Search, targets: Targets) -> Iterator[str]:
    """Yield a sentence for every option of `lora` that cannot be obeyed with what is adapted."""
    if lora.init == "orthogonal" and lora.r % 2:
        yield f"`init: orthogonal` needs an even rank, and `r` is {lora.r}. Set `r: {lora.r + 1}`, or another `init`."
    turned = next((name for name in targets.modules if search.is_a(name, "Conv1D")), None)
    if lora.init == "olora" and turned is not None:
        yield (
            f"`init: olora` takes {turned} for a linear layer, and it is a Conv1D, whose weight lies the other way "
            "round. Set `init: default`."
        )
    if targets.parameters:
        yield from _with_tensors(lora, targets.parameters)
    elif targets.modules and all(search.is_a(name, "Embedding") for name in targets.modules):
        yield from _with_tables(lora, targets.modules)
    if lora.bias != "none":
        yield from _biases(lora, search, targets)


def _with_tensors(lora: Lora, tensors: Sequence[str]) -> Iterator[str]:
    """Yield what PEFT cannot do where it adapts a tensor and no layer, where no input passes by."""
    places = sorted({f"*.{name.split('.')[-2]}" for name in tensors})
    wrong = {"dropout": (lora.dropout, 0), "dora": (lora.dora, "false"), "init": (lora.init, "default")}
    for option, (value, plain) in wrong.items():
        if value and (option != "init" or value in FROM_WEIGHTS):
            yield (
                f"`{option}: {str(value).lower()}` cannot be used where PEFT adapts a tensor and no layer, as it "
                f"does with experts: {tensors[0]}. Set `{option}: {plain}`, or leave such tensors out: "
                f"`exclude: {places}`."
            )


def _with_tables(lora: Lora, tables: Sequence[str]) -> Iterator[str]:
    """Yield what PEFT does not do with embeddings: it starts their updates in one way, and drops nothing."""
    for option, value, plain in (("dropout", lora.dropout, 0.0), ("init", lora.init, "default")):
        if value != plain:
            yield f"`{option}: {value}` has no effect on embeddings, and only {tables[0]} is adapted. Leave it out."


def _biases(lora: Lora, search: Search, targets: Targets) -> Iterator[str]:
    """Yield what of the model's biases would be trained and should not, and that none would be."""
    every = [name for name, _ in search.model.named_parameters() if name.endswith(".bias")]
    idle = next((name for name in every if search.structure.is_idle(name)), None)
    if lora.bias == "all" and idle is not None:
        yield (
            f"`bias: all` would train {idle} too, which rows of text do not run. Leave it out, or say "
            "`bias: lora_only`, which trains those of adapted layers."
        )
        return
    layers = {*targets.modules, *(name.rpartition(".")[0] for name in targets.parameters)}
    own = [name for name in every if name.rpartition(".")[0] in layers]
    if not (every if lora.bias == "all" else own):
        what = "the model has no biases" if not every else "no layer that is adapted has a bias"
        yield f"`bias: {lora.bias}` has no effect: {what}. Leave it out."
