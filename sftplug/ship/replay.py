"""Prepare the rows of a run once more, from its folder alone, and prove that they are the same."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from sftplug.errors import ModelError
from sftplug.libraries.logging import quiet_libraries
from sftplug.model.remote_code import code_options
from sftplug.run import RunDirectory
from sftplug.run.paths import recorded_model
from sftplug.run.sources import check_rows, check_sources, describe_rows
from sftplug.types.progress import Progress, no_progress

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from sftplug.data.prepare import Prepared
    from sftplug.recipe.model import Recipe


def replay(directory: RunDirectory, progress: Progress = no_progress, without: Iterable[str] = ()) -> Prepared:
    """Prepare the rows of a run from its recipe, plugin files, tokenizer and chat template; loads no model.

    `without` are names of plugins that are not loaded. Raises RunError naming the sources that have changed since, or
    saying that the rows are not, to the byte, those that the run was trained on.
    """
    from sftplug.data.prepare import prepare

    found = kept(directory, without)
    prepared = prepare(found.recipe, found.tokenizer, progress, found.end_tokens)
    check_rows(directory, describe_rows(prepared))
    return prepared


@dataclass(frozen=True, slots=True)
class KeptInputs:
    """What a run kept of all that makes its rows."""

    recipe: Recipe
    tokenizer: PreTrainedTokenizerBase
    end_tokens: frozenset[str]


def kept(directory: RunDirectory, without: Iterable[str] = ()) -> KeptInputs:
    """Return what makes a run's rows, from its folder. Raises RunError naming the sources that have changed since."""
    loaded = directory.load_recipe(*_kept_here(directory.path), without=without)
    check_sources(directory, loaded.recipe)
    base = loaded.recipe.model.model_copy(update={"name_or_path": recorded_model(directory)})
    tokenizer = _tokenizer(directory.path, code_options(base, directory.path))
    return KeptInputs(loaded.recipe, tokenizer, frozenset(directory.data()["end_tokens"]))


def _kept_here(folder: Path) -> list[str]:
    """Return overrides that look for tokenizer and template in the folder: those of then may be gone or changed."""
    return ["chat_template=tokenizer", "model.build=null", f"model.name_or_path={json.dumps(str(folder.resolve()))}"]


def _tokenizer(folder: Path, code: Mapping[str, Any]) -> PreTrainedTokenizerBase:
    """Return the tokenizer that the run kept; `code` says which code may run."""
    quiet_libraries()
    from transformers import AutoTokenizer

    try:
        return cast("PreTrainedTokenizerBase", AutoTokenizer.from_pretrained(str(folder), **code))
    except (OSError, ValueError) as error:
        raise ModelError(f"the tokenizer that the run in {folder} kept cannot be loaded: {error}") from error
