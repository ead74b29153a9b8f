"""What is shown at the moments of a run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import rich
import rich.box
from rich.markup import escape as escape_markup
from rich.table import Table

from sftplug import train_in_words, visible
from sftplug_console.curve import draw_curve

if TYPE_CHECKING:
    from sftplug import Account, Ledger, Mixed, MovedWeights, ParameterCounts, Recipe, RunResult


def escape(text: str) -> str:
    """Return `text` so that neither rich nor the terminal takes it for more than text."""
    return escape_markup(visible(text))


def show_recipe(recipe: Recipe, origins: Mapping[str, str]) -> None:
    """Show what the recipe chose, what is in force where it says nothing, and where each value comes from."""
    table = Table(show_header=False, box=None, pad_edge=False)
    build = recipe.model.build
    table.add_row("model", escape(str(build.type if build else recipe.model.name_or_path)))
    if recipe.model.adapter is not None:
        how = "merged into it, beside which a new one is trained" if recipe.model.merge_adapter else "trained on"
        where = origins.get("model.adapter", "")
        table.add_row("", escape(f"with the adapter of {recipe.model.adapter}: {how}"), f"[dim]{escape(where)}")
    if recipe.model.trust_remote_code:
        code = recipe.model.code_revision or recipe.model.revision
        table.add_row("", f"[bold red]runs code that comes with the model, revision {escape(str(code))}")
    for split, sources in (("train", recipe.data.train), ("eval", recipe.data.eval)):
        for index, source in enumerate(sources):
            path = f"data.{split}[{index}].format.type"
            if origins.get(path) == "read from the rows":  # else the recipe says it
                table.add_row("format", escape(source.format.type), f"[dim]{origins[path]}")
    table.add_row("template", recipe.chat_template.type)
    table.add_row("masking", ", ".join(" + ".join(part.type for part in union) for union in recipe.masking))
    chosen = [("adapter", recipe.adapter.type, "adapter.type")]
    chosen += [("quantization", recipe.quantization.type, "quantization.type")]
    if dtype := getattr(recipe.quantization, "compute_dtype", None):
        chosen.append(("computes in", dtype, "quantization.compute_dtype"))
    chosen += [("patched by", patch.type, f"patches[{index}].type") for index, patch in enumerate(recipe.patches)]
    named = [getattr(part, "type", None) for part in (recipe.optimizer, recipe.schedule)]
    for name, value, path in [*chosen, *train_in_words(recipe.train, *named)]:
        table.add_row(name, escape(value), f"[dim]{escape(origins.get(path, ''))}")
    table.add_row("output", escape(recipe.output))
    rich.get_console().print(table)


def show_ledger(ledger: Ledger) -> None:
    """Show what became of every row, source by source."""
    rows = []
    for split, account in ledger.accounts():
        facts = account.to_dict()
        lengths = " / ".join(str(facts["length_quantiles"].get(name, "-")) for name in ("50%", "99%", "100%"))
        name = escape(account.source.rpartition("/")[2])
        rows.append((split, name, _fate(account), f"{account.tokens:,}", f"{facts['trained_share']:.0%}", lengths))
    console = rich.get_console()
    _show_table(("split", "source", "rows", "tokens", "trained", "length"), rows)
    if ledger.mixed:
        _show_mix(ledger.mixed)
    for split, packing in ledger.packed.items():
        console.print(
            f"packed {split}: {packing.documents:,} documents into {packing.rows:,} rows, {packing.fill:.0%} full"
        )
    stops = ", ".join(f"{escape(stop)} ({turns:,} turns)" for stop, turns in ledger.stops.items())
    console.print(f"stops learned: {stops or 'none'}", highlight=False)
    if ledger.preamble:
        console.print(
            f"the template says before rows without a system turn: {escape(ledger.preamble)}", highlight=False
        )
    if ledger.reused:
        console.print("these rows were prepared before; nothing was tokenized")
    for _, account in ledger.accounts():
        _show_notes(account)


def _show_notes(account: Account) -> None:
    """Show what the user should know about rows that go on, and about what is lost."""
    console = rich.get_console()
    for said in _facts(account):
        console.print(f"note: {escape(f'{account.source}: {said}')}", highlight=False)
    left_out = {stage: f"left out: {stage}" for stage in account.dropped}
    for kind, name in {**left_out, **{kind: kind for kind in account.noted}}.items():
        groups = account.groups[kind].largest()
        shown = groups if len(groups) == REASONS + 1 else groups[:REASONS]
        for group in shown:
            console.print(f"note: {escape(f'{name}; {group.sentence()}')}", highlight=False)
        if others := groups[len(shown) :]:
            rest = f"{sum(group.rows for group in others):,} rows for {len(others)} other reasons"
            console.print(f"note: {escape(name)}; {rest}", highlight=False)


def _facts(account: Account) -> Iterator[str]:
    """Yield what is to be said of a source as a whole."""
    yield from account.said
    yield from (f"{step.processor}: {step.in_words()}" for step in account.processed)
    if account.unread:
        yield f"not read by its format: {', '.join(account.unread)}"
    if account.filled:
        texts = ", ".join(f"{text} x {count:,}" for text, count in account.filled.items())
        yield f"filled in {texts}, in {account.filled_rows:,} rows"
    if account.led:
        yield f"{account.led:,} rows without a system turn begin with that of the recipe"
    if account.lost:
        share = account.lost / (account.lost + account.trained)
        yield f"{share:.1%} of its trained tokens are lost to length"


def _show_mix(mixed: Sequence[Mixed]) -> None:
    """Show what of each source is in the mix, and how often."""
    rows = []
    for item in mixed:
        wanted = f"{item.share:.1%}" if item.share else "-"
        name = escape(item.source.rpartition("/")[2])
        rows.append((name, f"{item.rows:,}", f"{item.passes:.2f}", f"{item.realised:.1%}", wanted, f"{item.unused:,}"))
    _show_table(("in the mix", "rows", "passes", "share", "wanted", "unused rows"), rows)


REASONS = 3
"""So many reasons are shown of each kind, and the last if it is the only other one; the ledger has more."""
NARROW = 60
"""On a narrower terminal the cells of a table would be a few letters each."""


def _show_table(names: Sequence[str], rows: Sequence[Sequence[str]], dim_last: bool = False) -> None:
    """Show a table; on a narrow terminal each row as lines of ``name value``."""
    console = rich.get_console()
    if console.width >= NARROW:
        table = Table(*names, box=rich.box.SIMPLE)
        for number, row in enumerate(rows, start=1):
            table.add_row(*row, style="dim" if dim_last and number == len(rows) else "")
        console.print(table)
        return
    for row in rows:
        for name, cell in zip(names, row, strict=True):
            console.print(f"{name} {cell}".strip(), highlight=False)
        console.print()


def _fate(account: Account) -> str:
    """Say what became of the rows of a source: ``1,000, 3 too long, +2 added``."""
    dropped = [f"{count:,} {stage}" for stage, count in account.dropped.items()]
    added = [f"+{account.added:,} added"] if account.added else []
    of = f" of {account.rows:,}" if dropped else ""
    return ", ".join([f"{account.kept:,}{of}", *dropped, *added])


def show_size(recipe: Recipe, size: ParameterCounts) -> None:
    """Show what is trained and what the weights take, beside full fine-tuning in 32 bits."""
    console = rich.get_console()
    ranks = {name: f", rank {rank}" for name, rank in size.ranks.items()}
    modules = [f"{escape(name)} ({count}{ranks.get(name, '')})" for name, count in sorted(size.modules.items())]
    console.print(f"trained modules: {', '.join(modules)}", highlight=False)
    if size.untouched:
        what = "not trained" if recipe.adapter.trains_base else "without adapter"
        console.print(f"{what}: {escape(size.shares())}", highlight=False)
    if size.float_experts:
        console.print(
            f"{recipe.quantization.type} quantizes linear layers, and these experts are tensors: "
            f"{size.float_experts:,} bytes of them stay floats",
            highlight=False,
        )
    _show_table(("part of the model", "modules", "in training", "held in", "of the weights"), size.table())
    share = size.trainable / size.total if size.total else 0.0
    trained = f"{recipe.adapter.type} on {recipe.quantization.type}"
    # The adapter is part of the total, and no part of the model that is fully fine-tuned in comparison.
    base = size.total - (0 if recipe.adapter.trains_base else size.trainable)
    rows = [
        (trained, f"{size.trainable:,} ({share:.1%})", f"{size.bytes:,}"),
        ("full in fp32, for comparison", f"{base:,}", f"{base * 4:,}"),
    ]
    _show_table(("", "trained parameters", "bytes of weights"), rows, dim_last=True)


def show_result(result: RunResult) -> None:
    """Show the loss curve and where the result is."""
    console = rich.get_console()
    losses = [float(entry["loss"]) for entry in result.log if "loss" in entry]
    if len(losses) > 1:
        console.print("loss")
        for line in draw_curve(losses, width=min(60, console.width - 12)):
            console.print(line, highlight=False)
    speed = result.tokens / result.seconds if result.seconds else 0.0
    console.print(f"trained on {result.tokens:,} tokens in {result.seconds:.1f} s ({speed:,.0f} tokens/s)")
    if result.moved is not None:
        _show_moved(result.moved)
    console.print(f"saved in {escape(str(result.output))}", highlight=False)


def _show_moved(moved: MovedWeights) -> None:
    """Say how many weights are other numbers than before, where 16 bits may have rounded them back."""
    still = f"; none at all in {len(moved.still)} of {moved.tensors} tensors" if moved.still else ""
    first = f", such as {escape(moved.still[0])}" if moved.still else ""
    rich.get_console().print(
        f"{moved.share:.1%} of the trained 16-bit weights are other numbers than before{still}{first}", highlight=False
    )


def show_failure(error: BaseException) -> None:
    """Say that the run ended early; of Ctrl-C outside of the training loop nothing else would tell what now."""
    if isinstance(error, KeyboardInterrupt):
        said = "interrupted. Run the same command again to resume, or to start over where there is no checkpoint yet."
        rich.get_console().print(f"[red]the run stopped: {said}", highlight=False)
        return
    rich.get_console().print(f"[red]the run stopped: {type(error).__name__}")
