"""Decoder layers that are built alike take alike: one of each kind is run, and its share counted for the others.

The first layer is run for itself, because gradients end there, and so is the last. The others pass on what they get.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from sftplug.planning.live import MemorySection

if TYPE_CHECKING:
    from sftplug.planning.live import MemoryTracker


class Layers:
    """The decoder layers of a model, and which of them stand for the others."""

    def __init__(self, layers: Sequence[nn.Module]) -> None:
        self._layers = layers
        last = len(layers) - 1
        # Of six layers that are built alike [0, 1, 1, 1, 1, 5] are run: the second stands for those up to the last.
        # From the back: of each kind the first layer is the one that stays in the dict.
        kinds = {_kind(layers[index]): index for index in range(last - 1, 0, -1)}
        self._like = [0, *(kinds[_kind(layer)] for layer in layers[1:last]), last]
        self._live: MemoryTracker | None = None
        self._others: tuple[Any, ...] | None = None
        for index, layer in enumerate(layers):
            layer.register_forward_pre_hook(partial(self._before, index), with_kwargs=True)
            if index not in self.run:
                layer.forward = self._pass_on
            else:
                layer.register_forward_hook(partial(self._after, index))

    @property
    def run(self) -> list[int]:
        """Return the numbers of the layers that are run."""
        return sorted(set(self._like))

    @property
    def skipped(self) -> list[nn.Module]:
        """Return the layers that are not run."""
        return [layer for index, layer in enumerate(self._layers) if index not in self.run]

    def watch(self, live: MemoryTracker | None) -> None:
        """Cut the forward pass that follows into sections, and the backward pass that belongs to it; None ends that."""
        self._live = live

    def everything(self, sections: Sequence[MemorySection]) -> list[MemorySection]:
        """Return the sections of all layers, those of the layers that were run in place of the others.

        Raises RuntimeError when the passes went another way than layer by layer.
        """
        names = [section.name for section in sections]
        forward, backward = [f"forward {index}" for index in self.run], [f"backward {i}" for i in self.run[:0:-1]]
        if names != ["embeddings", *forward, "norm", "head", *backward, "end"]:
            raise RuntimeError(f"layers do not follow each other: {', '.join(names)}")
        known = {section.name: section for section in sections}
        up = [known[f"forward {index}"] for index in self._like]
        down = [known[f"backward {index}"] for index in self._like[:0:-1]]
        return [known["embeddings"], *up, known["norm"], known["head"], *down, known["end"]]

    def _pass_on(self, *args: Any, **kwargs: Any) -> Any:
        """Stand for the ``forward`` of a layer that is not run."""
        hidden = _hidden(args, kwargs)
        return hidden if self._others is None else (hidden, *self._others)

    def _before(self, index: int, module: nn.Module, args: Any, kwargs: Any) -> None:
        """Cut before a layer: what came in before the one that lies behind is gone only now."""
        live = self._live
        if live is None:
            return  # the layer is run again, for its activations
        if index == 0:
            live.cut("embeddings")
        elif index - 1 in self.run:
            live.cut(f"forward {index - 1}")
        if index > 0 and index in self.run:
            # When the gradient of its input is there, the backward pass of a layer is done.
            _hidden(args, kwargs).register_hook(lambda _: live.cut(f"backward {index}"))

    def _after(self, index: int, module: nn.Module, args: Any, output: Any) -> None:
        live = self._live
        if live is None:
            return
        self._others = tuple(output[1:]) if isinstance(output, tuple) else None
        if index == len(self._layers) - 1:
            live.cut(f"forward {index}")
            (output[0] if isinstance(output, tuple) else output).register_hook(lambda _: live.cut("head"))


def find_layers(model: nn.Module, count: int) -> Layers | None:
    """Return the `count` decoder layers of `model`, prepared; None where they cannot be told, or are few."""
    found = [module for module in model.modules() if isinstance(module, nn.ModuleList) and len(module) == count]
    layers = Layers(list(found[0])) if len(found) == 1 and count > 3 else None
    return layers if layers is not None and layers.skipped else None


def _hidden(args: Any, kwargs: Any) -> Any:
    return args[0] if args else kwargs["hidden_states"]


def _kind(layer: nn.Module) -> tuple[Any, ...]:
    """Return what two layers have in common that take and compute the same."""
    tensors = [*layer.named_parameters(), *layer.named_buffers()]
    shapes = tuple((name, tensor.shape, tensor.dtype, tensor.requires_grad) for name, tensor in tensors)
    return shapes, tuple((name, type(module), *_options(module)) for name, module in layer.named_modules())


def _options(module: nn.Module) -> Iterator[tuple[str, Any]]:
    """Yield the numbers and words that a module was made with; its own number says nothing."""
    for name, value in sorted(vars(module).items()):
        if name != "layer_idx" and isinstance(value, bool | int | float | str | torch.dtype):
            yield name, value
