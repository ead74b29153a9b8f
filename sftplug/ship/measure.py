"""Load what a run has trained, and measure it."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any

from sftplug.answers import label
from sftplug.errors import DataError
from sftplug.ship.tuned import load_tuned

if TYPE_CHECKING:
    from sftplug.recipe import Recipe
    from sftplug.run import RunDirectory
    from sftplug.ship.rows import Measured

BATCH = 8
"""transformers' own default."""


def measure(directory: RunDirectory, recipe: Recipe, rows: Measured, size: int | None, exact: int) -> dict[str, Any]:
    """Return what is measured on `rows`; `recipe` is the one that prepared them.

    In batches of `size`, by default of the run's own evaluation; `exact` rows are answered and compared, too.
    """
    model, tokenizer = load_tuned(directory, recipe), rows.prepared.tokenizer
    from sftplug.collate import Collator
    from sftplug.ship.evaluate import exact_match, score
    from sftplug.tally import short_names

    names = short_names([label(source.source) for source in recipe.data.train])
    size = size or int(recipe.train.get("per_device_eval_batch_size", BATCH))
    scores = score(model, rows.rows, Collator(int(tokenizer.pad_token_id)), names, size)
    if scores is None:
        raise DataError("no token of these rows is trained, so there is nothing to measure.")
    result = {"rows": len(rows.rows), "measured_on": rows.what, **scores.to_dict()}
    if exact:
        from transformers import GenerationConfig

        ends = GenerationConfig.from_pretrained(str(directory.path)).eos_token_id
        right, count = exact_match(model, tokenizer, ends, list(islice(rows.rows, exact)))
        result["exact_match"] = {"right": right, "rows": count, "share": right / max(count, 1)}
    return result
