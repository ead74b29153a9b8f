"""Write a finished model in the form in which another program takes it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from sftplug.errors import PluginError, RunError
from sftplug.model.patching import for_inference, patches_in_force
from sftplug.plugin import calls
from sftplug.plugin.errors import plugin_error, plugin_errors
from sftplug.recipe.adapter_base import is_adapter
from sftplug.run.card import write_card
from sftplug.run.files import EXPORTED, noting
from sftplug.ship.merge import Merge, reloaded
from sftplug.ship.proof import Proof, Trained, proof, refuse, trained
from sftplug.ship.push import model_files
from sftplug.storage.disk import no_room
from sftplug.storage.folder import atomic_file, atomic_folder
from sftplug.types.finished_model import FinishedModel

if TYPE_CHECKING:
    from sftplug.plugin.components import Exporter
    from sftplug.recipe.model import Recipe
    from sftplug.run import RunDirectory
    from sftplug.ship.rows import MeasuredRows

EXPORTS = "exports"
"""The folder in that of a run where exports are written if nothing else is said."""


def place_of(exporter: Exporter, run: Path) -> Path:
    """Return where an exporter writes if nothing else is said: ``RUN/exports/zip.zip``, ``RUN/exports/folder``."""
    return run / EXPORTS / f"{exporter.type}{exporter.suffix}"


@dataclass(frozen=True, slots=True)
class Sources:
    """Where an export has what it is made of, and compared on, when it is asked for."""

    merge: Callable[[], Path]
    """Returns a folder with the merged model."""
    rows: Callable[[], MeasuredRows]
    """Returns rows on which what was written is compared with the trained model."""


@dataclass(frozen=True, slots=True)
class Exported:
    """What an export came to."""

    path: Path
    proofs: tuple[Proof, ...]
    """How it compares with the trained model, read by each program that runs it and is there."""


def export(  # noqa: PLR0913 - what is exported, how, and where to; each is one thing
    exporter: Exporter, run: RunDirectory, recipe: Recipe, output: Path, sources: Sources, of_run: Recipe
) -> Exported:
    """Write the model of a finished run to `output`, whole or not at all, and say what came of it.

    `recipe` is what is asked for now, `of_run` the run's own, of which its card tells.

    Raises RunError where something is at `output` already, PluginError and ModelError for an exporter that fails, or
    whose form says something else than the trained model.
    """
    folder = run.path
    merging = sources.merge if calls.needs_merged(exporter) else _refuse_to_merge(exporter)
    model = FinishedModel(folder, tuple(model_files(folder)), is_adapter(folder), recipe, merging)
    is_inside = folder.resolve() in output.resolve().parents
    atomic = atomic_file if exporter.suffix else atomic_folder
    # What is noted is known for the run's own by `train --overwrite`.
    with noting(folder) if is_inside else nullcontext(), atomic(output) as target:
        with _no_fault_of_the_exporter(output):
            calls.export(exporter, model, target)
        proofs = _proofs(exporter, target, replace(model, _merge=sources.merge), sources)
        refuse(proofs, exporter.type)
    _record(run, exporter, output, proofs)
    if proofs:
        with suppress(OSError):
            write_card(run, of_run, folder)
    return Exported(output, proofs)


@contextmanager
def _no_fault_of_the_exporter(output: Path) -> Iterator[None]:
    """Let a disk that is full be told as such: the exporter wrote, and there was no room."""
    try:
        yield
    except PluginError as error:
        if (room := no_room(error, output)) is None:
            raise
        raise RunError(f"{output} cannot be written: {room.reason}. Nothing was kept.") from error


def _proofs(exporter: Exporter, target: Path, model: FinishedModel, sources: Sources) -> tuple[Proof, ...]:
    """Compare what was written with the trained model, by each engine that is there."""
    if not calls.compares(exporter):
        return ()
    known = _trained(model, sources.rows())
    allowed = calls.tolerance(exporter, Merge().allows(known.dtype))
    found = []
    for engine in calls.served(exporter, target, model):
        with plugin_errors(exporter, "served"):
            found.append(proof(known, engine, allowed))
    return tuple(found)


def _trained(model: FinishedModel, rows: MeasuredRows) -> Trained:
    """Return what the trained model says; its weights are let go before the others are read."""
    from transformers import GenerationConfig

    folder = model.merged()
    recipe = for_inference(model.recipe)
    ends = GenerationConfig.from_pretrained(str(folder)).eos_token_id
    with patches_in_force(recipe):
        loaded = reloaded(recipe, folder)
        return trained(folder, loaded, rows, ends if isinstance(ends, list) else [] if ends is None else [ends])


def _record(run: RunDirectory, exporter: Exporter, output: Path, proofs: Sequence[Proof]) -> None:
    """Keep in the run what was exported, and what the comparison said; a run that cannot be written goes without."""
    options = exporter.model_dump(mode="json", exclude={"type"})
    compared = [found.to_dict() for found in proofs]
    entry = {"exporter": exporter.type, "options": options, "steps": run.state().steps, "compared": compared}
    place = str(output.resolve())
    others = {name: known for name, known in run.exports().items() if name != place}
    with suppress(OSError):
        run.write(EXPORTED, {**others, place: entry})


def _refuse_to_merge(exporter: Exporter) -> Callable[[], Path]:
    def refuse() -> Path:
        text = "asks for the merged model, and `needs_merged` is False: what cannot be merged would be found too late"
        raise plugin_error(exporter, "export", text)

    return refuse
