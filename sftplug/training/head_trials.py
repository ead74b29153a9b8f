"""Heads held against each other: on the real output layer, and on tokens of the run's longest rows."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional

from sftplug.errors import SftplugError
from sftplug.training.chosen_loss import Scored, nll_by
from sftplug.training.scores import OutputHead, Scores, logits_at, states_at
from sftplug.types.tokens import IGNORED

if TYPE_CHECKING:
    from torch import Tensor

    from sftplug.training.trainer import SftplugTrainer
    from sftplug.training.usual_head import HeadInUse
    from sftplug.types.output_layer import OutputLayer

EQUAL = 1e-5
"""By which part of itself a loss, or the length of a gradient, may differ in 32 bits."""
ROUNDED = 1e-2
"""By which part likelihoods may differ that are computed in 16 bits: of two roundings each is 4e-3."""
_LOOKED_AT = 4096
"""Among so many rows the longest are looked for."""
_COMPARED = 256
"""So many tokens are computed in 32 bits too."""
_TIMES = 3


@dataclass(frozen=True, slots=True)
class Trial:
    """How a head did."""

    head: str
    seconds: float | None
    """Of a forward and a backward pass; None where it failed."""
    apart: float = 0.0
    """The largest of the differences from 32 bits, of the loss and of each gradient, as a part of its length."""
    allowed: float = EQUAL
    failed: str = ""
    """Why, in words that follow its name."""

    @property
    def is_equal(self) -> bool:
        """Whether it computes the same, but for rounding."""
        return self.apart <= self.allowed


class Trials:
    """A model and a batch of the run's size, on which heads are tried. Neither is changed, nor are random numbers."""

    def __init__(self, trainer: SftplugTrainer) -> None:
        """Remember the trainer; nothing is computed yet."""
        self._trainer = trainer
        self._own: Any = trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False)
        self._head = OutputHead(self._own, trainer.accelerator.autocast)

    @cached_property
    def _batch(self) -> dict[str, Tensor]:
        """The longest of the training rows, as many as a batch has."""
        rows = self._trainer.train_dataset
        size = min(self._trainer._train_batch_size, len(rows))
        lengths = [len(ids) for ids in rows[:_LOOKED_AT]["input_ids"]]
        longest = sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True)[:size]
        return self._collated(longest)

    def _collated(self, chosen: Sequence[int]) -> dict[str, Tensor]:
        batch = self._trainer.data_collator([self._trainer.train_dataset[index] for index in chosen])
        return {
            name: value.to(self._trainer.args.device) if isinstance(value, torch.Tensor) else value
            for name, value in batch.items()
            if name not in ("weights", "provenance", "real_tokens")
        }

    @cached_property
    def tokens(self) -> int:
        """How many of its tokens are trained."""
        return int((self._batch["labels"][:, 1:] != IGNORED).sum())

    @property
    def bytes_of_logits(self) -> int:
        """What their logits take in 32 bits."""
        return self.tokens * int(self._own.config.get_text_config().vocab_size) * 4

    # --- as the model's own logits ------------------------------------------------------------------------------------

    def unlike_logits(self, head: HeadInUse) -> str:
        """Return in what way `head` is not what the model's own logits say, in words; empty where it is equal.

        One row is looked at, forward; and of what makes no logits the gradient.
        """
        if head.takes == "logits":
            return ""
        if head.takes in ("states", "trl") and self._head.layer() is None:
            return "it needs the numbers of a plain output layer, and that of this model is quantized or adapted"
        row = self._collated([0])
        with self._undisturbed():
            wanted = self._likelihood(self._asked(row, states=False), None)
            states = self._asked(row, states=True)
            found = self._within(row) if head.takes == "trl" else self._likelihood(states, head)
            apart = float((found - wanted).norm() / wanted.norm().clamp(min=1e-8))
            allowed = EQUAL if self._computes_in is torch.float32 else ROUNDED
        if not apart <= allowed:
            return (
                f"likelihoods differ by {apart:.1e} from those of the model's own logits, and {allowed:.0e} is allowed"
            )
        if head.takes != "states":
            return ""
        trial = self._compared(head, states)
        said = f"loss and gradients differ by {trial.apart:.1e} from those in 32 bits"
        return "" if trial.is_equal else f"{said}, and {trial.allowed:.0e} is allowed"

    @property
    def _computes_in(self) -> torch.dtype:
        kind = self._trainer.args.device.type
        with self._trainer.accelerator.autocast():
            if torch.is_autocast_enabled(kind):
                return torch.get_autocast_dtype(kind)
        dtype: torch.dtype = self._head.module.weight.dtype  # type: ignore[assignment]  # torch: a tensor or a module
        return dtype

    @contextmanager
    def _undisturbed(self) -> Iterator[None]:
        """Compute without gradients and dropout, and leave the model as it is."""
        training = self._own.training
        self._own.eval()
        try:
            with torch.no_grad():
                yield
        finally:
            self._own.train(training)

    def _asked(self, batch: Mapping[str, Tensor], *, states: bool) -> Scored:
        """Return what the model says of the trained tokens of a batch."""
        targets = batch["labels"][:, 1:]
        needed = (targets != IGNORED).any(dim=0).nonzero().flatten()
        positions = needed - targets.shape[1] - 1
        given = {name: value for name, value in batch.items() if name != "labels"}
        with self._trainer.accelerator.autocast():
            if states:
                scores, _ = states_at(self._own, self._head, given, positions)
            else:
                scores, _ = logits_at(self._own, self._own, given, positions)
        weights = torch.ones_like(targets[:, needed], dtype=torch.float32)
        return Scored(scores, targets[:, needed], weights).trained()

    def _within(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Return (N,) the negative log-likelihood as TRL's head computes it, within the model's forward pass."""
        targets = batch["labels"][:, 1:]
        with self._trainer.accelerator.autocast():
            found = self._own(**batch, use_cache=False, fused_lm_head=True).log_probs
        nll: Tensor = -found[:, -targets.shape[1] :][targets != IGNORED]
        return nll

    def _likelihood(self, scored: Scored, head: HeadInUse | None) -> Tensor:
        """Return (N,) the negative log-likelihood as `head` computes it; None takes all logits at once."""
        if head is None or head.takes == "logits":
            return functional.cross_entropy(scored.own.logits(slice(None)), scored.labels, reduction="none")
        if head.takes == "pieces":
            return scored.losses(None)
        layer = self._head.layer()
        assert layer is not None
        with self._trainer.accelerator.autocast():
            return _by_trl(layer, scored) if head.head is None else nll_by(head.head, layer, scored)

    # --- as each other ------------------------------------------------------------------------------------------------

    def of(self, heads: Sequence[HeadInUse]) -> Iterator[Trial]:
        """Yield how each head does with the trained tokens of the batch."""
        with self._undisturbed():
            scored = self._asked(self._batch, states=True)
        for head in heads:
            if head.takes in ("states", "trl") and self._head.layer() is None:
                continue
            try:
                trial = self._compared(head, scored)
                yield Trial(trial.head, self._seconds(head, scored), trial.apart, trial.allowed)
            except (SftplugError, RuntimeError, ImportError) as error:  # no memory, or a kernel that is not there
                yield Trial(head.name, None, failed=f"failed ({type(error).__name__})")

    def _compared(self, head: HeadInUse, scored: Scored) -> Trial:
        """Hold loss and gradients of a few tokens against those in 32 bits."""
        few = slice(0, _COMPARED)
        some = Scored(Scores(scored.own.values[few], self._head), scored.labels[few], scored.weights[few])
        found, own = self._pass(head, some), self._pass(None, some)
        layer = self._head.layer()
        exact = own if layer is None else _in_32_bits(layer, some)
        apart, rounded = _apart(found, exact), _apart(own, exact)
        return Trial(head.name, None, apart, max(EQUAL, 2 * rounded))

    def _seconds(self, head: HeadInUse, scored: Scored) -> float:
        took = []
        for _ in range(1 + _TIMES):
            self._wait()
            begun = time.perf_counter()
            self._pass(head, scored)
            self._wait()
            took.append(time.perf_counter() - begun)
        return min(took[1:])

    def _wait(self) -> None:
        if self._trainer.args.device.type != "cpu":
            torch.accelerator.synchronize()

    def _pass(self, head: HeadInUse | None, scored: Scored) -> list[Tensor]:
        """Return the loss, and its gradients with respect to the states and to what is trained of the layer."""
        states = scored.own.values.detach().requires_grad_()
        known = Scored(Scores(states, self._head), scored.labels, scored.weights)
        loss = self._likelihood(known, head).mean()
        trained = [value for value in self._head.module.parameters() if value.requires_grad]
        gradients = torch.autograd.grad(loss, [states, *trained], allow_unused=True)
        return [loss.detach(), *(value for value in gradients if value is not None)]


def _by_trl(layer: OutputLayer, scored: Scored) -> Tensor:
    """Return the likelihood by the kernel that TRL's head is made of."""
    from trl.kernels import ChunkedLogProbFunction

    chunk = 32768
    found = ChunkedLogProbFunction.apply(
        scored.own.values, layer.weight, layer.bias, scored.labels, 1.0, chunk, layer.softcap, layer.scale, ()
    )
    nll: Tensor = -found[0]
    return nll


def _in_32_bits(layer: OutputLayer, scored: Scored) -> list[Tensor]:
    """Return loss and gradients by the definition, in 32-bit floats."""
    states = scored.own.values.detach().float().requires_grad_()
    trained = [value for value in (layer.weight, layer.bias) if value is not None]
    copies = [value.detach().float().requires_grad_(value.requires_grad) for value in trained]
    exact = type(layer)(copies[0], copies[1] if len(copies) > 1 else None, layer.scale, layer.softcap)
    loss = functional.cross_entropy(exact.logits(states), scored.labels)
    wanted = [states, *(value for value in copies if value.requires_grad)]
    return [loss.detach(), *torch.autograd.grad(loss, wanted)]


def _apart(found: Sequence[Tensor], exact: Sequence[Tensor]) -> float:
    """Return the largest difference of two lists of tensors, each as a part of its length."""
    if len(found) != len(exact):
        return float("inf")
    pairs = zip(found, exact, strict=True)
    return max(float((one.float() - two.float()).norm() / two.float().norm().clamp(min=1e-12)) for one, two in pairs)
