"""The laws of adapter types, on a model of two layers with random weights in 32-bit floats."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sftplug.errors import SftplugError
from sftplug.plugin.calls import (
    load_adapter,
    mergeable,
    merged,
    model_problems,
    peft_config,
    save_adapter,
    saves_itself,
    train_defaults,
)
from sftplug.plugin.components import Adapter
from sftplug.testing.component import check_component
from sftplug.testing.law import Breach, check, demand, make, shown
from sftplug.testing.proofs import proving
from sftplug.testing.runs import TrainingRun, difference, logits

EXACT = 1e-5
"""Largest difference of logits that rounding explains."""
MERGED = 1e-3
"""Largest difference of logits after merging, which adds in another order."""


@dataclass
class AdapterTrial:
    """An adapter, and a run of it."""

    adapter: Adapter
    run: TrainingRun = field(init=False)

    def __post_init__(self) -> None:
        """Make the run; nothing is loaded yet."""
        self.run = TrainingRun(adapter=self.adapter)

    @property
    def is_peft(self) -> bool:
        """Whether PEFT's classes train it."""
        return peft_config(self.adapter) is not None

    @property
    def saves_itself(self) -> bool:
        """Whether it is no type of PEFT, and has parameters of its own."""
        return saves_itself(self.adapter)


@proving
def check_adapter(component: type[Adapter], /, **options: Any) -> None:
    """Hold an adapter to its laws: it is trained for a few steps, saved, loaded and merged. Raises LawBroken."""
    check_component(component, **options)
    made = make(component, options)
    check(made, LAWS, AdapterTrial(made))


def gives_the_same_configuration(trial: AdapterTrial) -> None:
    """Each call of ``peft_config`` returns a new configuration, equal to the last: the trainer changes what it gets."""
    first, second = peft_config(trial.adapter), peft_config(trial.adapter)
    if first is None and second is None:
        return
    demand(
        first is not second and first is not None and second is not None and first.to_dict() == second.to_dict(),
        f"{shown(first)}, and then {shown(second)}",
        "make the configuration in the method, of the options alone.",
    )


def fits_a_model(trial: AdapterTrial) -> None:
    """``check_model`` yields nothing for a model that the options suit, and it changes nothing."""
    from sftplug.model.loading import skeleton

    problems = model_problems(trial.adapter, skeleton(trial.run.recipe))
    demand(
        not problems,
        f"for a Llama with {', '.join(sorted(_ends(trial)))}: {shown(problems)}",
        "give the check options that fit such a model, or fix check_model.",
    )


def suits_the_trainer(trial: AdapterTrial) -> None:
    """``train_defaults`` returns options of the ``train`` section, by name and type, the same each time."""
    from sftplug.recipe.train_options import problems_in_train

    first, second = (train_defaults(trial.adapter, trial.run.recipe) for _ in range(2))
    wrong = [f"`{name}` {text}" for name, text in problems_in_train(first)]
    demand(
        first == second and not wrong,
        "; ".join([shown(first), *([f"and then {shown(second)}"] if first != second else []), *wrong]),
        "return a dict such as {'learning_rate': 2e-4}, of fields of trl.SFTConfig that no other section decides.",
    )


def trains_what_it_says(trial: AdapterTrial) -> None:
    """Something is trained; the base model's own weights only where ``trains_base`` says so."""
    from sftplug.model.loading import skeleton

    trained = [name for name, value in trial.run.trainer.model.named_parameters() if value.requires_grad]
    demand(bool(trained), "no parameter is trained", "return a configuration, or unfreeze in prepare_model.")
    if not trial.is_peft:
        base = {name for name, _ in skeleton(trial.run.recipe).named_parameters()}
        own = [name for name in trained if name in base]
        demand(
            trial.adapter.trains_base or not own,
            f"peft_config() is None, so the base model's {shown(own, 100)} are trained, but `trains_base` is False",
            "freeze the base with `model.requires_grad_(False)`, or set `trains_base: ClassVar[bool] = True`.",
        )


def learns(trial: AdapterTrial) -> None:
    """The loss over the same rows is lower after a few steps, and everything that is trained has a gradient."""
    before, after = trial.run.losses
    demand(
        after < before,
        f"the loss was {before:.4f} before 5 steps, and is {after:.4f}",
        "see that what is trained is used by the forward pass, and starts where its gradient is not zero.",
    )


def reloads_to_the_same_logits(trial: AdapterTrial) -> None:
    """Saved, and loaded onto a base model loaded again, it gives the same logits."""
    live = logits(trial.run.trained)
    with tempfile.TemporaryDirectory(prefix="sftplug-") as folder:
        _save(trial, Path(folder))
        found = difference(live, logits(_reload(trial, Path(folder))))
    demand(
        found <= EXACT,
        f"the logits differ by {found:.2g} of the largest, more than the {EXACT:.0e} of rounding",
        "what prepare_model or an initialization changes in the base must not differ from load to load, and everything "
        "that is trained must be in what is saved (`modules_to_save`; `save` and `load` of an adapter that is no type "
        "of PEFT).",
    )


def is_loaded_by_its_card(trial: AdapterTrial) -> None:
    """What an adapter saves that is no type of PEFT, its ``loading_code`` loads without sftplug: to the same logits."""
    if not trial.saves_itself:
        return
    from sftplug.model.own_adapter import by_card

    live = logits(trial.run.trained)
    with tempfile.TemporaryDirectory(prefix="sftplug-") as folder:
        _save(trial, Path(folder))
        found = difference(live, logits(by_card(trial.adapter, trial.run.load_base(), files=Path(folder))))
    demand(
        found <= EXACT,
        f"the logits differ by {found:.2g} of the largest, more than the {EXACT:.0e} of rounding",
        "override loading_code to return Python that does to the base `model` what `load` does, of what is in `files`.",
    )


def merges_if_it_says_so(trial: AdapterTrial) -> None:
    """Merged into the base, it gives the same logits; unless ``mergeable`` says that it cannot be merged."""
    if not ((trial.is_peft or trial.saves_itself) and mergeable(trial.adapter)):
        return
    live = logits(trial.run.trained)
    fix = "override `mergeable` to return False, if what is trained is not an update of weights"
    fix += ", or `merge`, which returns a model that plain transformers loads." if trial.saves_itself else "."
    try:
        model = merged(trial.adapter, trial.run.trained)
    except SftplugError as error:
        raise Breach(f"merging raised {type(error).__name__}: {error}", fix) from error
    found = difference(live, logits(_as_others_load(model) if trial.saves_itself else model))
    demand(found <= MERGED, f"the logits of the merged model differ by {found:.2g} of the largest", fix)


LAWS = (
    gives_the_same_configuration,
    fits_a_model,
    suits_the_trainer,
    trains_what_it_says,
    learns,
    reloads_to_the_same_logits,
    is_loaded_by_its_card,
    merges_if_it_says_so,  # last: merging changes the trained model
)


def _save(trial: AdapterTrial, folder: Path) -> None:
    if trial.saves_itself:
        save_adapter(trial.adapter, trial.run.trained, folder)
    else:
        trial.run.trained.save_pretrained(folder)


def _reload(trial: AdapterTrial, folder: Path) -> Any:
    if trial.saves_itself:
        base = trial.run.load_base()
        load_adapter(trial.adapter, base, folder)
        return base
    if not trial.is_peft:
        return _plainly(folder)
    from peft import PeftModel

    return PeftModel.from_pretrained(trial.run.load(), folder)


def _plainly(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder)


def _as_others_load(model: Any) -> Any:
    """Return a merged model as whoever gets it loads it."""
    with tempfile.TemporaryDirectory(prefix="sftplug-") as folder:
        model.save_pretrained(folder)
        return _plainly(Path(folder))


def _ends(trial: AdapterTrial) -> set[str]:
    from sftplug.model.loading import skeleton

    names = [name.rpartition(".")[2] for name, _ in skeleton(trial.run.recipe).named_modules() if name]
    return {name for name in names if not name.isdigit()}
