"""Read a run's folder, and write to the one of the run under way."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from sftplug.errors import RecipeError, RunError
from sftplug.plugin.manager import IN_PROGRAM
from sftplug.recipe.yaml import parse_yaml
from sftplug.run import checkpoints
from sftplug.run.checkpoints import Checkpoint
from sftplug.run.files import EXPORTED
from sftplug.storage.files import append_json, atomic_write, read_json_lines, write_json
from sftplug.util.redact import without_secrets

if TYPE_CHECKING:
    from sftplug.recipe.load import LoadedRecipe

FORMAT = 1
"""Version of the layout; a reader refuses a newer one."""
STATE = "run.json"
State = Literal["running", "finished", "failed", "interrupted"]


@dataclass(slots=True)
class RunState:
    """How far a run is: what ``run.json`` holds."""

    state: State
    """``running`` is also what a killed run says: nobody was left to write anything else."""
    reason: str | None = None
    """Why it failed or was interrupted."""
    steps: int = 0
    """Updates of the weights so far, as of the last checkpoint or the end; ``metrics.jsonl`` knows of those since."""
    max_steps: int | None = None
    """How many there will be, once training has begun."""
    seconds: float = 0.0
    """Time in the training loop so far, over all attempts; as of the last checkpoint or the end, as are `tokens`."""
    tokens: int = 0
    """Tokens that went through the model in training, padding left out."""
    loss: float | None = None
    """Mean training loss over all steps, once the run is finished."""
    id: str = ""
    """What tells the run from every other, from its beginning to its end; empty of one that an older sftplug began."""
    house: dict[str, Any] | None = None
    """The house file that held when the run was begun, or last resumed: ``file``, ``sha256``, ``plugins``,
    ``policies``, ``defaults`` (which values it gives); null where there was none."""
    patches: list[dict[str, Any]] = field(default_factory=list)
    """``type``, ``changes_logits`` of each patch of the model, in their order, and the ``difference`` of all of them
    together: the mean difference of its logits from those of a plain model, as a share of their deviation."""
    head: dict[str, Any] | None = None
    """``name`` of what computes the loss from hidden states, ``why`` that, and how those did that were ``tried``:
    ``head``, ``seconds``, ``apart`` (difference from 32 bits), ``allowed``, ``failed``. Null until it is settled."""
    auto_class: str = "AutoModelForCausalLM"
    """The class of transformers that loads the model."""
    meta: dict[str, dict[str, str]] = field(default_factory=dict)
    """Place of a source in the recipe -> its ``meta``: licence, owner …; of sources that have any."""
    attempts: list[dict[str, Any]] = field(default_factory=list)
    """``started``, ``ended`` (UTC), ``state``, ``reason``, ``from_step``, ``environment`` of each start and resume."""


@dataclass(frozen=True, slots=True)
class RunDirectory:
    """The folder of a run."""

    path: Path

    @classmethod
    def open(cls, path: str | Path) -> RunDirectory:
        """Return the folder of an existing run. Raises RunError when `path` is none, or of a newer sftplug."""
        directory = cls(Path(path))
        if not directory.exists():
            raise RunError(f"{path} is not a folder of a run: it has no {STATE}.")
        known = directory._json(STATE)
        if not isinstance(known, dict) or "state" not in known:
            raise RunError(f"{path} is not a folder of a run: its {STATE} is not one that sftplug writes.")
        version = known.get("format")
        if not isinstance(version, int) or version > FORMAT:
            raise RunError(f"{path} was written by a newer sftplug (format {version}, known up to {FORMAT}).")
        return directory

    def exists(self) -> bool:
        """Whether a run was begun here."""
        return (self.path / STATE).is_file()

    # --- read ---------------------------------------------------------------------------------------------------------

    def state(self) -> RunState:
        """Return how far the run is."""
        known = self._json(STATE)
        return RunState(**{name: known[name] for name in RunState.__dataclass_fields__ if name in known})

    def recipe(self) -> dict[str, Any]:
        """Return the resolved recipe as plain data, every default filled in."""
        return dict(self._parsed("recipe.yaml", _recipe))

    def load_recipe(self, *overrides: str, rows: bool = True, without: Iterable[str] = ()) -> LoadedRecipe:
        """Return the resolved recipe as the run used it, with the plugin files kept in the folder, and `overrides`.

        Without `rows` sources may be gone; `without` are names of plugins that are not loaded. Raises RunError for a
        run of components that lie in no file.
        """
        self._refuse_modules()
        from sftplug.recipe.given import LoadRequest
        from sftplug.recipe.load import load_asked
        from sftplug.run.settled import as_begun

        asked = LoadRequest(str(self.path / "recipe.yaml"), overrides, tuple(without), versions=self.versions())
        return as_begun(load_asked(asked, rows=rows), self)

    def _refuse_modules(self) -> None:
        known = self.plugins() if (self.path / "plugins.json").is_file() else []
        modules = [plugin["name"] for plugin in known if plugin.get("distribution") == IN_PROGRAM]
        if modules:
            raise RunError(
                f"{self.path} was trained by a Python program with components of its own ({', '.join(modules)}), which "
                "no recipe can name. Go on in that program, or put them into a plugin file and train again."
            )

    def origins(self) -> dict[str, str]:
        """Return dotted path in the recipe -> where the value was written: ``file:line``, ``default`` …"""
        return dict(self._json("origins.json"))

    def plugins(self) -> list[dict[str, str]]:
        """Return name, distribution, version, source and sha256 of every plugin in use."""
        return list(self._json("plugins.json"))

    def versions(self) -> dict[str, str]:
        """Return plugin -> version of its distribution ("" of a plugin file), of every plugin in use."""
        known = self.plugins() if (self.path / "plugins.json").is_file() else []
        return {plugin["name"]: plugin["version"] for plugin in known}

    def data(self) -> dict[str, Any]:
        """Return fingerprints of the sources, and number and hash of the prepared rows of each split."""
        return dict(self._json("data.json"))

    def ledger(self) -> dict[str, Any]:
        """Return what became of every row."""
        return dict(self._json("ledger.json"))

    def environment(self) -> dict[str, Any]:
        """Return where the last attempt ran."""
        return dict(self._json("environment.json"))

    def metrics(self, damaged: Callable[[str], object] | None = None) -> Iterator[dict[str, Any]]:
        """Yield what was measured, in the order of the steps, also while the run is under way.

        `damaged` is told of each line that cannot be read, which is then left out; without it, that is a RunError.
        """
        return read_json_lines(self.path / "metrics.jsonl", damaged)

    def samples(self, damaged: Callable[[str], object] | None = None) -> Iterator[dict[str, Any]]:
        """Yield ``step``, ``prompt``, ``answer`` of every answer that was kept; `damaged` is as for `metrics`."""
        return read_json_lines(self.path / "samples.jsonl", damaged)

    def exports(self) -> dict[str, Any]:
        """Return where the model was exported to -> by which exporter, and how that compares with the trained model."""
        return dict(self._json(EXPORTED)) if (self.path / EXPORTED).is_file() else {}

    def checkpoints(self) -> list[Checkpoint]:
        """Return the checkpoints that the run could be resumed from, the newest first; reads every byte of them."""
        return list(checkpoints.whole(self.path))

    def _json(self, name: str) -> Any:
        return self._parsed(name, json.loads)

    def _parsed(self, name: str, parse: Callable[[str], Any]) -> Any:
        try:
            return parse((self.path / name).read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise RunError(f"{self.path} has no {name}: the run did not come so far.") from None
        except (OSError, ValueError, RecipeError) as error:
            raise RunError(f"{self.path / name} cannot be read: {error}") from error

    # --- write --------------------------------------------------------------------------------------------------------

    def add_metrics(self, entry: Mapping[str, Any]) -> None:
        """Append one measurement."""
        append_json(self.path / "metrics.jsonl", without_secrets(entry))

    def add_sample(self, step: int, prompt: str, answer: str) -> None:
        """Append the model's answer to a prompt after `step` updates."""
        append_json(self.path / "samples.jsonl", without_secrets({"step": step, "prompt": prompt, "answer": answer}))

    def forget(self, keep: Mapping[str, int]) -> None:
        """Leave out what was written after a checkpoint: of each growing file, `keep` lines stay (default: none)."""
        # Killed at step 57 and resumed from checkpoint 50, a run measures steps 51 to 57 once more.
        for name in checkpoints.GROWING:
            if (self.path / name).is_file():
                kept = list(islice(read_json_lines(self.path / name), keep.get(name, 0)))
                atomic_write(self.path / name, "".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in kept))

    def write(self, name: str, data: Any) -> None:
        """Write one of the folder's JSON files, whole or not at all; secrets are left out."""
        write_json(self.path / name, without_secrets(data))

    def write_state(self, state: RunState) -> None:
        """Write ``run.json``."""
        known = {name: getattr(state, name) for name in RunState.__dataclass_fields__}
        self.write(STATE, {"format": FORMAT, **known})


def _recipe(text: str) -> Any:
    return parse_yaml(text, name="recipe.yaml", base=Path()).data
