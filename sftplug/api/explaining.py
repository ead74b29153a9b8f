"""Say where each value of a recipe comes from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sftplug.api.recipes import Given, loaded
from sftplug.errors import Problem, RecipeError, did_you_mean
from sftplug.recipe.origins import Origin, is_in, origins, origins_at
from sftplug.util.redact import without_secrets

if TYPE_CHECKING:
    from rich.table import Table

    from sftplug.recipe.load import LoadedRecipe


@dataclass(frozen=True, slots=True, repr=False)
class Explanation:
    """The values of a resolved recipe; printed, it is a table."""

    values: Sequence[Origin]
    """Each with ``.path``, ``.value``, ``.origin`` and the ``.plugin`` that answers for it; secrets are left out."""
    plugins: Sequence[dict[str, str]]
    """Name, distribution, version, source and hash of every plugin in use."""
    notes: Sequence[str] = ()
    """Which modules the adapter is on, where it was asked for and the model is on this machine."""

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON holds it."""
        return {"values": [asdict(value) for value in self.values], "plugins": list(self.plugins)}

    def table(self) -> Table:
        """Return the values as a rich table."""
        import json

        from rich.markup import escape
        from rich.table import Table

        table = Table("value", "is", "from", "plugin")
        for value in self.values:
            said = json.dumps(value.value, ensure_ascii=False)
            table.add_row(*map(escape, (value.path, said, value.origin, value.plugin or "")))
        return table

    def __str__(self) -> str:
        """Return the table and the notes as text."""
        from rich import get_console
        from rich.console import Console

        text = StringIO()
        Console(file=text, width=get_console().width).print(self.table())
        return "\n".join([text.getvalue().rstrip("\n"), *(f"note: {note}" for note in self.notes)])

    __repr__ = __str__


def explain(recipe: Given, *keys: str) -> Explanation:
    """Return every value of a resolved recipe, or those under `keys` such as ``"adapter"`` or ``"train.seed"``.

    A key is spelled as a message, a record or an override has it: ``masking[0].type``, ``masking[0][0].type``,
    ``masking.type``; ``adapter.targets[0]`` is one name of a list. Raises RecipeError for a key that there is not.
    """
    found = loaded(recipe, "explain")
    values = origins(found)
    chosen = _chosen(found, values, keys) if keys else values
    asked = len(chosen) < len(values) and any(is_in(value.path, "adapter") for value in chosen)
    return Explanation([_shown(value) for value in chosen], found.provenance(), _notes(found) if asked else ())


def _chosen(recipe: LoadedRecipe, values: Sequence[Origin], keys: Sequence[str]) -> list[Origin]:
    """Return the values at any of `keys`, each once, in the order of `values`."""
    at = {key: origins_at(recipe, key) for key in keys}
    for key in keys:
        if not at[key]:
            raise RecipeError(recipe.name, [Problem(key, _nothing_at(key, [value.path for value in values]))])
    places = [value.path for value in values]
    found = {value.path: value for key in keys for value in at[key]}
    return [found[path] for path in dict.fromkeys([*(path for path in places if path in found), *found])]


def _notes(recipe: LoadedRecipe) -> Sequence[str]:
    """Return what the adapter is beside, and what not, where the model is on this machine: nothing is downloaded."""
    model = recipe.recipe.model
    if model.build is None and not Path(str(model.name_or_path)).is_dir():
        return ()
    from sftplug.planning import model_notes

    return model_notes(recipe.recipe)[0]


def _shown(value: Origin) -> Origin:
    return replace(value, value=without_secrets(value.value, value.path.rpartition(".")[2]))


def _nothing_at(key: str, paths: list[str]) -> str:
    if key.startswith("train."):
        return "is not set, so the trainer's own default holds: see the fields of trl.SFTConfig."
    return f"there is no such value.{did_you_mean(key, [*paths, *(path.rpartition('.')[0] for path in paths)])}"
