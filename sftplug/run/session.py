"""Begin a run, or resume one: claim its folder, see what is there, and keep the record of how it ends."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from sftplug.errors import Interrupted, PluginError, RunError
from sftplug.recipe.problems import origin_of, path_of
from sftplug.run import checkpoints
from sftplug.run.checkpoints import Checkpoint
from sftplug.run.directory import RunDirectory, RunState, State
from sftplug.run.environment import environment
from sftplug.run.failure import explained, unread
from sftplug.run.files import noting
from sftplug.run.longer import Longer, longer, refuse_ended
from sftplug.run.paths import moved
from sftplug.run.place import cannot_merge, claimed, clear, refuse_place
from sftplug.run.record import differences, gained, record_recipe, recorded
from sftplug.run.replaced import drop_replaced
from sftplug.run.settled import as_begun, begun_with, changes, settled, with_settled
from sftplug.run.sources import check_rows, check_sources, describe_rows, describe_sources, meta_of
from sftplug.storage.disk import no_room
from sftplug.storage.files import count_lines
from sftplug.storage.lock import locked
from sftplug.types.moment import MomentContext
from sftplug.util.arguments import argument
from sftplug.util.processes import is_main, share

if TYPE_CHECKING:
    from sftplug.data.prepare import Prepared
    from sftplug.recipe.load import LoadedRecipe
    from sftplug.types.result import RunResult


@dataclass(slots=True)
class RunSession:
    """One start or resume of a run; holds the folder's lock."""

    loaded: LoadedRecipe
    """The recipe; what it leaves open is as it was when the run began."""
    directory: RunDirectory
    state: RunState
    checkpoint: Checkpoint | None
    """Where the run resumes; None where it begins."""
    notes: tuple[str, ...] = ()
    """What the user should know: checkpoints that are not whole, libraries that have changed."""
    writes: bool = True
    """Whether this process keeps the record; of several, the main one does."""

    @property
    def resume_from(self) -> str | None:
        """The checkpoint's folder."""
        return str(self.checkpoint.path) if self.checkpoint is not None else None

    def record_rows(self, prepared: Prepared) -> None:
        """Write what the rows are. Raises RunError when a resumed run would get other rows than it began with."""
        if not self.writes:
            return
        now = describe_rows(prepared)
        if self.checkpoint is not None:
            check_rows(self.directory, now)
        sources = describe_sources(self.loaded.recipe)
        self.directory.write("data.json", {"sources": sources, **now})
        self.directory.write("ledger.json", prepared.ledger.to_dict())
        # Whoever prepares the rows again needs it, whether or not the run comes to its end.
        with noting(self.directory.path):
            prepared.tokenizer.save_pretrained(str(self.directory.path))

    def go(self, steps: int, max_steps: int, seconds: float, tokens: int) -> None:
        """Write how far the run is; between two checkpoints, ``metrics.jsonl`` knows more."""
        self.state.steps, self.state.max_steps, self.state.seconds, self.state.tokens = (
            steps,
            max_steps,
            seconds,
            tokens,
        )
        if self.writes:
            self.directory.write_state(self.state)

    def finish(self, steps: int, result: RunResult) -> None:
        """Write that the run is finished after `steps` updates, and its sums."""
        self.state.steps = self.state.max_steps = steps
        self.state.seconds, self.state.tokens, self.state.loss = result.seconds, result.tokens, result.loss
        if self.writes:
            known = {name: value for name, value in asdict(result).items() if name != "output"}
            self.directory.write("result.json", known)
        self.end("finished")

    def end(self, state: State, reason: str | None = None) -> None:
        """Write how the attempt ended."""
        if not self.writes:
            return
        self.state.state, self.state.reason = state, reason
        self.state.attempts[-1].update(ended=_now(), state=state, reason=reason)
        self.directory.write_state(self.state)


@contextmanager
def open_session(loaded: LoadedRecipe, *, resume: bool = False, overwrite: bool = False) -> Iterator[RunSession]:
    """Claim the recipe's output folder for a run, and write down how the run ends.

    An unfinished run of the same recipe is resumed, whether or not `resume` demands one; a finished one goes on if the
    recipe asks for more epochs or updates than it has had, and for nothing else. Raises RunError, before
    anything is loaded, when the folder cannot be written, belongs to another run under way, or holds what this run
    must not touch: a finished run that is not to be longer, or one of another recipe. `overwrite` deletes either.

    An error inside is told to the plugins with ``sftplug_run_failed``, written down, and raised again.

    Of several processes, the main one does all this; the others resume from the checkpoint that it found, with what it
    settled where the recipe leaves something open.
    """
    directory = RunDirectory(Path(loaded.recipe.output))
    if not is_main():
        # Waits for what the main process shares below, once it has found all that out.
        checkpoint, options, context = share(None)
        begun = replace(with_settled(loaded, options), context=context)
        yield RunSession(begun, directory, RunState("running"), checkpoint, writes=False)
        return
    refuse_place(loaded, directory, resume=resume, overwrite=overwrite)
    # In this order: the lock is a file in the folder.
    with claimed(directory.path), locked(directory.path) as note:
        session = _open(loaded, directory, resume=resume, overwrite=overwrite)
        session.notes = (*([note] if note else []), *session.notes)
        share((session.checkpoint, settled(session.loaded), session.loaded.context))
        try:
            yield session
        except BaseException as raised:
            if session.state.state == "finished":
                raise  # whatever failed afterwards, the result is there
            error = _better(raised, directory.path)
            _fail(session, error)
            if error is raised:
                raise
            raise error from raised


def _better(raised: BaseException, folder: Path) -> BaseException:
    """Return the error that tells the user what `raised` means for the run; often that is itself."""
    if (gone := unread(raised, folder)) is not None:
        return gone
    return explained(raised, "the run cannot be written", folder) if no_room(raised, folder) else raised


def _fail(session: RunSession, error: BaseException) -> None:
    """Write down why the run stopped, and tell the plugins; neither may hide the error itself."""
    with suppress(OSError):  # the disk may be full
        session.end("interrupted" if _is_signal(error) else "failed", _reason(error))
    try:
        session.loaded.call("sftplug_run_failed", error=error)
    except PluginError as another:
        error.add_note(str(another))


def _is_signal(error: BaseException) -> bool:
    return isinstance(error, Interrupted | KeyboardInterrupt)


def _reason(error: BaseException) -> str:
    if isinstance(error, KeyboardInterrupt):
        return "Ctrl-C"
    return f"{type(error).__name__}: {error}".removesuffix(": ")


# --- what is there ----------------------------------------------------------------------------------------------------


def _open(loaded: LoadedRecipe, directory: RunDirectory, *, resume: bool, overwrite: bool) -> RunSession:
    """Return the session that this folder allows."""
    # Again: another process may have begun a run, or ended one, while this one waited for the lock.
    refuse_place(loaded, directory, resume=resume, overwrite=overwrite)
    if overwrite:
        clear(loaded, directory)
    if not directory.exists():
        return _record(loaded, directory, RunState("running"), None, ())
    state = RunDirectory.open(directory.path).state()
    found = next(checkpoints.whole(directory.path), None)
    grown = longer(loaded, directory) if state.state == "finished" else None
    if grown is not None:
        refuse_ended(directory, found, cannot_merge(loaded))
    elif found is None:
        _refuse_models_only(directory)
    begun, added = loaded, list[str]()
    # Without a checkpoint the run begins anew, as a run of today: it may be of another recipe, and what was left open
    # is open again. Who demands `resume` gets the recipe that was begun.
    if found is not None or resume:
        begun = as_begun(loaded, directory)
        added = _refuse_other_recipe(begun, directory, grown)
        check_sources(directory, loaded.recipe)
    if grown is not None and found is not None:
        added.append(grown.told(state.steps, found))
    notes = (*added, *_notes(loaded, directory, found), *changes(loaded, begun))
    # Last of all: as long as anything may be refused, nothing is deleted.
    _discard_unfinished(directory.path, found)
    return _record(begun, directory, state, found, notes)


def _refuse_models_only(directory: RunDirectory) -> None:
    """Refuse to start over where that would delete weights that were saved on purpose without an optimizer."""
    kept = [folder.name for _, folder in checkpoints.folders(directory.path)]
    if kept and directory.recipe()["train"].get("save_only_model"):
        raise RunError(
            f"{directory.path} holds an unfinished run that saved weights only (`train.save_only_model`): "
            f"{', '.join(kept)}. It cannot be resumed. Choose another {argument('--output')}, or "
            f"{argument('--overwrite')} to delete it."
        )


def _refuse_other_recipe(loaded: LoadedRecipe, directory: RunDirectory, grown: Longer | None) -> list[str]:
    """Raise RunError for a run of another recipe; return what has come of the recipe of this one since.

    That is what was upgraded in its record, and what its components have gained by default. `grown` is by what a
    finished run is to be longer, and nothing else may differ.
    """
    recorded_then, upgrades = begun_with(directory, loaded)
    before = moved(recorded_then, loaded, directory)
    upgrades += drop_replaced(before, loaded, directory)
    new = gained(before, loaded)
    changed = [line for line in differences(before, recorded(loaded.recipe)) if not _is_of(line, grown)]
    if any(line.partition(": ")[0] not in new for line in changed):
        lines = "\n".join(f"  {line}{_of_house(line, loaded)}" for line in changed)
        raise RunError(_of_another_recipe(directory, lines) if grown is None else _longer_alone(directory, lines))
    later = "the version that began this run did not have it; it goes on with the default"
    aged = [f"the record of the run: {sentence}" for sentence in upgrades]
    return [*aged, *(f"{path}: {later}, {value!r}" for path, value in new.items())]


def _of_another_recipe(directory: RunDirectory, lines: str) -> str:
    return (
        f"{directory.path} holds an unfinished run of another recipe:\n{lines}\n"
        f"Go back to its recipe to resume it, choose another {argument('--output')}, or {argument('--overwrite')} to "
        "delete it."
    )


def _longer_alone(directory: RunDirectory, lines: str) -> str:
    return (
        f"{directory.path} holds a finished run of another recipe:\n{lines}\n"
        f"Go back to its recipe to let it go on, choose another {argument('--output')}, or "
        f"{argument('--overwrite')} to delete it."
    )


def _is_of(line: str, grown: Longer | None) -> bool:
    return grown is not None and line.startswith(f"{grown.path}: ")


def _of_house(line: str, loaded: LoadedRecipe) -> str:
    """Return where a value that is another one now comes from, if that is the house file: the recipe is as it was."""
    origin = origin_of(loaded.tree, path_of(line.partition(": ")[0]))
    return f" ({origin}, of the house file)" if loaded.house.is_origin(origin) else ""


def _notes(loaded: LoadedRecipe, directory: RunDirectory, found: Checkpoint | None) -> Iterator[str]:
    """Yield what has changed since, and what is not whole."""
    for step, folder in checkpoints.folders(directory.path):
        if found is None or step > found.step:
            yield f"{folder.name} {checkpoints.integrity_error(folder)}; it is not used"
    if found is None:
        return
    yield from _vanished(directory, found)
    with suppress(RunError):
        before = directory.state().house or {}
        if before.get("sha256", "") != loaded.house.sha256:
            yield _other_house(before, loaded)
        yield from _changes("plugin", _hashes(directory.plugins()), _hashes(loaded.provenance()))
        yield from _changes("", directory.environment()["libraries"], environment()["libraries"])


def _other_house(before: Mapping[str, Any], loaded: LoadedRecipe) -> str:
    was, now = before.get("file", "none"), loaded.house.file or "none"
    return f"the house file is another one than before: {was} -> {now}" if str(was) != str(now) else _EDITED.format(now)


_EDITED = "the house file {} has changed since; the recipe is the same with it"


def _vanished(directory: RunDirectory, found: Checkpoint) -> Iterator[str]:
    """Yield what the run had measured and told before the checkpoint, and is not there any more."""
    for name, lines in found.progress["lines"].items():
        there = count_lines(directory.path / name)
        if there < lines:
            gone = f"has lost {lines - there} of them" if (directory.path / name).exists() else "is gone"
            yield (
                f"{name} had {lines} lines at step {found.step} and {gone}: what they told is missing from now on, in "
                "reports too; the training itself goes on as it would have"
            )


def _hashes(plugins: Sequence[dict[str, str]]) -> dict[str, str]:
    return {plugin["name"]: plugin["sha256"][:12] for plugin in plugins}


def _changes(what: str, before: dict[str, str], now: dict[str, str]) -> Iterator[str]:
    for name in sorted({*before, *now}):
        if before.get(name) != now.get(name):
            change = f"{before.get(name, '(none)')} -> {now.get(name, '(none)')}"
            yield f"{what} {name} has changed since: {change}; the run may differ from an uninterrupted one".lstrip()


def _discard_unfinished(folder: Path, found: Checkpoint | None) -> None:
    """Delete what comes after the checkpoint at which the run resumes: the trainer writes it anew."""
    for step, path in checkpoints.folders(folder):
        if found is None or step > found.step:
            checkpoints.discard(path)


# --- write down -------------------------------------------------------------------------------------------------------


def _record(
    loaded: LoadedRecipe, directory: RunDirectory, state: RunState, found: Checkpoint | None, notes: tuple[str, ...]
) -> RunSession:
    """Write what is known before anything is loaded."""
    step = found.step if found is not None else 0
    directory.forget(found.progress["lines"] if found is not None else {})
    state.state, state.reason = "running", None
    state.steps, state.seconds, state.tokens = step, 0.0, 0
    if found is not None:
        state.seconds, state.tokens = found.progress["seconds"], found.progress["tokens"]
    known: dict[str, Any] = environment()
    state.attempts.append({"started": _now(), "from_step": step, "environment": known})
    # A run that is resumed stays the run that it is.
    state.id, state.house, state.meta = state.id or uuid4().hex, loaded.house.record(), meta_of(loaded.recipe)
    record_recipe(directory, loaded)
    directory.write("environment.json", known)
    directory.write_state(state)
    context = MomentContext("train", state.id, resumed=found is not None, folder=directory.path)
    return RunSession(replace(loaded, context=context), directory, state, found, notes)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
