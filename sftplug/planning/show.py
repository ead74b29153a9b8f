"""A plan in words, for a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

    from sftplug.planning.answer import PlanAnswer
    from sftplug.planning.result import Memory, Plan, Range
    from sftplug.types.result import ParameterCounts


def show(answer: PlanAnswer, console: Console) -> None:
    """Print what a run takes, and whether it fits."""
    _show_memory(answer.plan, console)
    for name, value, path in answer.in_force:
        console.print(f"{name}: {value} ({answer.origins[path]})", markup=False, highlight=False, soft_wrap=True)
    _show_work(answer.plan, answer.why, console)
    if answer.limit is not None:
        _show_fit(answer, _size(answer.limit), console)
    show_parts(answer.plan.size, console)
    for note in answer.notes:
        console.print(f"note: {note}", highlight=False, markup=False)


def _show_memory(plan: Plan, console: Console) -> None:
    from rich.box import SIMPLE
    from rich.table import Table

    settings = plan.settings
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


def show_parts(size: ParameterCounts, console: Console) -> None:
    """Print what is done with each kind of module, if that is known."""
    from rich.box import SIMPLE
    from rich.table import Table

    if not size.parts:
        return
    table = Table("part of the model", "modules", "in training", "held in", "of the weights", box=SIMPLE)
    for row in size.table():
        table.add_row(*row)
    console.print(table)


def _lines(memory: Memory) -> list[tuple[str, str]]:
    return [
        ("base weights", _span(memory.base)),
        *([("teacher's weights", _size(memory.teacher))] if memory.teacher else []),
        ("adapter", _size(memory.adapter)),
        ("gradients", _size(memory.gradients)),
        ("optimizer state", _span(memory.optimizer)),
        ("activations", _span(memory.activations)),
        ("logits and loss", _span(memory.logits)),
        ("libraries, allocator or driver", _span(memory.overhead)),
        *([("sent between processes", _span(memory.communication))] if memory.communication.high else []),
    ]


def _show_work(plan: Plan, why: str | None, console: Console) -> None:
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
        console.print(line, highlight=False, markup=False)


def _show_fit(answer: PlanAnswer, limit: str, console: Console) -> None:
    if answer.fits:
        console.print(f"fits in {limit}; the largest batch that does: {answer.largest_batch:,} rows", highlight=False)
        return
    console.print(f"[bold]may not fit in {limit}[/]; the largest batch that does: {answer.largest_batch or 'none'}")
    for trial in answer.tried:
        console.print(f"  {_span(trial.total)}  {trial.overrides[-1]}  ({trial.change})", highlight=False, markup=False)
    if answer.tried and answer.tried[-1].fits:
        console.print("it fits with these overrides:", highlight=False)
        console.print("  " + " ".join(answer.tried[-1].overrides), markup=False, highlight=False, soft_wrap=True)
    else:
        console.print(_no_way(answer), highlight=False, markup=False)


def _no_way(answer: PlanAnswer) -> str:
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
