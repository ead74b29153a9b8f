"""The laws of model patches, on a model of two layers with random weights in 32-bit floats."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from sftplug.plugin.calls import changes_loading, loading_code, patch_problems
from sftplug.plugin.components import ModelPatch
from sftplug.testing.component import check_component
from sftplug.testing.law import Breach, check, demand, make, shown
from sftplug.testing.proofs import proving
from sftplug.testing.runs import TrainingRun, difference, logits

EXACT = 1e-5
"""Largest difference of logits that rounding explains."""
GRADIENTS = 10.0
"""By how many times the tolerance of logits gradients may differ: they pass the changed kernels twice."""


@dataclass
class PatchTrial:
    """A patch, a run with it, and one without."""

    patch: ModelPatch
    patched: TrainingRun = field(init=False)
    plain: TrainingRun = field(init=False)

    def __post_init__(self) -> None:
        """Make the runs; nothing is loaded yet."""
        self.patched, self.plain = TrainingRun(patches=(self.patch,)), TrainingRun()

    def tensors(self, run: TrainingRun, *, gradients: bool = False) -> Any:
        """Return the logits of a newly loaded model, or the gradients of its loss over a batch, in one tensor."""
        import torch

        from sftplug.model.patching import patches_in_force

        with patches_in_force(run.recipe):
            model = run.load()
            if not gradients:
                return logits(model)
            run.loss(model, gradients=True)
            return torch.cat([value.grad.flatten() for value in model.parameters() if value.grad is not None])

    @cached_property
    def logits(self) -> Any:
        """(L, V) the logits of the patched model."""
        return self.tensors(self.patched)


@proving
def check_model_patch(component: type[ModelPatch], /, **options: Any) -> None:
    """Hold a patch to its laws: models are loaded with it and without, compared and trained. Raises LawBroken."""
    check_component(component, **options)
    made = make(component, options)
    check(made, LAWS, PatchTrial(made))


def does_something(trial: PatchTrial) -> None:
    """The patch overrides ``before_loading`` or ``after_loading``."""
    own = type(trial.patch).after_loading is not ModelPatch.after_loading
    demand(own or changes_loading(trial.patch), "neither is there", "override one of them.")


def fits_a_model(trial: PatchTrial) -> None:
    """``check_model`` yields nothing for a Llama on this machine."""
    from sftplug.model.loading import skeleton

    problems = patch_problems(trial.patch, skeleton(trial.plain.recipe))
    demand(not problems, shown(problems), "run the check where the patch works, or fix check_model.")


def undoes_what_it_changes(trial: PatchTrial) -> None:
    """When the context of ``before_loading`` is left, classes and functions are what they were."""
    from sftplug.model.patching import traces

    if not changes_loading(trial.patch):
        return
    left = traces(trial.plain.recipe, trial.patch)
    demand(not left, f"{shown(left)} are others afterwards", "let `sftplug.restoring` put back what you don't.")


def is_the_same_again(trial: PatchTrial) -> None:
    """A model that is loaded and patched once more computes the same: a run is resumed with it."""
    found = difference(trial.logits, trial.tensors(trial.patched))
    demand(
        found <= EXACT,
        f"the logits differ by {found:.2g} of the largest",
        "draw nothing at random, and remember nothing from model to model.",
    )


def leaves_other_models_alone(trial: PatchTrial) -> None:
    """A model that is loaded without the patch, afterwards in the same process, computes what it did before."""
    before = trial.tensors(trial.plain)
    assert len(trial.logits)
    found = difference(before, trial.tensors(trial.plain))
    demand(
        found <= EXACT,
        f"its logits differ by {found:.2g} of the largest",
        "change the model in after_loading, and classes in the context of before_loading alone.",
    )


def computes_the_same_or_says_so(trial: PatchTrial) -> None:
    """Logits are those of the plain model, but for ``tolerance``; or ``changes_logits`` says that they are not."""
    from sftplug.training.patched import difference as apart

    if trial.patch.changes_logits:
        return
    found = apart(trial.tensors(trial.plain), trial.logits)
    demand(
        found <= trial.patch.tolerance,
        f"logits differ by {found:.2g} of their standard deviation, and {trial.patch.tolerance:.2g} is the tolerance",
        "set `changes_logits = True` and write `loading_code`, or a `tolerance` that the result can bear.",
    )


def is_loaded_by_its_card(trial: PatchTrial) -> None:
    """A plain model that ``loading_code`` has changed computes what the patched one does: so the model card loads it
    where there is no sftplug."""
    from sftplug.model.own_adapter import by_card
    from sftplug.training.patched import difference as apart

    code = loading_code(trial.patch)
    if not (trial.patch.changes_logits or code.strip()):
        return
    found = apart(trial.logits, logits(by_card(trial.patch, trial.plain.load())))
    demand(
        found <= max(trial.patch.tolerance, EXACT),
        f"logits differ by {found:.2g} of their standard deviation",
        "let loading_code return Python that does to `model` what the patch does, without sftplug.",
    )


def has_the_gradients_of_its_logits(trial: PatchTrial) -> None:
    """Gradients reach every parameter, and are those of the plain model where the logits are."""
    found, plain = (trial.tensors(run, gradients=True) for run in (trial.patched, trial.plain))
    fix = "give the kernel a backward pass: a `torch.autograd.Function` has one for each input."
    demand(found.shape == plain.shape, f"{len(plain) - len(found):,} of {len(plain):,} numbers have no gradient", fix)
    demand(bool(found.isfinite().all()), "gradients that are not finite", fix)
    if trial.patch.changes_logits:
        return
    apart, allowed = float((found - plain).norm() / plain.norm()), max(GRADIENTS * trial.patch.tolerance, EXACT)
    demand(apart <= allowed, f"gradients differ by {apart:.2g} of their length, and {allowed:.2g} is allowed", fix)


def is_trained(trial: PatchTrial) -> None:
    """The loss over the same rows is lower after a few steps."""
    from sftplug.model.patching import patches_in_force

    try:
        with patches_in_force(trial.patched.recipe):
            before, after = trial.patched.losses
    except Exception as error:
        raise Breach(f"training raised {type(error).__name__}: {error}", "see the error above.") from error
    demand(after < before, f"the loss was {before:.4f} before 5 steps, and is {after:.4f}", "see its gradients.")


LAWS = (
    does_something,
    fits_a_model,
    undoes_what_it_changes,
    leaves_other_models_alone,  # before one is patched for another law
    is_the_same_again,
    computes_the_same_or_says_so,
    is_loaded_by_its_card,
    has_the_gradients_of_its_logits,
    is_trained,
)
