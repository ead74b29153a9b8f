"""What came of a run, and what one does with it: measure, ask, merge, report."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from sftplug.api.rows import prepare
from sftplug.errors import DataError, RunError
from sftplug.recipe.load import LoadedRecipe
from sftplug.run import RunDirectory
from sftplug.types.result import MovedWeights, ParameterCounts, RunResult

if TYPE_CHECKING:
    from sftplug.ship.chat import ChatSession
    from sftplug.ship.rows import Measured, Selection

RESULT = "result.json"
MEASURE_ON = "Rows to measure on can be given with --data FILE --format NAME."
COMPARE_ON = "Rows to compare the merged model on can be given with --data FILE --format NAME."


@dataclass(frozen=True)
class TrainedRun(RunResult):
    """A run that is finished: its sums, and the model that it trained."""

    recipe: LoadedRecipe = field(kw_only=True, repr=False)
    """The recipe that it was trained with."""
    replies: Mapping[str, Any] | None = field(default=None, kw_only=True, repr=False)
    """What the recipe's metrics say of the model's replies; None where it names none."""
    _chats: dict[str | None, ChatSession] = field(default_factory=dict, kw_only=True, repr=False, compare=False)

    @property
    def directory(self) -> RunDirectory:
        """The folder of the run, to be read."""
        return RunDirectory(self.output)

    def evaluate(
        self, data: str | Path | None = None, format: object = "messages", *, batch_size: int | None = None
    ) -> dict[str, Any]:
        """Return loss, perplexity and accuracy of the trained tokens of the rows that the run held out, or of `data`.

        Of all of them, and of those of each source, role and part of a turn; with ``evaluation.metrics`` the model also
        answers, and its replies are measured. Raises DataError where no rows were held out.
        """
        recipe, chosen = choose_rows(self.recipe, self.directory, data, format)
        return evaluate_run(self.directory, recipe, chosen, batch_size, keep=data is None)

    def measure_replies(self) -> dict[str, Any]:
        """Measure the replies of the model by the recipe's metrics, and add the result to the run's record."""
        from sftplug.run.card import write_card
        from sftplug.ship.measure import logged, measure
        from sftplug.ship.rows import held_out

        selection = held_out(self.recipe.recipe)
        assert selection is not None  # else the recipe was refused
        rows = prepare_selected(self.recipe, selection, MEASURE_ON, provenance=True)
        result = measure(self.directory, selection.recipe, rows, loss=False)
        self.directory.add_metrics({"step": self.directory.state().steps, **logged(result["metrics"])})
        write_card(self.directory, self.recipe.recipe, self.output)
        return result

    def chat(self, text: str, *, system: str | None = None, **sampling: Any) -> str:
        """Return the model's answer to `text`, in a conversation of its own.

        `sampling` are ``max_new_tokens`` (256), ``temperature`` (0 takes the most likely token each time), ``top_p``,
        ``top_k`` and ``seed``. The model is loaded at the first question, and kept.
        """
        from sftplug.ship.chat import Sampling, open_chat

        how = Sampling(**sampling)
        if None not in self._chats:
            self._chats[None], _ = open_chat(self.directory, self.recipe.recipe, how, None, compare=False)
        chat = replace(self._chats[None], sampling=how, system=system)
        return chat.ask(text)

    def merge(
        self,
        output: str | Path,
        *,
        in_place: bool = False,
        base: Literal["dequantized", "original"] = "dequantized",
        dtype: Literal["bf16", "fp16", "fp32"] | None = None,
        tolerance: float = 0.02,
    ) -> dict[str, Any]:
        """Write a model that needs no adapter to the folder `output`, and return the record that goes with it.

        It is loaded again and compared with the adapter; where it says something else, ModelError is raised and nothing
        is kept. `in_place` merges into quantized weights, ``base="original"`` into those before they were quantized.
        """
        from sftplug.ship import merge as ship

        how = ship.Merge(in_place, base == "original", dtype, tolerance)
        return merge_run(self.directory, self.recipe, Path(output), how)

    def report(self, file: str | Path | None = None, *, rows: int = 3) -> str:
        """Return the run as a page of HTML, with its first `rows` training rows; write it to `file` if one is named."""
        from sftplug.report import collect, to_html
        from sftplug.report.rows import with_rows
        from sftplug.storage.files import atomic_write
        from sftplug.storage.writable import refuse_unwritable_file

        if file is not None:
            refuse_unwritable_file(Path(file))
        drawn = [with_rows(item, rows) if rows and item.ledger else item for item in collect([self.output])]
        page = to_html(f"sftplug report: {drawn[0].name}", drawn)
        if file is not None:
            atomic_write(Path(file), page)
        return page


def results(result: RunResult, recipe: LoadedRecipe) -> TrainedRun:
    """Return the result of a run of `recipe`, with what one does with it."""
    known = {item.name: getattr(result, item.name) for item in fields(RunResult)}
    return TrainedRun(**known, recipe=recipe)


def open_run(run: str | Path | LoadedRecipe) -> TrainedRun:
    """Return a finished run, from its folder or from the recipe that it was trained with.

    Raises RunError when there is none, or when the run was written by a sftplug that did not keep its result.
    """
    from sftplug.ship.tuned import open_finished

    recipe = run if isinstance(run, LoadedRecipe) else None
    directory = open_finished(Path(recipe.recipe.output if recipe is not None else str(run)))
    recipe = recipe or directory.load_recipe(rows=False)
    return results(read_result(directory), recipe)


def read_result(directory: RunDirectory) -> RunResult:
    """Return what came of a run, as its folder holds it. Raises RunError for a run that kept no result."""
    file = directory.path / RESULT
    try:
        known = json.loads(file.read_text(encoding="utf-8"))
        moved = known["moved"] and MovedWeights(**{**known["moved"], "still": tuple(known["moved"]["still"])})
        plain = {name: known[name] for name in ("loss", "seconds", "tokens")}
        return RunResult(
            directory.path, tuple(known["log"]), size=ParameterCounts(**known["size"]), moved=moved or None, **plain
        )
    except FileNotFoundError:
        raise RunError(f"{directory.path} has no {RESULT}: an older sftplug wrote the run.") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"{file} cannot be read: {error}") from error


# --- steps that the commands share ------------------------------------------------------------------------------------


def choose_rows(
    recipe: LoadedRecipe,
    directory: RunDirectory,
    data: str | Path | None,
    format: object = "messages",
    overrides: Sequence[str] = (),
) -> tuple[LoadedRecipe, Selection | None]:
    """Return the recipe, with the user's rows if there are any, and which of its rows are measured on."""
    from sftplug.ship import rows

    if data is None:
        return recipe, rows.held_out(recipe.recipe)
    place = str(data) if "://" in str(data) else str(Path(data).resolve())
    source = json.dumps({"path": place, "format": format})
    given = [f"data.train=[{source}]", "data.eval=[]", "data.eval_fraction=0", *overrides]
    recipe = recipe.again(*given) if recipe.nowhere_written() else directory.load_recipe(*given)
    return recipe, rows.given(recipe.recipe)


def prepare_selected(recipe: LoadedRecipe, selection: Selection, remedy: str, *, provenance: bool = False) -> Measured:
    """Return the selected rows as tokens; where they cannot be had any more, the error says the `remedy`."""
    try:
        chosen = replace(recipe, recipe=selection.recipe)
        return selection.of(prepare(chosen, provenance=provenance, quiet=True))
    except DataError as error:
        raise DataError(f"{error}\n{remedy}") from error


def evaluate_run(
    directory: RunDirectory, recipe: LoadedRecipe, selection: Selection | None, batch_size: int | None, *, keep: bool
) -> dict[str, Any]:
    """Measure a run's model on the selected rows; with `keep`, what replies are worth goes into the run's metrics."""
    from sftplug.ship.measure import logged, measure

    if selection is None:
        raise DataError(f"the run in {directory.path} held no rows out. {MEASURE_ON}")
    rows = prepare_selected(recipe, selection, MEASURE_ON, provenance=True)
    result = measure(directory, selection.recipe, rows, batch_size)
    if "metrics" in result and keep:
        directory.add_metrics({"step": directory.state().steps, **logged(result["metrics"])})
    return result


Rows = Callable[[], tuple[LoadedRecipe, "Selection | None"]]


def merge_run(
    directory: RunDirectory, recipe: LoadedRecipe, output: Path, how: Any, choose: Rows | None = None
) -> dict[str, Any]:
    """Merge a run's adapter, and return the record; `choose` says on which rows the result is compared."""
    from sftplug.ship import merge as ship
    from sftplug.ship.rows import few_training_rows
    from sftplug.storage.folder import refuse_taken

    refuse_taken(output)
    ship.check_merge(directory, recipe.recipe, how)
    recipe, selection = choose() if choose is not None else choose_rows(recipe, directory, None)
    rows = prepare_selected(recipe, selection or few_training_rows(recipe.recipe), COMPARE_ON)
    record: Mapping[str, Any] = ship.merge(directory, recipe.recipe, rows, output, how)
    return dict(record)
