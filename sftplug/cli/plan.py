"""``sftplug plan``"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import rich
import typer

from sftplug.answers import is_remote, label
from sftplug.cli.display import say
from sftplug.cli.options import NoPlugin, Overrides, RecipeName, Verbose, be_verbose, open_recipe, prepare_rows
from sftplug.device import find_device
from sftplug.errors import SftplugError
from sftplug.notices import notices
from sftplug.recipe.in_words import numbers_in_words, train_in_words
from sftplug.recipe.origins import origin_by_path
from sftplug.redact import redact

if TYPE_CHECKING:
    from sftplug.plan import Memory, Plan, Range, Rows, Study, Trial
    from sftplug.recipe import LoadedRecipe

_UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


def plan(  # noqa: PLR0913 - the parameters are the command's options
    recipe: RecipeName,
    overrides: Overrides = None,
    memory: Annotated[str | None, typer.Option("--memory", metavar="24GB", help="Memory that it must fit in.")] = None,
    device: Annotated[
        str | None, typer.Option("--device", metavar="NAME", help="Device to plan for: H100, RTX4090, cpu …")
    ] = None,
    row_count: Annotated[
        int | None, typer.Option("--rows", metavar="N", min=1, help="Plan for so many rows, and read none.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    no_plugin: NoPlugin = None,
    verbose: Verbose = False,
) -> None:
    """Say what a run will cost in memory and time; loads no weights, and downloads no more than the configuration.

    Rows are counted where they lie on this machine, which needs the tokenizer. With --memory, or a --device whose
    memory is known, exit 1 if the run may not fit, after saying what to change.
    """
    be_verbose(verbose)
    limit = None if memory is None else parse_bytes(memory)
    chosen = find_device(device)
    named = chosen if device is not None else None

    def load(more: list[str]) -> LoadedRecipe:
        return open_recipe(recipe, [*(overrides or []), *more], no_plugin, device=named)

    loaded = load([])
    from sftplug.plan import Study

    rows, why = _rows(loaded, row_count)
    study = Study(loaded.recipe, chosen, rows)
    planned = study.plan()
    if limit is None and device is not None and not chosen.on_cpu:
        limit = chosen.memory
    fits = limit is None or planned.memory.total.high <= limit
    tried: list[Trial] = []
    if limit is not None and not fits:
        tried = _tried(load, study, limit)
    answer = Answer(planned, why, limit, fits, tried, study, loaded)
    typer.echo(json.dumps(answer.to_dict(), indent=2)) if as_json else answer.show()
    if not fits:
        raise typer.Exit(1)


def _tried(load: Callable[[list[str]], LoadedRecipe], study: Study, limit: int) -> list[Trial]:
    """Return the changes that were tried, on one device and, where none of them is enough, on several."""
    from sftplug.plan import shared, trials

    tried = list(trials(load, study, limit))
    if not tried or not tried[-1].fits:
        several = shared(load, study, tried[-1].overrides if tried else (), limit)
        tried += [several] if several is not None else []
    return tried


def parse_bytes(text: str) -> int:
    """Return the bytes that ``24GB`` or ``22.5 GiB`` says. Raises SftplugError for anything else."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", text)
    unit = found.group(2).upper() if found else None
    if found is None or unit not in _UNITS or not (size := int(float(found.group(1)) * _UNITS[unit])):
        raise SftplugError(f"--memory {text!r} is no amount of memory. Write it as 24GB, 22.5GiB or 512MB.")
    return size


def _rows(loaded: LoadedRecipe, count: int | None) -> tuple[Rows | None, str | None]:
    """Return the rows that a run trains on, or why they are not known."""
    from sftplug.plan import Rows, rows_of

    if count is not None:
        return Rows(count), None
    remote = [label(source.source) for source in loaded.recipe.data.train if is_remote(source.source)]
    if remote:
        return None, f"{remote[0]} is not on this machine, and nothing is downloaded for a plan. --rows says how many."
    try:
        return rows_of(prepare_rows(loaded, quiet=True)), None
    except SftplugError as error:
        return None, f"they cannot be prepared: {redact(str(error).splitlines()[0])}"


class Answer:
    """The plan, and whether it fits."""

    def __init__(  # noqa: PLR0913 - what there is to say
        self,
        plan: Plan,
        why: str | None,
        limit: int | None,
        fits: bool,
        tried: list[Trial],
        study: Study,
        loaded: LoadedRecipe,
    ) -> None:
        self.plan, self.why, self.limit, self.fits, self.tried = plan, why, limit, fits, tried
        self.float_experts = study.weights.size.float_experts
        self.origins, held = origin_by_path(loaded), loaded.recipe.quantization.model_dump(mode="json")
        self.in_force = [*numbers_in_words(held), *train_in_words(loaded.recipe.train)]
        self.values = {"quantization": held, "train": loaded.recipe.train}
        self.notes = [*plan.notes, *notices(loaded, study.device)]
        self.largest = None if limit is None else study.largest_batch(limit)

    def to_dict(self) -> dict[str, Any]:
        """Return the answer as JSON holds it."""
        found = self.tried[-1] if self.tried and self.tried[-1].fits else None
        return {
            **self.plan.to_dict(),
            "notes": self.notes,
            "in_force": {path: self._value(path) for _, _, path in self.in_force},
            "rows_unknown_because": self.why,
            "limit": self.limit,
            "fits": self.fits if self.limit is not None else None,
            "largest_batch": self.largest,
            "tried": [
                {"overrides": list(t.overrides), "total": [t.total.low, t.total.high], "fits": t.fits}
                for t in self.tried
            ],
            "overrides": list(found.overrides) if found else None,
        }

    def _value(self, path: str) -> dict[str, Any]:
        section, _, option = path.partition(".")
        return {"value": self.values[section][option], "origin": self.origins[path]}

    def show(self) -> None:
        """Print the answer for a person."""
        _show_memory(self.plan)
        _show_training(self)
        _show_work(self.plan, self.why)
        console = rich.get_console()
        if self.limit is not None:
            _show_fit(self, _size(self.limit))
        for note in self.notes:
            console.print(f"note: {note}", highlight=False, markup=False)


def _show_memory(plan: Plan) -> None:
    from rich.box import SIMPLE
    from rich.table import Table

    settings = plan.settings
    console = rich.get_console()
    console.print(
        f"{settings['adapter']} on {settings['quantization']}: {plan.trainable:,} of {plan.total:,} parameters are "
        f"trained\n{settings['batch']} rows of {settings['length']} tokens, times {settings['accumulation']}; "
        f"checkpointing {'on' if settings['checkpointing'] else 'off'}, {settings['attention']} attention, "
        f"{settings['optimizer']}; on {plan.device}",
        highlight=False,
        markup=False,
    )
    table = Table("memory", "", box=SIMPLE)
    for name, size in _lines(plan.memory):
        table.add_row(name, size)
    table.add_row("in all", _span(plan.memory.total), style="bold")
    console.print(table)


def _lines(memory: Memory) -> list[tuple[str, str]]:
    return [
        ("base weights", _span(memory.base)),
        ("adapter", _size(memory.adapter)),
        ("gradients", _size(memory.gradients)),
        ("optimizer state", _span(memory.optimizer)),
        ("activations", _span(memory.activations)),
        ("logits and loss", _span(memory.logits)),
        ("libraries, allocator or driver", _span(memory.overhead)),
        *([("sent between processes", _span(memory.communication))] if memory.communication.high else []),
    ]


def _show_training(answer: Answer) -> None:
    """Show what is in force, and where it comes from."""
    for name, value, path in answer.in_force:
        say(f"{name}: {value} ({answer.origins[path]})")


def _show_work(plan: Plan, why: str | None) -> None:
    work = plan.work
    lines = []
    if work.updates is None:
        lines.append(f"updates: unknown, one for every {work.rows_per_update:,} rows; {why}")
    else:
        known = f"{work.rows:,} rows" if work.rows is not None else f"rows unknown: {why}"
        lines.append(f"updates: {work.updates:,} of {work.rows_per_update:,} rows ({known})")
    if work.tokens is not None:
        low, high = work.tokens.low, work.tokens.high
        lines.append(f"tokens: {high:,}" if low == high else f"tokens: at most {high:,}")
    in_all = f", {work.flops:.3g} in all" if work.flops else ""
    lines.append(f"operations: {work.flops_per_token:.3g} a token{in_all}")
    if work.seconds is not None:
        counted = work.tokens is not None and work.tokens.exact
        span = f"{_time(work.seconds[0])} to" if counted else "at most"
        lines.append(f"time: {span} {_time(work.seconds[1])}, from assumed efficiencies")
    for line in lines:
        rich.get_console().print(line, highlight=False, markup=False)


def _show_fit(answer: Answer, limit: str) -> None:
    console = rich.get_console()
    if answer.fits:
        console.print(f"fits in {limit}; the largest batch that does: {answer.largest:,} rows", highlight=False)
        return
    console.print(f"[bold]may not fit in {limit}[/]; the largest batch that does: {answer.largest or 'none'}")
    for trial in answer.tried:
        console.print(f"  {_span(trial.total)}  {trial.overrides[-1]}  ({trial.change})", highlight=False, markup=False)
    if answer.tried and answer.tried[-1].fits:
        console.print("it fits with these overrides:", highlight=False)
        typer.echo("  " + " ".join(answer.tried[-1].overrides))
    else:
        console.print(_no_way(answer), highlight=False, markup=False)


def _no_way(answer: Answer) -> str:
    """Say what would help where nothing that was tried does: what takes the memory decides that."""
    experts, base = answer.float_experts, answer.plan.memory.base.low
    if experts > base / 2:
        return (
            f"nothing that was tried makes it fit: {_size(experts)} of the {_size(base)} of base weights are experts, "
            "which this quantization leaves as floats. Choose a larger device, several devices (`launch.strategy: "
            "fsdp2`), or a model with less in its experts"
        )
    return "nothing that was tried makes it fit: choose a larger device, several of them (`launch`), or a smaller model"


def _span(size: Range) -> str:
    return _size(size.low) if size.exact else f"{_size(size.low)} to {_size(size.high)}"


def _size(count: int) -> str:
    """Return ``1.23 GB`` for bytes; a GB is 10⁹ bytes."""
    for unit, factor in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= factor:
            return f"{count / factor:,.2f} {unit}" if count < 100 * factor else f"{count / factor:,.0f} {unit}"
    return f"{count} B"


def _time(seconds: float) -> str:
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 1.5 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.2g} s"
