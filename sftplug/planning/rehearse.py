"""Rehearse an update: the model's own code runs, forward and backward, on tensors that have a shape and no numbers.

Every tensor that it makes is counted from its birth to its death, so what is found is what the modules, the adapter
and autograd really keep, whatever their architecture; nothing is computed. Korthikanti et al. 2022 (arXiv:2205.05198)
derive the same sum by hand for GPT; `closed_form` has their formula for models whose code does not run without numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from sftplug.errors import ModelError
from sftplug.planning.layers import Layers, find_layers
from sftplug.planning.live import MemorySection, MemoryTracker, highest

if TYPE_CHECKING:
    from torch import Tensor

    from sftplug.planning.fake_loss import FakeLoss
    from sftplug.planning.settings import Settings
    from sftplug.training.scores import Scores

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


class FakeModel:
    """A model on which batches can be rehearsed."""

    def __init__(self, model: nn.Module, settings: Settings, loss: FakeLoss, *, whole: bool = False) -> None:
        """Give the weights of `model`, which are on the meta device, shapes without numbers on a CPU; `loss` its own.

        Of decoder layers that are built alike one is run for all, unless the model is to be run as a `whole`.
        """
        self.settings, self.loss = settings, loss
        self._fake = FakeTensorMode()
        self._model: Any = model
        self._pass = cache(self._run)
        unwrap: Any = getattr(model, "get_base_model", None)
        base: Any = unwrap() if callable(unwrap) else model
        self._base = base
        count = int(base.config.get_text_config().num_hidden_layers)
        self._layers: Layers | None = None if whole else find_layers(model, count)
        skipped = [part for layer in self._layers.skipped for part in layer.modules()] if self._layers else []
        with self._fake:
            _materialize(model, frozenset(map(id, skipped)))
            if loss.teacher is not None:
                _materialize(loss.teacher, frozenset())
        model.train()
        self._gradients = sum(_bytes(parameter) for parameter in model.parameters() if parameter.requires_grad)
        if settings.checkpointing:
            self._checkpoint()

    def _checkpoint(self) -> None:
        # As TRL does for an adapter: gradients go back to what the embeddings put out, frozen as these are.
        self._base.enable_input_require_grads()
        try:
            self._base.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        except ValueError as error:
            raise ModelError(f"the model cannot recompute its activations: {error}") from error

    def rehearse(self, batch: int, length: int, scored: int, *, accumulate: bool = False) -> Rehearsal:
        """Run `batch` rows of `length` tokens, of which `scored` positions a row have logits.

        A mask is counted, as a batch with padding has one. Where batches `accumulate`, gradients are there before.
        Raises what the model's code raises when it cannot run without numbers.
        """
        positions = max(scored, 1)
        there = self._gradients if accumulate else 0
        if self.loss.makes_logits:
            sections, _ = self._pass(batch, length, positions, accumulate)
            rest = MemorySection("pieces", 0, 0, self.loss.left_out(self._model, batch * positions))
            return self._result([*sections, rest], there)
        # A fused head is not run but counted, so that one pass serves for all numbers of positions.
        sections, before = self._pass(batch, length, 1, accumulate)
        size, flops = self._fused_head(batch * positions)
        head = [section.name for section in sections].index("norm") + 1
        peak = max(sections[head].peak, before + size)
        fused = replace(sections[head], peak=peak, flops=sections[head].flops + flops)
        return self._result([*sections[:head], fused, *sections[head + 1 :]], there)

    def _run(self, batch: int, length: int, positions: int, accumulate: bool) -> tuple[list[MemorySection], int]:
        """Return the sections of a pass, and the bytes from the last norm to where there are logits."""
        live = MemoryTracker()
        with self._fake:
            for parameter in self._model.parameters():
                # In later batches of an update the gradients are there from the start.
                there = accumulate and parameter.requires_grad and not parameter.is_meta
                parameter.grad = torch.empty_like(parameter) if there else None
            ids = torch.zeros(batch, length, dtype=torch.long)
            inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
            with live, _autocast(self.settings):
                others = self.loss.before(self._model, inputs, positions, live)
                apart = len(live.sections)
                loss = self._forward(inputs, positions, live, others)
                before = live.grown
                torch.autograd.backward(loss)
                live.cut("end")
        sections = live.sections[apart:]
        if self._layers is not None:
            sections = self._layers.everything(sections)
        return [*self._of_others(live.sections[:apart], live.sections[apart:], sections), *sections], before

    def _of_others(
        self, found: list[MemorySection], run: list[MemorySection], every: list[MemorySection]
    ) -> Iterator[MemorySection]:
        """Yield the sections of base and teacher. The base is the model: what it left out is what that left out."""
        forward = [sum(one.flops for one in some if one.name.startswith("forward")) for some in (every, run)]
        for section in found:
            left_out = forward[0] - forward[1] if section.name == "base" else 0.0
            yield replace(section, flops=section.flops + left_out)

    @property
    def whole(self) -> bool:
        """Whether every layer is run."""
        return self._layers is None

    def _result(self, sections: list[MemorySection], there: int) -> Rehearsal:
        names = [section.name for section in sections]
        kept = sum(section.grown for section in sections[: names.index("norm") + 1])
        return Rehearsal(highest(sections) + there, kept, sum(section.flops for section in sections))

    def _forward(
        self, inputs: Mapping[str, Any], positions: int, live: MemoryTracker, others: Mapping[str, Scores]
    ) -> Tensor:
        """Return the loss."""
        handle = self._base.get_output_embeddings().register_forward_pre_hook(lambda *_: live.cut("norm"))
        try:
            with self._watched(live):
                if not self.loss.makes_logits:
                    return self._hidden(inputs, positions).float().sum()
                own = self.loss.own(self._model, inputs, positions)
        finally:
            handle.remove()
        return self.loss.losses(own, others).sum()

    @contextmanager
    def _watched(self, live: MemoryTracker) -> Iterator[None]:
        """Cut the forward pass into sections; layers that are run again in the backward pass are not its."""
        if self._layers is not None:
            self._layers.watch(live)
        try:
            yield
        finally:
            if self._layers is not None:
                self._layers.watch(None)

    def _hidden(self, inputs: Mapping[str, Any], positions: int) -> Tensor:
        """Return (B, P, V) the logits of the last `positions`, where the model can leave out the others."""
        import inspect

        if "logits_to_keep" in inspect.signature(type(self._base).forward).parameters:
            logits: Tensor = self._model(**inputs, use_cache=False, logits_to_keep=positions).logits
            return logits
        everything: Tensor = self._model(**inputs, use_cache=False).logits
        return everything[:, -positions:]

    def _fused_head(self, tokens: int) -> tuple[int, float]:
        """Return the bytes and operations of a fused head, as TRL's is.

        Bytes: a copy of the states, their gradient in 32 bits, a tile of logits. Logits are computed twice.
        """
        weight = self._base.get_output_embeddings().weight
        vocabulary, width = weight.shape
        size = (self.settings.autocast or self.settings.dtype).itemsize
        tile = min(tokens, _TILE[0]) * min(vocabulary, _TILE[1]) * size
        trained = vocabulary * width * 4 if weight.requires_grad else 0
        products = 4 if weight.requires_grad else 3
        return int(tokens * (width * (size + 4) + 7 * 4) + tile + trained), 2.0 * products * tokens * vocabulary * width


def _materialize(model: nn.Module, skipped: frozenset[int]) -> None:
    """Put every parameter and buffer on the CPU, without numbers; shared ones stay shared."""
    made: dict[int, Any] = {}
    for module in model.modules():
        if id(module) in skipped:
            continue
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
