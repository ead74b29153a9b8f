"""Turn a recipe's rows into what a trainer takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sftplug.api.recipes import Given, loaded
from sftplug.plugin.components import ChatTemplate

if TYPE_CHECKING:
    from sftplug.data.prepare import Prepared
    from sftplug.data.store import Store
    from sftplug.recipe.load import LoadedRecipe


def prepare(recipe: Given, *, provenance: bool = False, quiet: bool = False) -> Prepared:
    """Return the rows exactly as the trainer gets them, from the store if they were prepared before; loads no weights.

    ``.train`` and ``.eval`` (None where nothing is held out) are a ``datasets.Dataset`` with ``input_ids`` and
    ``labels`` (-100 where nothing is trained), which any trainer takes; ``weights`` too where some are neither 0 nor 1,
    ``seq_lengths`` where rows are packed, and with `provenance` what each token is of. ``.ledger`` accounts for every
    row, ``.tokenizer`` has the chat template. Unless `quiet`, the plugins in use are told.

    Raises DataError for rows that do not fit, MaskError for masks that fail their check, ModelError for a tokenizer
    that cannot be had.
    """
    from sftplug.api.progress import show_progress
    from sftplug.data.prepare import prepare as prepare_rows
    from sftplug.libraries.logging import quiet_progress_bars
    from sftplug.model.loading import end_tokens, load_tokenizer

    quiet_progress_bars()
    found = loaded(recipe)
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
    return prepared


def _store(recipe: LoadedRecipe) -> Store | None:
    """Return where prepared rows are kept; None where code makes them that lies in no file and so has no hash."""
    from sftplug.data.store import Store
    from sftplug.model.loading import cache_folder

    code = recipe.provenance()
    return Store(cache_folder() / "prepared", code) if all(plugin["sha256"] for plugin in code) else None
