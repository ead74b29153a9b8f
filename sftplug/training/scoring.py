"""From a batch to what each of its tokens costs, by the head in use: all logits, pieces of them, or a kernel."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional

from sftplug.training.chosen_loss import Scored, as_base, nll_by
from sftplug.training.scores import Numbers, OutputHead, Scores, logits_at, states_at
from sftplug.training.usual_head import FULL, HeadInUse
from sftplug.types.tokens import IGNORED

if TYPE_CHECKING:
    from torch import Tensor, nn

    from sftplug.plugin.components import Loss


@dataclass(frozen=True, slots=True)
class Tokens:
    """A batch, without what a model knows nothing of."""

    inputs: Mapping[str, Any]
    """What the model takes, ``labels`` (B, L) among it."""
    weights: Tensor
    """(B, L-1) of each token but the first."""
    codes: Tensor | None = None
    """(B, L) provenance of each token, if a loss asks for it."""


@dataclass(slots=True)
class Scorer:
    """Says what tokens cost."""

    loss: Loss | None = None
    """None for the negative log-likelihood."""
    head: HeadInUse = FULL
    teacher: nn.Module | None = None
    """The other model whose logits the loss asks for."""
    numbers: Numbers = nullcontext
    """What is computed in outside of the model's forward pass, as within it."""

    def losses(self, model: nn.Module, own: nn.Module, batch: Tokens) -> tuple[Tensor, Any]:
        """Return (B, L-1) the loss of each token but the first, 0 where the label is ignored, and the model's outputs.

        `own` is the `model` within whatever several processes wrap around it.
        """
        if self.head.takes == "trl":
            return self._by_trl(model, batch)
        if self.loss is None and self.head.takes == "logits":
            return _nll(model, own, batch)
        return self._by_positions(model, own, batch)

    def _by_trl(self, model: nn.Module, batch: Tokens) -> tuple[Tensor, Any]:
        """Ask TRL's head, which is in the model's forward pass."""
        labels = batch.inputs["labels"]
        outputs = model(**batch.inputs, use_cache=False, fused_lm_head=True)
        nll = -outputs.log_probs[:, -(labels.shape[1] - 1) :]  # prompt tuning puts tokens before the row
        if self.loss is None:
            return nll, outputs
        targets, codes = labels[:, 1:], None if batch.codes is None else batch.codes[:, 1:]
        known = Scored(Scores(nll), targets, batch.weights, None, codes).trained()
        return _in_place(known.losses_by(known.own.values, self.loss), targets), outputs

    def _by_positions(self, model: nn.Module, own: nn.Module, batch: Tokens) -> tuple[Tensor, Any]:
        """Ask the model for logits, or for what they are made of, where any row has a trained token."""
        targets = batch.inputs["labels"][:, 1:]
        needed = (targets != IGNORED).any(dim=0).nonzero().flatten()
        given = {key: value for key, value in batch.inputs.items() if key != "labels"}
        # With L = 5 and token 3 alone trained, `needed` is [2], and the logits are those at 2 - 5 = -3.
        # Counted from the end: prompt tuning puts tokens of its own before the row.
        positions = needed - targets.shape[1] - 1
        base, teacher = self._of_base(model, own, given, positions), self._of_teacher(given, positions)
        scores, outputs = self._ask(model, OutputHead(own, self.numbers), given, positions)
        codes = None if batch.codes is None else batch.codes[:, 1:][:, needed]
        scored = Scored(scores, targets[:, needed], batch.weights[:, needed], base, codes, teacher).trained()
        return _in_place(self._of_trained(scored), targets), outputs

    def _of_trained(self, scored: Scored) -> Tensor:
        if self.head.takes != "states":
            return scored.losses(self.loss)
        assert self.head.head is not None
        assert isinstance(scored.own.project, OutputHead)
        layer = scored.own.project.layer()
        assert layer is not None, "a head that takes states is refused where there is none"
        with self.numbers():
            nll = nll_by(self.head.head, layer, scored)
        return scored.losses_by(nll, self.loss)

    def _ask(self, model: Any, head: OutputHead, given: Mapping[str, Any], positions: Tensor) -> tuple[Scores, Any]:
        """Return (B, P, …) what a model says, as the head in use takes it, and its outputs."""
        if self.head.takes == "logits":
            return logits_at(model, head.own, given, positions)
        return states_at(model, head, given, positions)

    def _of_base(self, model: Any, own: Any, given: Mapping[str, Any], positions: Tensor) -> Scores | None:
        """Return (B, P, …) what the base says without its adapter."""
        if self.loss is None or not self.loss.reads_base:
            return None
        with as_base(own):
            scores, _ = self._ask(model, OutputHead(own, self.numbers), given, positions)
        project = scores.project
        if project is None:
            return scores

        def by_base(states: Tensor) -> Tensor:
            with as_base(own):
                return project(states)

        return Scores(scores.values, by_base)

    def _of_teacher(self, given: Mapping[str, Any], positions: Tensor) -> Scores | None:
        """Return (B, P, …) what another model says of the same rows."""
        if self.teacher is None:
            return None
        # Of a mixture of experts that is trained, the outputs of its routers are wanted; of a teacher they are not.
        asked = {name: value for name, value in given.items() if name != "output_router_logits"}
        with torch.no_grad():
            scores, _ = self._ask(self.teacher, OutputHead(self.teacher), asked, positions)
        project = scores.project
        return scores if project is None else Scores(scores.values, torch.no_grad()(project))


def _nll(model: nn.Module, own: nn.Module, batch: Tokens) -> tuple[Tensor, Any]:
    """Return the negative log-likelihood by the model's own logits, of all positions where any row has a label."""
    targets = batch.inputs["labels"][:, 1:]
    needed = (targets != IGNORED).any(dim=0).nonzero().flatten()
    given = {key: value for key, value in batch.inputs.items() if key != "labels"}
    scores, outputs = logits_at(model, own, given, needed - targets.shape[1] - 1)
    losses = functional.cross_entropy(
        scores.values.float().flatten(0, 1), targets[:, needed].flatten(), ignore_index=IGNORED, reduction="none"
    )
    nll = losses.new_zeros(targets.shape)
    return nll.index_add(1, needed, losses.view(targets.shape[0], -1)), outputs


def _in_place(losses: Tensor, targets: Tensor) -> Tensor:
    """Return (B, L-1) with the (N,) losses of the trained tokens in their places."""
    return losses.new_zeros(targets.shape).masked_scatter(targets != IGNORED, losses)
