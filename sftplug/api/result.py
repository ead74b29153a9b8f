"""What came of a run, and what one does with it: measure, ask, merge, report."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict, Unpack

from sftplug.api.rows import prepare
from sftplug.errors import DataError, Problem, RecipeError, RunError
from sftplug.recipe.load import LoadedRecipe
from sftplug.run import RunDirectory
from sftplug.run.left_out import load_finished
from sftplug.types.moment import MomentContext
from sftplug.types.result import MovedWeights, ParameterCounts, RunResult

if TYPE_CHECKING:
    from sftplug.data.prepare import Prepared
    from sftplug.plugin.components import Exporter
    from sftplug.recipe.model import Recipe
    from sftplug.ship.chat import ChatSession
    from sftplug.ship.push import Pushed
    from sftplug.ship.rows import MeasuredRows, Selection

RESULT = "result.json"
_ROWS = "can be given with --data FILE --format NAME, from Python with `data` and `format`."
MEASURE_ON, COMPARE_ON = f"Rows to measure on {_ROWS}", f"Rows to compare the merged model on {_ROWS}"
PROVE_ON = "An export is compared with the trained model on them. Bring the rows back to where the recipe reads them."


class RunActions:
    """What one does with a finished run: measure, ask, merge, publish, prepare its rows again, report."""

    output: Path
    """Its folder."""
    recipe: LoadedRecipe
    """The recipe that it was trained with."""
    left_out: tuple[Problem, ...]
    """What of the recipe could not be read any more, and is not needed for most of what one does with the run."""
    _chats: dict[bool, ChatSession]
    """Conversations with a loaded model, of the base or not: those that are asked for share its weights."""

    @property
    def directory(self) -> RunDirectory:
        """The folder of the run, to be read."""
        return RunDirectory(self.output)

    def evaluate(
        self,
        data: str | Path | None = None,
        format: object = "messages",
        *,
        batch_size: int | None = None,
        **metrics: Unpack[Measuring],
    ) -> dict[str, Any]:
        """Return loss, perplexity and accuracy of the trained tokens of the rows that the run held out, or of `data`.

        Of all of them, and of those of each source, role and part of a turn. With `metrics`, as `Measuring` has them,
        in place of those of the recipe's ``evaluation`` section, the model also answers, and its replies are measured;
        of held-out rows, the result is added to the run's record. Raises DataError where no rows were held out.
        """
        needed = [problem for problem in self.left_out if problem.path.startswith(("masking", "evaluation"))]
        if needed:
            raise RecipeError(str(self.output / "recipe.yaml"), needed)
        given = _evaluation(**metrics)
        asked = self._for("eval", self._with(given))
        recipe, chosen = choose_rows(asked, self.directory, data, format, given)
        result = evaluate_run(self.directory, recipe, chosen, batch_size, keep=data is None)
        step = self.directory.state().steps
        asked.call_after("sftplug_evaluation_finished", _MEASURED, metrics=_as_logged(result), step=step)
        return result

    def _for(self, command: str, recipe: LoadedRecipe | None = None) -> LoadedRecipe:
        """Return the recipe, or what was made of it, for what `command` does, about which its policies are asked."""
        found = (recipe or self.recipe).for_command(command)
        return replace(found, context=MomentContext(command, self.directory.state().id or None, folder=self.output))

    def _with(self, overrides: Sequence[str]) -> LoadedRecipe:
        """Return the recipe with `overrides`; its rows may be gone."""
        if not overrides:
            return self.recipe
        if self.recipe.nowhere_written():
            return self.recipe.again(*overrides)
        return load_finished(self.directory, *overrides, without=self.recipe.asked.blocked)[0]

    def measure_replies(self) -> dict[str, Any]:
        """Measure the replies of the model by the recipe's metrics, and add the result to the run's record."""
        from sftplug.run.card import write_card
        from sftplug.ship.measure import logged, measure
        from sftplug.ship.rows import held_out

        selection = held_out(self.recipe.recipe)
        assert selection is not None  # else the recipe was refused
        rows = prepare_selected(self.recipe, selection, MEASURE_ON, provenance=True)
        result = measure(self.directory, selection.recipe, rows, loss=False)
        step, metrics = self.directory.state().steps, logged(result["metrics"])
        self.directory.add_metrics({"step": step, **metrics})
        write_card(self.directory, self.recipe.recipe, self.output)
        self.recipe.call_after("sftplug_evaluation_finished", _MEASURED, metrics=metrics, step=step)
        return result

    def chat(self, text: str, *, system: str | None = None, **sampling: Unpack[Drawing]) -> str:
        """Return the model's answer to `text`, in a conversation of its own."""
        return self.conversation(system=system, **sampling).ask(text)

    def conversation(
        self, *, system: str | None = None, base: bool = False, **sampling: Unpack[Drawing]
    ) -> ChatSession:
        """Return a conversation with the model: ``.ask(text)`` answers and remembers, ``.reset()`` starts over.

        With `base` it is one with the model before it was trained. The weights are loaded for the first conversation,
        and kept. `sampling` is what `Drawing` has.
        """
        from sftplug.ship.chat import Sampling, base_of, open_chat

        how, recipe = Sampling(**sampling), self._for("chat").recipe
        if False not in self._chats:
            self._chats[False] = open_chat(self.directory, recipe)
        if base and True not in self._chats:
            self._chats[True] = base_of(self._chats[False], self.directory, recipe)
        return replace(self._chats[base], sampling=how, system=system)

    def merge(
        self,
        output: str | Path,
        *,
        data: str | Path | None = None,
        format: object = "messages",
        **how: Unpack[Merging],
    ) -> dict[str, Any]:
        """Write a model that needs no adapter to the folder `output`, and return the record that goes with it.

        It is loaded again and compared with the adapter, on held-out rows or on `data`; where it says something else,
        ModelError is raised and nothing is kept. `how` is what `Merging` has.
        """
        asked = self._for("merge")
        record = merge_run(self.directory, asked, Path(output), how, (data, format))
        done = f"The model is merged all the same: it is in {output}."
        asked.call_after("sftplug_model_merged", done, folder=Path(output), record=record)
        return record

    def export(self, exporter: str | Exporter, output: str | Path | None = None, **options: Any) -> Path:
        """Write the model in the form in which another program takes it, and return where it is.

        `exporter` is the name of an installed one, with `options`, or an object. `output` is a file or a folder that is
        not there; without it, ``exports`` in the run's folder. Raises RunError where something is at `output` already,
        RecipeError for an unknown exporter or option, ValueError for options beside an object, ModelError for a model
        that the form cannot hold.
        """
        asked = self._for("export", self._exporting(exporter, options))
        target = export_run(self.directory, asked, output, self.recipe.recipe)
        name, done = asked.recipe.export[0].type, f"The model is exported all the same: {target}."
        asked.call_after("sftplug_model_exported", done, exporter=name, target=target)
        return target

    def _exporting(self, exporter: str | Exporter, options: Mapping[str, Any]) -> LoadedRecipe:
        """Return the recipe with one exporter."""
        if isinstance(exporter, str):
            return self._with([f"export={json.dumps([{'type': exporter, **options}])}"])
        if options:
            raise ValueError(
                f"{', '.join(options)}: options go with a name, and an object has its own. Set them there."
            )
        recipe = self.recipe.recipe.model_copy(update={"export": (exporter,)})
        return replace(self.recipe, recipe=recipe)

    def push(self, repo: str, *, private: bool = False) -> Pushed:
        """Publish model, tokenizer and card on the Hub, as `sftplug.push` does."""
        from sftplug.api.pushing import push_run

        return push_run(self.output, repo, self._for("push"), private=private)

    def replay(self, output: str | Path | None = None) -> Prepared:
        """Prepare the run's rows again from its folder, as `sftplug.replay` does."""
        from sftplug.api.rows import replay

        return replay(self.output, output, without=self.recipe.asked.blocked)

    def report(self, file: str | Path | None = None, *, rows: int = 3) -> str:
        """Return the run as a page of HTML, with its first `rows` training rows; write it to `file` if one is named."""
        from sftplug.api.reporting import report

        return report(self.output, file, rows=rows, without=self.recipe.asked.blocked)


class Measuring(TypedDict, total=False):
    """By what replies are measured, and which."""

    metrics: Any
    """Names, or ``{name: options}``, as the recipe's ``evaluation.metrics`` has them."""
    replies: int
    """Answer so many rows; 0 answers all."""
    max_new_tokens: int
    """Longest reply."""


class Drawing(TypedDict, total=False):
    """How answers are drawn."""

    max_new_tokens: int
    """Longest answer; 256."""
    temperature: float
    """0, which is the default, takes the most likely token each time."""
    top_p: float
    """Draw from this share of the probability only."""
    top_k: int
    """Draw from so many tokens only; 50."""
    seed: int | None
    """Draw the same answer each time."""


class Merging(TypedDict, total=False):
    """How an adapter is merged."""

    in_place: bool
    """Merge into the quantized weights, which rounds the update to them."""
    base: Literal["dequantized", "original"]
    """The weights that the update is added to: the floats of the quantized ones, or those before."""
    dtype: Literal["bf16", "fp16", "fp32"] | None
    """Dtype of the merged weights; by default that in which the base computes."""
    tolerance: float | None
    """Largest mean difference of the logits, as a share of their deviation; 0.02, and 0.05 in bf16."""


@dataclass(frozen=True)
class TrainedRun(RunActions, RunResult):
    """A run that is finished: its sums, and the model that it trained."""

    recipe: LoadedRecipe = field(kw_only=True, repr=False)
    """The recipe that it was trained with."""
    replies: Mapping[str, Any] | None = field(default=None, kw_only=True, repr=False)
    """What the recipe's metrics say of the model's replies; None where it names none."""
    left_out: tuple[Problem, ...] = field(default=(), kw_only=True)
    _chats: dict[bool, ChatSession] = field(default_factory=dict, kw_only=True, repr=False, compare=False)


@dataclass(frozen=True)
class OpenRun(RunActions):
    """A run that is finished, by its folder; an older sftplug may have written it, which kept no sums."""

    output: Path
    recipe: LoadedRecipe
    left_out: tuple[Problem, ...] = ()
    _chats: dict[bool, ChatSession] = field(default_factory=dict, repr=False, compare=False)


def results(result: RunResult, recipe: LoadedRecipe) -> TrainedRun:
    """Return the result of a run of `recipe`, with what one does with it."""
    known = {item.name: getattr(result, item.name) for item in fields(RunResult)}
    return TrainedRun(**known, recipe=recipe)


def open_run(run: str | Path | LoadedRecipe, *, without: Iterable[str] = ()) -> TrainedRun:
    """Return a finished run, from its folder or from the recipe that it was trained with.

    `without` are names of plugins that are not loaded; one that the run needs for what only training does is done
    without (`left_out` tells what). A recipe that is loaded has its own.

    Raises RunError when there is none, or when the run was written by a sftplug that did not keep its result;
    RecipeError where one of the plugins is needed; ValueError for `without` beside a recipe that is loaded.
    """
    from sftplug.ship.tuned import open_finished

    recipe = run if isinstance(run, LoadedRecipe) else None
    directory = open_finished(Path(recipe.recipe.output if recipe is not None else str(run)))
    if recipe is not None:
        if without:
            raise ValueError("the recipe is loaded: give `without` to `load`, or the run's folder.")
        return results(read_result(directory), recipe)
    recipe, left_out = load_finished(directory, without=tuple(without))
    return replace(results(read_result(directory), recipe), left_out=left_out)


def read_result(directory: RunDirectory) -> RunResult:
    """Return what came of a run, as its folder holds it. Raises RunError for a run that kept no result."""
    file = directory.path / RESULT
    try:
        known = json.loads(file.read_text(encoding="utf-8"))
        moved = known["moved"] and MovedWeights(**{**known["moved"], "still": tuple(known["moved"]["still"])})
        plain = {name: known[name] for name in ("loss", "seconds", "tokens")}
        size = ParameterCounts.from_dict(known["size"])
        return RunResult(directory.path, tuple(known["log"]), size=size, moved=moved or None, **plain)
    except FileNotFoundError:
        raise RunError(f"{directory.path} has no {RESULT}: an older sftplug wrote the run.") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"{file} cannot be read: {error}") from error


# --- steps ------------------------------------------------------------------------------------------------------------


_MEASURED = "What was measured is in the record of the run all the same."


def _as_logged(result: Mapping[str, Any]) -> dict[str, float]:
    """Return what was measured under the names by which a training logs it."""
    from sftplug.ship.measure import logged

    plain = {f"eval_{name}": result[name] for name in ("loss", "perplexity", "accuracy") if name in result}
    return {**plain, **(logged(result["metrics"]) if "metrics" in result else {})}


def _evaluation(*, metrics: Any = None, replies: int | None = None, max_new_tokens: int | None = None) -> list[str]:
    """Return what stands in place of the recipe's ``evaluation`` section, as overrides."""
    listed = [metrics] if isinstance(metrics, str) else metrics
    given = [f"evaluation.metrics={json.dumps(listed)}"] if metrics is not None else []
    given += [f"evaluation.rows={replies or 'null'}"] if replies is not None else []
    return given + ([f"evaluation.max_new_tokens={max_new_tokens}"] if max_new_tokens is not None else [])


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
    given = [f"data.train=[{source}]", f"data.eval=[{source}]", "data.eval_fraction=0", *overrides]
    if recipe.nowhere_written():
        found = recipe.again(*given)
    else:
        found = directory.load_recipe(*given, without=recipe.asked.blocked)
    return replace(found, context=recipe.context), rows.given(found.recipe)


def prepare_selected(
    recipe: LoadedRecipe, selection: Selection, remedy: str, *, provenance: bool = False
) -> MeasuredRows:
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


def merge_run(
    directory: RunDirectory, recipe: LoadedRecipe, output: Path, how: Merging, compare_on: tuple[Any, object]
) -> dict[str, Any]:
    """Merge a run's adapter, and return the record; `compare_on` are data and format of the rows to compare on."""
    from sftplug.ship import merge as ship
    from sftplug.ship.rows import few_training_rows
    from sftplug.storage.folder import refuse_taken

    original = how.get("base") == "original"
    asked = ship.Merge(how.get("in_place", False), original, how.get("dtype"), how.get("tolerance"))
    refuse_taken(output)
    ship.check_merge(directory, recipe.recipe, asked)
    recipe, selection = choose_rows(recipe, directory, *compare_on)
    rows = prepare_selected(recipe, selection or few_training_rows(recipe.recipe), COMPARE_ON)
    record: Mapping[str, Any] = ship.merge(directory, recipe.recipe, rows, output, asked)
    return dict(record)


def export_run(directory: RunDirectory, recipe: LoadedRecipe, output: str | Path | None, trained: Recipe) -> Path:
    """Let the one exporter of `recipe` write a run's model, and return where it is; `trained` is the run's recipe."""
    from sftplug.ship import export as ship
    from sftplug.ship.rows import few_training_rows

    (exporter,) = recipe.recipe.export
    place = Path(output) if output is not None else ship.place_of(exporter, directory.path)
    with tempfile.TemporaryDirectory(prefix="sftplug-") as folder:

        def merge() -> Path:
            merged = Path(folder) / "merged"
            if not merged.exists():
                merge_run(directory, recipe, merged, {}, (None, "messages"))
            return merged

        def rows() -> MeasuredRows:
            chosen, selection = choose_rows(recipe, directory, None)
            return prepare_selected(chosen, selection or few_training_rows(chosen.recipe), PROVE_ON, provenance=True)

        return ship.export(exporter, directory, recipe.recipe, place, ship.Sources(merge, rows), trained).path
