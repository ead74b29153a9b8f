"""The head of a run: what its recipe names, else the fastest of those in use that is equal; kept until the run ends."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

from sftplug.errors import ModelError, RunError, SftplugError
from sftplug.plugin.calls import head_problems, teacher_of
from sftplug.plugin.components import Head
from sftplug.plugin.errors import describe
from sftplug.training.head_trials import Trials
from sftplug.training.usual_head import (
    CHUNKED,
    FULL,
    FUSED,
    HeadInUse,
    first_head,
    head_before,
    in_use,
    only_likelihood,
    splits,
)
from sftplug.util.processes import is_main, share

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sftplug.recipe.load import LoadedRecipe
    from sftplug.run import RunSession
    from sftplug.training.head_trials import Trial
    from sftplug.training.trainer import SftplugTrainer

OF_CORE = {head.name: head for head in (FULL, CHUNKED, FUSED)}
WORTH_IT = 2**28
"""Bytes of logits in 32 bits below which the time that a head takes is not worth finding out: 256 MiB."""
FASTER = 0.9
"""A head is taken in place of the usual one if it takes at most this part of its time: clocks are not exact."""


@dataclass(frozen=True, slots=True)
class SettledHead:
    """What the record of a run says of its head."""

    name: str
    why: str = ""
    """Empty where it is the usual one, and nothing was tried."""
    tried: tuple[Trial, ...] = ()
    not_tried: tuple[str, ...] = ()
    """Heads of plugins that are installed and not in use: nothing of those is called."""

    def in_words(self) -> str:
        """Return which it is, why, and how to keep it; empty where it is the usual one and nothing was tried."""
        if not self.why:
            return ""
        said = f"{self.name}, {self.why}"
        if self.tried:
            said += f". Clocks differ: a new run may take another head, unless its recipe says `loss.head: {self.name}`"
        if self.not_tried:
            said += f". Installed and not tried, for the recipe does not use its plugin: {', '.join(self.not_tried)}"
        return said


def settle_head(loaded: LoadedRecipe, trainer: SftplugTrainer, session: RunSession) -> None:
    """Give `trainer` its head, and write down which and why; a resumed run goes on with the one that it had.

    Raises ModelError for a head that the recipe names and that is not equal, or cannot be used for this model.
    """
    found = share(_settled(loaded, trainer, session) if is_main() else None)
    trainer.scorer.head = _by_name(found.name, loaded)
    trainer.head = found.in_words()
    session.state.head = asdict(found)


def _settled(loaded: LoadedRecipe, trainer: SftplugTrainer, session: RunSession) -> SettledHead:
    recipe = loaded.recipe
    on_cpu = trainer.args.device.type == "cpu"
    first = first_head(recipe, on_cpu=on_cpu)
    if recipe.loss.head is not None:
        _refuse_unequal(recipe.loss.head, Trials(trainer))
        return SettledHead(first.name, "as the recipe says")
    if session.checkpoint is not None:
        known = session.state.head or {"name": head_before(recipe, on_cpu=on_cpu).name}
        return SettledHead(known["name"], "as the run was begun")
    if first is FULL and not on_cpu:  # there is no other
        return SettledHead(first.name)
    others = list(_others(loaded, trainer, first))
    if not others and first is not CHUNKED:
        return SettledHead(first.name)
    found = _fastest(first, others, Trials(trainer))
    return replace(found, not_tried=tuple(_idle(loaded))) if found.tried else found


def _by_name(name: str, loaded: LoadedRecipe) -> HeadInUse:
    """Return the head of that name. Raises RunError where no plugin in use offers it any more."""
    named = loaded.recipe.loss.head
    if named is not None and named.type == name:
        return in_use(named)
    if name in OF_CORE:
        return OF_CORE[name]
    offered = {head.type: head for head in loaded.registry.without_options(Head, loaded.active)}
    if name not in offered:
        raise RunError(
            f"the run was begun with the head '{name}', which no plugin in use offers. Install the plugin that does "
            "and name it under `plugins`, or begin a new run."
        )
    return in_use(offered[name])


# --- the fastest that is equal ----------------------------------------------------------------------------------------


def _others(loaded: LoadedRecipe, trainer: SftplugTrainer, first: HeadInUse) -> Iterator[HeadInUse]:
    """Yield the heads that may be taken in place of the usual one: they hold no more logits than that does."""
    recipe = loaded.recipe
    apart = recipe.loss.reads_base or teacher_of(recipe.loss) is not None  # their time is not that of one head
    if apart or splits(recipe) or trainer.splits_model() or any(patch.changes_logits for patch in recipe.patches):
        return
    if first is not CHUNKED:
        yield CHUNKED
    if not only_likelihood(recipe.loss):
        return
    if first is not FUSED:
        yield FUSED
    for head in loaded.registry.without_options(Head, loaded.active):
        if head.takes == "states" and _is_usable(head, trainer):
            yield in_use(head)


def _idle(loaded: LoadedRecipe) -> Iterator[str]:
    """Yield each head that could be tried if its plugin were in use, with that plugin."""
    if not only_likelihood(loaded.recipe.loss):
        return
    for name, offer in sorted(loaded.registry.offers[Head].items()):
        if offer.plugin.name not in loaded.active and name not in OF_CORE:
            yield f"{name} (of plugin {offer.plugin.name})"


def _is_usable(head: Head, trainer: SftplugTrainer) -> bool:
    try:
        return not head_problems(head, trainer.accelerator.unwrap_model(trainer.model))
    except SftplugError:  # a library is missing, say: nobody asked for it by name
        return False


def _fastest(first: HeadInUse, others: list[HeadInUse], trials: Trials) -> SettledHead:
    """Return the fastest head that is equal; the usual one where logits are so few that it hardly matters."""
    if first is CHUNKED and (said := trials.unlike_logits(CHUNKED)):
        return SettledHead(FULL.name, f"because {said}")
    if not others or trials.bytes_of_logits < WORTH_IT:
        return SettledHead(first.name)
    tried = tuple(trials.of([first, *others]))
    usual = next(trial for trial in tried if trial.head == first.name)
    equal = [trial for trial in tried if trial.seconds is not None and trial.is_equal]
    best = min(equal, key=lambda trial: trial.seconds or 0.0, default=usual)
    if usual.seconds is not None and (best.seconds or 0.0) > FASTER * usual.seconds:
        best = usual
    return SettledHead(best.head, _why(best, usual, len(tried), trials.tokens), tried)


def _why(best: Trial, usual: Trial, count: int, tokens: int) -> str:
    where = f"tried on {tokens:,} tokens of the longest rows"
    if best is usual:
        return f"the fastest of {count} that is equal, {where}"
    if usual.seconds is None or best.seconds is None:
        return f"because '{usual.head}' {usual.failed}, {where}"
    return f"{usual.seconds / best.seconds:.1f} times as fast as '{usual.head}' and equal, {where}"


def _refuse_unequal(head: Head, trials: Trials) -> None:
    """Raise ModelError for a head that computes something else than the model's own logits say."""
    said = trials.unlike_logits(in_use(head))
    if said:
        raise ModelError(f"loss.head: {describe(head)}: {said}. Choose `head: full`, or leave it out.")
