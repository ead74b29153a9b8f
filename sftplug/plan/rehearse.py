"""Rehearse an update: the model's own code runs, forward and backward, on tensors that have a shape and no numbers.

Every tensor that it makes is counted from its birth to its death, so what is found is what the modules, the adapter
and autograd really keep, whatever their architecture; nothing is computed. Korthikanti et al. 2022 (arXiv:2205.05198)
derive the same sum by hand for GPT; `closed_form` has their formula for models whose code does not run without numbers.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from sftplug.errors import ModelError

if TYPE_CHECKING:
    from torch import Tensor

    from sftplug.plan.settings import Settings

_TILE = (4096, 32768)
"""Tokens and vocabulary of a tile in which TRL's fused head computes logits."""


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """What a forward and backward pass of one batch takes, in bytes, beside weights and optimizer state."""

    peak: int
    """At the most crowded moment, gradients of the weights included."""
    kept: int
    """What the forward pass keeps, before there are logits."""
    flops: float
    """Of matrix products, forward and backward."""


class Stage:
    """A model on which batches can be rehearsed."""

    def __init__(self, model: nn.Module, settings: Settings) -> None:
        """Give the weights of `model`, which are on the meta device, shapes without numbers on a CPU."""
        self.settings = settings
        self._fake = FakeTensorMode()
        self._model: Any = model
        with self._fake:
            _materialize(model)
        model.train()
        unwrap = getattr(model, "get_base_model", None)
        self._base: Any = unwrap() if callable(unwrap) else model
        if settings.checkpointing:
            self._checkpoint()

    def _checkpoint(self) -> None:
        # The other kind leaves cycles of tensors here, which would be counted until they are collected.
        self._base.enable_input_require_grads()
        try:
            self._base.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": True})
        except ValueError as error:
            raise ModelError(f"the model cannot recompute its activations: {error}") from error

    def rehearse(self, batch: int, length: int, scored: int) -> Rehearsal:
        """Run `batch` rows of `length` tokens, of which `scored` positions a row have logits.

        Raises what the model's code raises when it cannot run without numbers.
        """
        live, flops = _Live(), FlopCounterMode(display=False, custom_mapping=_CPU_ATTENTION)
        accumulate = self.settings.accumulation > 1
        with self._fake:
            for parameter in self._model.parameters():
                # In later batches of an update the gradients are there from the start.
                parameter.grad = torch.empty_like(parameter) if accumulate and parameter.requires_grad else None
            ids = torch.zeros(batch, length, dtype=torch.long)
            inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "use_cache": False}
            with flops, live, _autocast(self.settings):
                loss, kept, head = self._forward(inputs, scored, live)
                at_head = live.bytes + head
                torch.autograd.backward(loss)
        there = sum(_bytes(p) for p in self._model.parameters() if p.requires_grad) if accumulate else 0
        return Rehearsal(max(live.peak, at_head) + there, kept, float(flops.get_total_flops()))

    def _forward(self, inputs: Mapping[str, Any], scored: int, live: _Live) -> tuple[Tensor, int, int]:
        """Return the loss, what was kept before the logits, and what a fused head needs beside that."""
        batch, positions = inputs["input_ids"].shape[0], max(scored, 1)
        if not self.settings.on_cpu:
            hidden = self._hidden(inputs, 1)
            return hidden.float().sum(), live.bytes, self._fused_head(batch * positions)
        marks: list[int] = []
        head = self._base.get_output_embeddings()
        handle = head.register_forward_pre_hook(lambda *_: marks.append(live.bytes))
        logits = self._hidden(inputs, positions)
        handle.remove()
        targets = torch.zeros(logits.shape[:-1], dtype=torch.long)
        losses = functional.cross_entropy(logits.float().flatten(0, 1), targets.flatten(), reduction="none")
        return losses.sum(), marks[0] if marks else live.bytes, 0

    def _hidden(self, inputs: Mapping[str, Any], positions: int) -> Tensor:
        """Return (B, P, V) the logits of the last `positions`, where the model can leave out the others."""
        import inspect

        if "logits_to_keep" in inspect.signature(type(self._base).forward).parameters:
            logits: Tensor = self._model(**inputs, logits_to_keep=positions).logits
            return logits
        everything: Tensor = self._model(**inputs).logits
        return everything[:, -positions:]

    def _fused_head(self, tokens: int) -> int:
        """Return what TRL's fused head needs: a copy of the states, their gradient in 32 bits, a tile of logits."""
        weight = self._base.get_output_embeddings().weight
        vocabulary, width = weight.shape
        size = (self.settings.autocast or self.settings.dtype).itemsize
        tile = min(tokens, _TILE[0]) * min(vocabulary, _TILE[1]) * size
        trained = vocabulary * width * 4 if weight.requires_grad else 0
        return int(tokens * (width * (size + 4) + 7 * 4) + tile + trained)


class _Live(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch types no such classes
    """Counts the bytes of all tensors that are alive."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.bytes = 0
        self.peak = 0
        self._known: dict[int, int] = {}

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        given = {
            leaf.untyped_storage()._cdata for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)
        }
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                self._count(leaf, given)
        return result

    def _count(self, tensor: Tensor, given: set[int]) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._known or key in given:
            return
        self._known[key] = storage.nbytes()
        self.bytes += self._known[key]
        self.peak = max(self.peak, self.bytes)
        weakref.finalize(storage, self._forget, key)

    def _forget(self, key: int) -> None:
        self.bytes -= self._known.pop(key)


def _materialize(model: nn.Module) -> None:
    """Put every parameter and buffer on the CPU, without numbers; shared ones stay shared."""
    made: dict[int, Any] = {}
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                if id(parameter) not in made:
                    empty = torch.empty(parameter.shape, dtype=parameter.dtype, device="cpu")
                    made[id(parameter)] = nn.Parameter(empty, requires_grad=parameter.requires_grad)
                module._parameters[name] = made[id(parameter)]
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype, device="cpu")


def _autocast(settings: Settings) -> AbstractContextManager[Any]:
    return torch.autocast("cpu", settings.autocast) if settings.autocast is not None else nullcontext()


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _attention_flops(query: Any, key: Any, value: Any, *args: Any, **kwargs: Any) -> int:
    """Two products, of queries with keys and of weights with values."""
    batch, heads, length, width = query
    return int(2 * batch * heads * length * key[2] * (width + value[3]))


def _attention_backward_flops(grad: Any, query: Any, key: Any, value: Any, *args: Any, **kwargs: Any) -> int:
    """Five products: the weights again, and a gradient for each of the two that went into each product."""
    batch, heads, length, width = query
    return int(2 * batch * heads * length * key[2] * (3 * width + 2 * value[3]))


_CPU_ATTENTION = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention_flops,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward_flops,
}
