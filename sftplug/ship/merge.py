"""Make an adapter part of the weights, and prove that the result says what the adapter said."""

from __future__ import annotations

import gc
import json
import math
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sftplug.errors import ModelError
from sftplug.libraries.logging import quiet_libraries
from sftplug.model.architectures import auto_class
from sftplug.model.loading import model_config
from sftplug.model.merging import Dtype, adapted, merged
from sftplug.model.patching import by_card_of_patches, for_inference, patches_in_force
from sftplug.model.processor import copy_processor
from sftplug.model.remote_code import code_options
from sftplug.model.tied_embeddings import says_tied
from sftplug.plugin import calls
from sftplug.recipe.adapter_base import is_adapter
from sftplug.run.card import public, write_card
from sftplug.run.environment import environment
from sftplug.ship.compare import Difference, difference, logits_at, probes
from sftplug.ship.tuned import load_tuned, load_tuned_tokenizer, placed
from sftplug.storage.folder import atomic_folder
from sftplug.util.arguments import argument

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor
    from transformers import PreTrainedModel

    from sftplug.recipe.model import Recipe
    from sftplug.run import RunDirectory
    from sftplug.ship.rows import MeasuredRows

RECORD = "merge.json"
_RUN = ".run"
"""In a merged model: the folder of the run that it comes from; it is never published."""
TOLERANCE, TOLERANCE_IN_BF16 = 0.02, 0.05
"""How far logits may be apart if nothing else is said. Eight bits of a bfloat16 are rounded at every layer, on both
sides: SmolLM2-135M with a LoRA computes logits in bf16 that are 2.2 % of their standard deviation from those in fp32,
before anything is merged, and 2.6 % from those of its merged weights; in fp32 these two are 0.0002 % apart. An adapter
that was merged wrongly is tens of percent off."""


@dataclass(frozen=True, slots=True)
class Merge:
    """How to merge, and how far the result may be from the adapter."""

    in_place: bool = False
    """Merge into the quantized weights, which rounds the update to them, rather than into their float values."""
    original: bool = False
    """Merge onto the base as it was before it was quantized, rather than onto the float values of the quantized one."""
    dtype: Dtype | None = None
    """Numbers of the result; None for those that the base computes in."""
    tolerance: float | None = None
    """Largest mean difference of the logits, as a share of their standard deviation; None for 0.02, and 0.05 where
    the adapter's base or the result computes in bf16."""

    def allows(self, *dtypes: str) -> float:
        """Return the tolerance between models that compute in `dtypes`, torch's names."""
        if self.tolerance is not None:
            return self.tolerance
        return TOLERANCE_IN_BF16 if "bfloat16" in dtypes else TOLERANCE


def run_of(folder: Path) -> Path | None:
    """Return the run that the merged model in `folder` comes from; None where that is not known."""
    file = folder / _RUN
    return Path(file.read_text(encoding="utf-8").strip()) if file.is_file() else None


def check_merge(directory: RunDirectory, recipe: Recipe, how: Merge) -> None:
    """Raise ModelError with every reason why the run's adapter cannot be merged; loads no weights."""
    quiet_libraries()
    quantization, quantized = recipe.quantization, is_quantized(recipe)
    problems = calls.merge_problems(recipe.adapter, quantization, in_place=how.in_place)
    if how.in_place and not quantized:
        problems.append(f"the base is {quantization.type}, not quantized: leave out {argument('--in-place')}.")
    elif how.in_place and not quantization.merges_in_place:
        problems.append(
            f"merging into {quantization.type} weights is not known to be right. Leave out {argument('--in-place')}."
        )
    problems += _problems_of_original(recipe, how) if how.original else []
    if how.in_place and how.dtype is not None:
        problems.append(f"{argument('--in-place')} keeps the quantized weights: leave out {argument('--dtype')}.")
    if not problems and not is_adapter(directory.path):
        problems.append(f"there is no adapter in {directory.path}.")
    if problems:
        raise ModelError("\n".join(["this run cannot be merged:", *(f"  {text}" for text in problems)]))


def _problems_of_original(recipe: Recipe, how: Merge) -> list[str]:
    """Return why the update cannot be added to the base as it was before it was quantized."""
    if how.in_place:
        one, other = argument("--in-place"), argument("--base", "original")
        return [f"{one} merges into the quantized weights: leave out {other}, or {one}."]
    if not is_quantized(recipe):
        return [f"the base is {recipe.quantization.type}, not quantized: leave out {argument('--base', 'original')}."]
    if getattr(model_config(recipe), "quantization_config", None) is not None:
        return [f"the base is stored quantized, and has no other weights: leave out {argument('--base', 'original')}."]
    return []


def is_quantized(recipe: Recipe) -> bool:
    """Whether the base weights are held as something else than floats."""
    return recipe.quantization.bits < 16


def merge(directory: RunDirectory, recipe: Recipe, rows: MeasuredRows, output: Path, how: Merge) -> dict[str, Any]:
    """Write the merged model to `output`, and return the record that goes with it, ``merge.json``.

    Its logits, loaded again from the disk, are compared with those of the adapter on its base at positions of `rows`.
    Raises ModelError when they differ by more than the tolerance; `output` is then not there.
    """
    wanted = probes(rows.rows)
    if not wanted:
        raise ModelError("there are no rows with trained tokens to compare the merged model on.")
    # Measured first and let go: the adapter's model and the merged one need not fit into memory together.
    before, computed_in = _before(directory, for_inference(recipe), wanted)
    with atomic_folder(output) as folder:
        adapter = adapted(directory.path, recipe, in_place=how.in_place, original=how.original, dtype=how.dtype)
        model = merged(recipe, adapter)
        del adapter
        # Read now: it is let go before the record is written.
        dtype, tied = _dtype(model), says_tied(model.config)
        _save(directory, recipe, model, folder)
        del model
        gc.collect()
        # From the disk, not from memory: what is compared is what somebody else will load, names and ties of tensors
        # included.
        apart = difference(before, logits_at(reloaded(for_inference(recipe), folder, how), wanted))
        allowed = how.allows(computed_in, dtype)
        record = {
            "base": public(recipe.model.name_or_path) or f"built: {recipe.model.build.type}",  # type: ignore[union-attr]
            "onto": _onto(recipe, how),
            "in_place": how.in_place,
            "dtype": dtype,
            "adapter": recipe.adapter.type,
            "untied": not tied and says_tied(model_config(recipe)),
            "quantization": recipe.quantization.type,
            "compared_on": rows.what,
            "difference": apart.to_dict(),
            "tolerance": allowed,
            "libraries": environment()["libraries"],
        }
        _refuse_difference(apart, how, allowed)
        (folder / RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        write_card(directory, recipe, folder, record)
        (folder / _RUN).write_text(f"{directory.path.resolve()}\n", encoding="utf-8")
    return record


def _before(
    directory: RunDirectory, recipe: Recipe, wanted: Sequence[tuple[list[int], list[int]]]
) -> tuple[list[Tensor], str]:
    """Return the logits of the adapter on its base, and the type that it computes in."""
    with patches_in_force(recipe):
        tuned = load_tuned(directory, recipe)
        found = logits_at(tuned, wanted), _dtype(tuned)
    del tuned
    gc.collect()
    return found


def _onto(recipe: Recipe, how: Merge) -> str:
    """Return which weights the update was added to."""
    if not is_quantized(recipe):
        return "the base"
    if how.original:
        return f"the original base of the {recipe.quantization.type} one"
    kind = recipe.quantization.type
    return f"the {kind} weights" if how.in_place else f"the dequantized {kind} base"


def _dtype(model: PreTrainedModel) -> str:
    return str(model.dtype).removeprefix("torch.")


def _save(directory: RunDirectory, recipe: Recipe, model: PreTrainedModel, folder: Path) -> None:
    """Write the model and what inference needs beside it: tokenizer, chat template, generation configuration."""
    model.save_pretrained(str(folder))
    load_tuned_tokenizer(directory, recipe).save_pretrained(str(folder))
    shutil.copyfile(directory.path / "generation_config.json", folder / "generation_config.json")
    copy_processor(model, folder)


def reloaded(recipe: Recipe, folder: Path, how: Merge | None = None) -> PreTrainedModel:
    """Return the merged model from the disk, as whoever gets it will load it."""
    from transformers import AutoConfig

    options = code_options(recipe.model, folder)
    kind = auto_class(AutoConfig.from_pretrained(str(folder), **options))
    if recipe.model.attn_implementation:
        options["attn_implementation"] = recipe.model.attn_implementation
    model = kind.from_pretrained(str(folder), dtype="auto", **options)
    if how is not None and how.in_place:
        calls.prepare_model(recipe.quantization, model)
    return placed(by_card_of_patches(recipe, model))


def _refuse_difference(apart: Difference, how: Merge, allowed: float) -> None:
    if math.isfinite(apart.relative) and apart.relative <= allowed:
        return
    remedy = "Keep the adapter beside its base"
    if how.in_place:
        remedy = f"Leave out {argument('--in-place')}, which rounds the update away"
    elif how.original:
        remedy = (
            f"Leave out {argument('--base', 'original')}: the adapter was trained on the quantized weights, and fixes "
            "their errors"
        )
    raise ModelError(
        f"the merged model does not say what the adapter says: its logits differ by {apart.relative:.2%} of their "
        f"standard deviation on average ({apart.mean:.3g}, at most {apart.max:.3g}; the same most likely token at "
        f"{apart.same_top:.1%} of {apart.positions} positions), and {allowed:.2%} is allowed. Nothing was kept. "
        f"{remedy}, or allow more with {argument('--tolerance')}."
    )
