"""Turn a recipe's rows into what a trainer takes."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from sftplug.api.recipes import Given, loaded
from sftplug.plugin.components import ChatTemplate
from sftplug.recipe.load import LoadedRecipe

if TYPE_CHECKING:
    from sftplug.data.prepare import Prepared
    from sftplug.data.store import Store


def prepare(
    recipe: Given, output: str | Path | None = None, *, provenance: bool = False, quiet: bool = False
) -> Prepared:
    """Return the rows exactly as the trainer gets them, from the store if they were prepared before; loads no weights.

    ``.train`` and ``.eval`` (None where nothing is held out) are a ``datasets.Dataset`` with ``input_ids`` and
    ``labels`` (-100 where nothing is trained), which any trainer takes; ``weights`` too where some are neither 0 nor 1,
    ``seq_lengths`` where rows are packed, and with `provenance` what each token is of. ``.ledger`` accounts for every
    row, ``.tokenizer`` has the chat template. With `output`, a folder that is not there yet, they are written to it:
    ``train``, ``eval`` as `datasets.load_from_disk` reads them, and ``ledger.json``. Unless `quiet`, the plugins in
    use are told.

    Raises DataError for rows that do not fit, MaskError for masks that fail their check, ModelError for a tokenizer
    that cannot be had.
    """
    from sftplug.api.progress import show_progress
    from sftplug.data.prepare import prepare as prepare_rows
    from sftplug.libraries.logging import quiet_progress_bars
    from sftplug.model.loading import end_tokens, load_tokenizer

    quiet_progress_bars()
    _refuse_taken(output)
    known = isinstance(recipe, LoadedRecipe) and recipe.context.command  # a step of another command
    found = recipe if isinstance(recipe, LoadedRecipe) and known else loaded(recipe, "prepare")
    tokenizer = load_tokenizer(found.recipe)
    with show_progress() as progress:
        prepared = prepare_rows(
            found.recipe,
            tokenizer,
            progress,
            end_tokens(found.recipe, tokenizer),
            store=_store(found),
            provenance=provenance,
            templates=found.registry.without_options(ChatTemplate, found.active),
        )
    if not quiet:
        found.call("sftplug_dataset_prepared", ledger=prepared.ledger)
    return _written(prepared, output)


def replay(run: str | Path, output: str | Path | None = None, *, without: Iterable[str] = ()) -> Prepared:
    """Return the rows of a run, finished or not, prepared again from its folder and proven to be the same bytes.

    With `output` they are written there, as `prepare` does; `without` are names of plugins that are not loaded. Loads
    no weights. Raises RunError naming the sources that have changed since, or where the rows are not those that the
    run was trained on; RecipeError where one of the plugins is needed.
    """
    from sftplug.api.progress import show_progress
    from sftplug.libraries.logging import quiet_progress_bars
    from sftplug.run import RunDirectory
    from sftplug.ship.replay import replay as prepare_again

    _refuse_taken(output)
    directory = RunDirectory.open(run)
    quiet_progress_bars()
    with show_progress() as progress:
        prepared = prepare_again(directory, progress, without)
    return _written(prepared, output)


def _refuse_taken(output: str | Path | None) -> None:
    from sftplug.storage.folder import refuse_taken

    if output is not None:
        refuse_taken(Path(output))


def _written(prepared: Prepared, output: str | Path | None) -> Prepared:
    """Write the rows of both splits as datasets, and the ledger; all of it or nothing."""
    from sftplug.storage.folder import atomic_folder

    if output is None:
        return prepared
    with atomic_folder(Path(output)) as folder:
        prepared.train.save_to_disk(str(folder / "train"))
        if prepared.eval is not None:
            prepared.eval.save_to_disk(str(folder / "eval"))
        ledger = json.dumps(prepared.ledger.to_dict(), indent=2, ensure_ascii=False)
        (folder / "ledger.json").write_text(ledger, encoding="utf-8")
    return prepared


def _store(recipe: LoadedRecipe) -> Store | None:
    """Return where prepared rows are kept; None where code makes them that lies in no file and so has no hash."""
    from sftplug.data.store import Store
    from sftplug.model.loading import cache_folder

    code = recipe.provenance()
    return Store(cache_folder() / "prepared", code) if all(plugin["sha256"] for plugin in code) else None
