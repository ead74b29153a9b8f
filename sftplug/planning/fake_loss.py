"""What a recipe's loss has computed beside its own logits, rehearsed: the base's, a teacher's, pieces of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional

from sftplug.plugin.calls import is_nll
from sftplug.training import chosen_loss
from sftplug.training.chosen_loss import Scored, as_base
from sftplug.training.scores import OutputHead, Scores, base_of, logits_at, states_at
from sftplug.training.usual_head import first_head

if TYPE_CHECKING:
    from torch import Tensor, nn

    from sftplug.planning.live import MemoryTracker
    from sftplug.recipe.model import Recipe


_RUN = 8
"""So many pieces of a batch are run at most: each takes and computes what the one before did."""


class FakeLoss:
    """A recipe's loss on tensors that have shapes and no numbers, and the teacher that it may have."""

    def __init__(self, recipe: Recipe, *, on_cpu: bool, teacher: nn.Module | None = None) -> None:
        """Take the loss as it is computed on a CPU, or elsewhere; `teacher` is in place of numbers too."""
        self.loss = None if is_nll(recipe.loss) else recipe.loss
        self.head = first_head(recipe, on_cpu=on_cpu)
        self.teacher: Any = teacher
        self.failed = ""
        """Why the loss itself could not be rehearsed; its logits were all the same."""

    @property
    def makes_logits(self) -> bool:
        """Whether its head makes logits, all of them or a piece at a time."""
        return self.head.takes in ("logits", "pieces")

    def before(self, model: Any, inputs: Mapping[str, Any], count: int, live: MemoryTracker) -> dict[str, Scores]:
        """Ask base and teacher for `count` positions a row, as is done before the pass that has gradients."""
        found: dict[str, Scores] = {}
        if self.loss is not None and self.loss.reads_base:
            with as_base(model):
                found["base"] = self._ask(model, inputs, count)
            project = found["base"].project
            if project is not None:
                found["base"] = Scores(found["base"].values, torch.no_grad()(project))
            live.cut("base")
        if self.teacher is not None:
            with torch.no_grad(), torch.autocast("cpu", enabled=False):
                found["teacher"] = self._ask(self.teacher, inputs, count)
            project = found["teacher"].project
            if project is not None:
                found["teacher"] = Scores(found["teacher"].values, torch.no_grad()(project))
            live.cut("teacher")
        return found

    def own(self, model: Any, inputs: Mapping[str, Any], count: int) -> Scores:
        """Return what the model itself says at the last `count` positions of each row."""
        return self._ask(model, inputs, count)

    def losses(self, own: Scores, others: Mapping[str, Scores]) -> Tensor:
        """Return the loss of each token."""
        if self.loss is None and self.head.takes == "logits":
            targets = torch.zeros(own.values.shape[:-1], dtype=torch.long)
            flat = own.values.float().flatten(0, 1)
            return functional.cross_entropy(flat, targets.flatten(), reduction="none")
        count = own.values.shape[0] * own.values.shape[1]
        labels, codes = torch.zeros(count, dtype=torch.long), torch.zeros(count, dtype=torch.long)
        base, teacher = (_picked(others[name]) if name in others else None for name in ("base", "teacher"))
        picked, most = _picked(own), _RUN * chosen_loss.PIECE
        if count <= most:
            return self._of_pieces(Scored(picked, labels, torch.ones(count), base, codes, teacher))
        some, rest = torch.split(picked.values, [most, count - most])
        scored = Scored(Scores(some, picked.project), labels[:most], torch.ones(most), base, codes, teacher)
        return torch.cat([self._of_pieces(scored), rest.sum(-1)])

    def _of_pieces(self, scored: Scored) -> Tensor:
        try:
            return scored.losses(self.loss)
        except Exception as error:  # noqa: BLE001 - it is a plugin's code, and fails in its own ways without numbers
            self.failed = str(error).splitlines()[0] if str(error) else type(error).__name__
            return scored.losses(None)

    def left_out(self, model: Any, count: int) -> float:
        """Return the operations of output layers for those of `count` tokens a batch whose pieces are not run."""
        rest = count - _RUN * chosen_loss.PIECE
        if rest <= 0 or self.head.takes != "pieces":
            return 0.0
        weight = base_of(model).get_output_embeddings().weight
        # Forward, forward again, and backward; without a gradient the first two.
        times = [(weight, 4 if weight.requires_grad else 3)]
        times += [(weight, 2)] if self.loss is not None and self.loss.reads_base else []
        times += [(self.teacher.get_output_embeddings().weight, 2)] if self.teacher is not None else []
        return float(sum(2.0 * rest * layer.numel() * often for layer, often in times))

    def _ask(self, model: Any, inputs: Mapping[str, Any], count: int) -> Scores:
        positions = torch.arange(-count, 0)
        if self.head.takes == "logits":
            return logits_at(model, model, inputs, positions)[0]
        return states_at(model, OutputHead(model), inputs, positions)[0]


def _picked(scores: Scores) -> Scores:
    """Return all positions by their numbers: the choice of those that are trained is a copy, and has a gradient too."""
    flat = scores.values.flatten(0, 1)
    return Scores(flat[torch.arange(len(flat))], scores.project)
