"""Load what a run has trained, and measure it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sftplug.errors import DataError
from sftplug.model.patching import for_inference, patches_in_force
from sftplug.plugin.calls import label
from sftplug.ship.tuned import load_tuned
from sftplug.types.loss_groups import LossGroups

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from sftplug.recipe.model import Recipe
    from sftplug.run import RunDirectory
    from sftplug.ship.rows import MeasuredRows

BATCH = 8
"""transformers' own default."""


def measure(
    directory: RunDirectory, recipe: Recipe, rows: MeasuredRows, size: int | None = None, *, loss: bool = True
) -> dict[str, Any]:
    """Return what is measured on `rows`; `recipe` is the one that prepared them, and names the metrics of replies.

    In batches of `size`, by default of the run's own evaluation. Without `loss` replies alone are measured.
    """
    with patches_in_force(for_inference(recipe)):
        return _measured(directory, recipe, rows, size, loss=loss)


def _measured(
    directory: RunDirectory, recipe: Recipe, rows: MeasuredRows, size: int | None, *, loss: bool
) -> dict[str, Any]:
    from sftplug.training.loss_sums import short_names

    model = load_tuned(directory, for_inference(recipe))
    names = LossGroups.of(short_names([label(source.source) for source in recipe.data.train]), rows.groups)
    train = recipe.train
    size = size or int(train.get("per_device_eval_batch_size", train.get("per_device_train_batch_size", BATCH)))
    result: dict[str, Any] = {"rows": len(rows.rows), "measured_on": rows.what}
    if loss:
        result |= _losses(model, rows, names, size)
    if recipe.evaluation.metrics:
        result |= _replies(directory, recipe, rows, names, model=model, size=size)
    return result


def _losses(model: PreTrainedModel, rows: MeasuredRows, names: LossGroups, size: int) -> dict[str, Any]:
    from sftplug.ship.evaluate import score
    from sftplug.training.collator import Collator

    scores = score(model, rows.rows, Collator(int(rows.prepared.tokenizer.pad_token_id)), names, size)
    if scores is None:
        raise DataError("no token of these rows is trained, so there is nothing to measure.")
    return scores.to_dict()


def _replies(
    directory: RunDirectory, recipe: Recipe, rows: MeasuredRows, names: LossGroups, **how: Any
) -> dict[str, Any]:
    """Return how many rows were answered, and what each metric says of the replies."""
    from transformers import GenerationConfig

    from sftplug.data.parse import ReplyReader
    from sftplug.ship.replies import Answering, places, scored

    asked = list(places(rows.rows, recipe.evaluation.rows))
    if not asked:
        raise DataError("none of these rows has a trained reply with something before it, so nothing can be answered.")
    ends = GenerationConfig.from_pretrained(str(directory.path)).eos_token_id
    ends = ends if isinstance(ends, list) else [] if ends is None else [ends]
    limit = recipe.evaluation.max_new_tokens
    tokenizer = rows.prepared.tokenizer
    reader = ReplyReader.of(tokenizer, ends, recipe.model.add_tokens) if tokenizer.chat_template else None
    answering = Answering(how["model"], tokenizer, ends, how["size"], limit, reader)
    origins = rows.origins.of([place.row for place in asked])
    replies = list(answering.replies(asked, origins, names))
    return {"replies": len(replies), "metrics": scored(recipe.evaluation.metrics, replies)}


def logged(metrics: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return the results of metrics as a line of the run's own: ``eval_…`` of all, of each source if of several.

    And of each value of a tag, as ``eval_contains/customer/north``.
    """
    line: dict[str, Any] = {}
    for name, result in metrics.items():
        line |= {f"eval_{name}": result["mean"], f"eval_{name}_rows": result["rows"]}
        if len(result["by_source"]) > 1:
            line |= {f"eval_{name}/{source}": of["mean"] for source, of in result["by_source"].items()}
            line |= {f"eval_{name}_rows/{source}": of["rows"] for source, of in result["by_source"].items()}
        for tag, values in result.get("by_tag", {}).items():
            line |= {f"eval_{name}/{tag}/{value}": of["mean"] for value, of in values.items()}
            line |= {f"eval_{name}_rows/{tag}/{value}": of["rows"] for value, of in values.items()}
    return line
