"""Say what a run will cost in memory and time."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from sftplug.api.recipes import Given, loaded
from sftplug.api.rows import prepare
from sftplug.errors import SftplugError
from sftplug.plugin.calls import is_remote, label
from sftplug.recipe.in_words import chosen_names, numbers_in_words, train_in_words
from sftplug.recipe.origins import origin_by_path
from sftplug.util.arguments import argument
from sftplug.util.redact import redact

if TYPE_CHECKING:
    from sftplug.planning import Fit, Planner, TrainingRows
    from sftplug.planning.answer import PlanAnswer
    from sftplug.recipe.load import LoadedRecipe

_UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


def plan(
    recipe: Given, memory: str | int | None = None, *, device: str | None = None, rows: int | None = None
) -> PlanAnswer:
    """Return what a run will take; loads no weights, and downloads no more than the model's configuration.

    `memory` is what it must fit in, ``"24GB"`` or bytes; `device` is what it is planned for, such as ``"H100"`` or
    ``"cpu"``, by default this machine, and its memory is the limit where none is given; `rows` says how many rows there
    are, else they are counted where they lie on this machine. ``.fits`` says whether it does, ``.overrides`` what to
    change if not.
    """
    from sftplug.planning import Planner
    from sftplug.planning.answer import PlanAnswer
    from sftplug.planning.notes import uncounted
    from sftplug.training.preflight.notices import notices
    from sftplug.util.device import find_device

    chosen = find_device(device)
    known = loaded(recipe, "plan")
    found = known if device is None else known.again(device=chosen)
    limit = parse_bytes(memory) if isinstance(memory, str) else memory
    counted, why = _rows(found, rows)
    study = Planner(found.recipe, chosen, counted)
    planned = study.plan()
    if limit is None and device is not None and not chosen.on_cpu:
        limit = chosen.memory
    fits = limit is None or planned.memory.total.high <= limit
    written = found.recipe.model_dump(mode="json", include={"quantization", "optimizer", "schedule", "train"})
    return PlanAnswer(
        plan=planned,
        limit=limit,
        fits=fits,
        tried=[] if limit is None or fits else _tried(found, study, limit, named=device is not None),
        largest_batch=None if limit is None else study.largest_batch(limit),
        why=why,
        notes=[
            *planned.notes,
            *uncounted(found.recipe),
            *notices(found, chosen, planned.work.updates),
        ],
        in_force=[
            *numbers_in_words(written["quantization"]),
            *train_in_words(written["train"], *chosen_names(written)),
        ],
        origins=origin_by_path(found),
        values=written,
        float_experts=study.weights.size.float_experts,
    )


def _tried(recipe: LoadedRecipe, study: Planner, limit: int, *, named: bool) -> list[Fit]:
    """Return the changes that were tried, on one device and, where none of them is enough, on several."""
    from sftplug.planning import shared, ways_to_fit

    def load(more: list[str]) -> LoadedRecipe:
        return recipe.again(*more, device=study.device if named else None)

    tried = list(ways_to_fit(load, study, limit))
    if not tried or not tried[-1].fits:
        several = shared(load, study, tried[-1].overrides if tried else (), limit)
        tried += [several] if several is not None else []
    return tried


def parse_bytes(text: str, name: str = "memory") -> int:
    """Return the bytes that ``24GB`` or ``22.5 GiB`` says. Raises SftplugError, with `name`, for anything else."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", text)
    unit = found.group(2).upper() if found else None
    if found is None or unit not in _UNITS or not (size := int(float(found.group(1)) * _UNITS[unit])):
        raise SftplugError(f"{name} {text!r} is not an amount of memory. Write it as 24GB, 22.5GiB or 512MB.")
    return size


def _rows(recipe: LoadedRecipe, count: int | None) -> tuple[TrainingRows | None, str | None]:
    """Return the rows that a run trains on, or why they are not known."""
    from sftplug.planning import TrainingRows, rows_of

    if count is not None:
        return TrainingRows(count), None
    remote = [label(source.source) for source in recipe.recipe.data.train if is_remote(source.source)]
    if remote:
        told = f"{argument('--rows')} says how many"
        return None, f"{remote[0]} is not on this machine, and nothing is downloaded for a plan. {told}."
    try:
        return rows_of(prepare(recipe, quiet=True)), None
    except SftplugError as error:
        return None, f"they cannot be prepared: {redact(str(error).splitlines()[0])}"
