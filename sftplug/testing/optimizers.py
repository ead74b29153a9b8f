"""The laws of optimizers."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sftplug.libraries.optimizer_state import Trained
from sftplug.model.trained_parameters import trained_parameters
from sftplug.planning.optimizer import chosen_bytes, sizes
from sftplug.plugin.calls import is_resumable, make_optimizer, takes_weight_decay
from sftplug.plugin.components import Optimizer
from sftplug.testing.component import check_component
from sftplug.testing.law import check, demand, make
from sftplug.testing.proofs import proving

if TYPE_CHECKING:
    from torch import Tensor, nn

RATE = 0.01
LONG = 8
"""Updates after which each has moved; RAdam's first ones are of size 0."""


@dataclass(frozen=True, slots=True)
class OptimizerSubject:
    """An optimizer, and what it is tried on."""

    component: Optimizer

    def trial(self, weight_decay: float = 0.0) -> TrialModel:
        """Return a small model with an optimizer of its own, the same at each call."""
        return TrialModel(self.component, weight_decay)


class TrialModel:
    """A model with a table, matrices, biases, a norm and a frozen layer, and its optimizer."""

    def __init__(self, component: Optimizer, weight_decay: float) -> None:
        import torch

        torch.manual_seed(0)
        self.model: nn.Module = _model()
        self.trained = trained_parameters(self.model, weight_decay)
        self.optimizer = make_optimizer(component, self.trained, RATE)
        self.frozen = [parameter for parameter in self.model.parameters() if not parameter.requires_grad]

    def step(self, times: int = 1, rate: float | None = None) -> TrialModel:
        """Take `times` updates, with the rate that a schedule has set."""
        import torch

        for number in range(times):
            torch.manual_seed(number)
            self.mode("train")
            self.model(torch.arange(8)[None]).square().sum().backward()
            for group in self.optimizer.param_groups:
                group["lr"] = group["lr"] if rate is None else rate
            self.optimizer.step()
            self.optimizer.zero_grad()
        return self

    def mode(self, name: str) -> None:
        """Put an optimizer that has modes into one."""
        if callable(change := getattr(self.optimizer, name, None)):
            change()

    def values(self) -> dict[str, Tensor]:
        """Return a copy of what is trained."""
        return {parameter.name: parameter.value.detach().clone() for parameter in self.trained.parameters}

    def saved(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the weights, and the optimizer's state as it comes back from a checkpoint."""
        import torch

        self.mode("eval")
        file = io.BytesIO()
        torch.save(self.optimizer.state_dict(), file)
        file.seek(0)
        weights = {name: value.clone() for name, value in self.model.state_dict().items()}
        return weights, torch.load(file, weights_only=True)


def _model() -> nn.Module:
    from torch import nn

    frozen = nn.Linear(6, 6)
    frozen.requires_grad_(False)
    return nn.Sequential(
        nn.Embedding(8, 6), nn.Linear(6, 12), nn.Tanh(), nn.Linear(12, 6), nn.LayerNorm(6), nn.Tanh(), frozen
    )


@proving
def check_optimizer(component: type[Optimizer], /, **options: Any) -> None:
    """Hold an optimizer to its laws, on a small model. Raises LawBroken."""
    check_component(component, **options)
    made = make(component, options)
    check(made, LAWS, OptimizerSubject(made))


def obeys_the_rate(given: OptimizerSubject) -> None:
    """It moves every parameter that has a gradient, and none where a schedule has set the rate of its group to 0."""
    before = given.trial().values()
    for rate, moves in ((None, True), (0.0, False)):
        trial = given.trial().step(LONG, rate)
        trial.mode("eval")
        for name, value in trial.values().items():
            moved = not value.equal(before[name])
            said = f"{name} {'moved' if moved else 'did not move'} at rate {RATE if rate is None else rate:g}"
            demand(moved is moves, said, 'multiply every update by `group["lr"]`, as it is at that step.')


def obeys_weight_decay(given: OptimizerSubject) -> None:
    """The weight decay of a group changes its parameters, and no others, unless it says that it has none."""
    takes = takes_weight_decay(given.component)
    for parameter in given.trial().trained.parameters:
        meant = parameter.decays and takes
        # In the first update the others have not yet changed what its gradient is; some normalize it away there.
        times = LONG if meant else 1
        plain, decayed = (given.trial(decay).step(times).values()[parameter.name] for decay in (0.0, 0.5))
        changed = not plain.equal(decayed)
        said = f"weight decay {'changed' if changed else 'did not change'} {parameter.name}, and `decays` is {takes}"
        demand(
            changed is meant,
            said,
            'use `trained.groups()` and their `group["weight_decay"]`, or let `decays` be False.',
        )


def changes_nothing_else(given: OptimizerSubject) -> None:
    """Parameters that are not trained stay as they are."""
    trial = given.trial()
    before = [parameter.clone() for parameter in trial.frozen]
    trial.step(2)
    same = all(now.equal(then) for now, then in zip(trial.frozen, before, strict=True))
    demand(same, "a frozen weight was changed", "update `trained.parameters` and nothing else of the model.")


def is_resumed_to_the_bit(given: OptimizerSubject) -> None:
    """Made anew and given its saved state, it goes on as it would have, unless it says that it is not resumable."""
    if not is_resumable(given.component):
        return
    whole = given.trial().step(2)
    weights, state = whole.saved()
    resumed = given.trial()
    resumed.model.load_state_dict(weights)
    resumed.optimizer.load_state_dict(state)
    resumed.step(2)
    for name, expected in whole.step(2).values().items():
        found = resumed.values()[name]
        said = f"{name} differs by {(found - expected).abs().max().item():.3g} two updates after it was resumed"
        demand(found.equal(expected), said, "keep what it remembers in `self.state` and `self.param_groups`.")


def plans_its_state(given: OptimizerSubject) -> None:
    """What `sftplug plan` counts of its state is what it keeps."""
    trial = given.trial().step()
    tensors = [_tensor(parameter) for parameter in trial.trained.parameters]
    planned, kept = chosen_bytes(given.component, tensors), sum(sizes(dict(trial.optimizer.state)).values())
    said = f"{planned} bytes are planned, and it keeps {kept}"
    demand(planned in (None, kept), said, "let `state_bytes` return None, or what is kept.")


def _tensor(parameter: Any) -> Trained:
    value = parameter.value
    return Trained(tuple(value.shape), value.numel() * value.element_size(), parameter.table)


LAWS = (obeys_the_rate, obeys_weight_decay, changes_nothing_else, is_resumed_to_the_bit, plans_its_state)
