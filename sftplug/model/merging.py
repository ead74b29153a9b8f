"""An adapter as part of the weights of its base: how it becomes that, and a base that has one in it."""

from __future__ import annotations

import hashlib
import shutil
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from sftplug.errors import ModelError
from sftplug.libraries.logging import quiet_libraries
from sftplug.model.loading import cache_folder, load_base, load_tokenizer
from sftplug.model.own_adapter import with_own_adapter
from sftplug.model.tied_embeddings import part, parted
from sftplug.model.weight_files import check_adapter
from sftplug.plugin import calls
from sftplug.recipe.adapter_base import ADAPTER, OWN, adapter_config, is_adapter
from sftplug.run import RunDirectory
from sftplug.run.result import PROMPTS
from sftplug.storage.files import sha256
from sftplug.storage.kept import KeptFolders
from sftplug.util.arguments import argument

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from sftplug.recipe.model import Recipe

Dtype = Literal["bf16", "fp16", "fp32"]


def with_adapter(recipe: Recipe, base: PreTrainedModel, folder: Path) -> Any:
    """Return `base` with the adapter that `folder` holds. Raises ModelError when it cannot be loaded."""
    from peft import PeftModel

    if calls.saves_itself(recipe.adapter) and (folder / OWN).is_file():
        return with_own_adapter(recipe, base, folder).eval()
    try:
        return PeftModel.from_pretrained(base, str(folder)).eval()
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise ModelError(f"the adapter in {folder} cannot be loaded: {error}") from error


def adapted(
    folder: Path, recipe: Recipe, *, in_place: bool = False, original: bool = False, dtype: Dtype | None = None
) -> Any:
    """Return the base of `recipe` with the adapter in `folder`, ready to be `merged`.

    A quantized base has its float values, unless it is to be merged `in_place`; `original` takes the base as it was
    before it was quantized, `dtype` casts it first. Without the recipe's patches: they change what is computed with
    the weights, and who loads the merged model needs to know of them. Raises ModelError.
    """
    import torch

    recipe = recipe.model_copy(update={"patches": ()})
    base = load_base(recipe, original=original)
    if not (in_place or original):
        base = _dequantized(recipe, base)
    if dtype is not None:
        # With fp32 the update is added in 32 bits, and not rounded to the 16 of the base.
        base = base.to({"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}[dtype])
    return with_adapter(recipe, base, folder)


def merged(recipe: Recipe, model: Any) -> PreTrainedModel:
    """Return the base of what `adapted` has returned, with the update in its weights.

    Raises ModelError when backend or adapter cannot do that.
    """
    if calls.saves_itself(recipe.adapter):
        return calls.merged(recipe.adapter, model)
    # Added to a head that shares its weights with the embeddings, the update would change these too.
    if (head := parted(model.get_base_model())) is not None:
        part(model.get_base_model(), head)
    whole = calls.merged(recipe.adapter, model)
    _refuse_rest(recipe, whole)
    return whole


def _dequantized(recipe: Recipe, base: PreTrainedModel) -> PreTrainedModel:
    try:
        return calls.dequantized(recipe.quantization, base)
    except ModelError as error:
        raise ModelError(
            f"{error}\n{argument('--base', 'original')} merges onto the weights before they were quantized, and says "
            "how far that is."
        ) from error


def _refuse_rest(recipe: Recipe, model: PreTrainedModel) -> None:
    """Raise ModelError when some of the adapter still stands beside the weights."""
    from peft import PeftModel
    from peft.tuners.tuners_utils import BaseTunerLayer

    rest = [name for name, module in model.named_modules() if isinstance(module, BaseTunerLayer)]
    if isinstance(model, PeftModel) or rest:
        where = f", at {rest[0]} for one" if rest else ""
        raise ModelError(f"'{recipe.adapter.type}' is not part of the weights after merging{where}.")


# --- a base with an adapter in it -------------------------------------------------------------------------------------


def merged_base(recipe: Recipe) -> Path:
    """Return the folder of the recipe's base with ``model.adapter`` in its weights; it is made once, and then kept.

    Raises ModelError when the adapter is not there, belongs to another base, or cannot become part of weights.
    """
    folder = Path(str(recipe.model.adapter))
    refuse_no_adapter(folder)
    one = f"the base with the adapter of {folder} in it"
    kept = KeptFolders(cache_folder() / "models", "built models", ModelError, one=one, read_once=True)
    place, _ = kept.get(f"merged-{_fingerprint(folder)}", lambda new: _merge(recipe, folder, new))
    return place


def refuse_no_adapter(folder: Path) -> None:
    """Raise ModelError when there is no adapter in `folder`."""
    if not is_adapter(folder):
        raise ModelError(f"model.adapter: {folder} holds no adapter: there is no {ADAPTER}.")


def problems_of_merging(recipe: Recipe) -> list[str]:
    """Return why ``model.adapter`` cannot become part of the weights of its base."""
    folder = Path(str(recipe.model.adapter))
    kind = str(adapter_config(folder).get("peft_type", "")).upper()
    whose = trained_by(folder)
    if whose is not None:
        return calls.merge_problems(whose.adapter, whose.quantization, in_place=False)
    return ["a trained prompt cannot become part of the weights"] if kind in PROMPTS else []


def trained_by(folder: Path) -> Recipe | None:
    """Return the recipe of the run that has left the adapter in `folder`, or the checkpoint; None if there is none."""
    run = folder.parent if folder.name.startswith("checkpoint-") else folder
    directory = RunDirectory(run)
    return directory.load_recipe(rows=False).recipe if directory.exists() else None


def _fingerprint(folder: Path) -> str:
    """Return a hash over the adapter and its base's name."""
    files = [file for file in sorted(folder.iterdir()) if file.suffix == ".safetensors" or file.name in (ADAPTER, OWN)]
    return _hash_of(tuple((file, file.stat().st_size, file.stat().st_mtime_ns) for file in files))


@lru_cache(maxsize=8)
def _hash_of(files: tuple[tuple[Path, int, int], ...]) -> str:
    return hashlib.sha256("".join(f"{file.name} {sha256(file)} " for file, *_ in files).encode()).hexdigest()[:16]


def _merge(recipe: Recipe, folder: Path, new: Path) -> None:
    """Write the base with the adapter of `folder` in it to the folder `new`, with tokenizer and generation options."""
    quiet_libraries()
    whose, known = trained_by(folder), recipe.model
    beneath = known.model_copy(update={"merge_adapter": False})
    # An adapter that no run of ours has trained goes onto the base as its author has it: in which numbers it was
    # trained is not known.
    by = whose if whose is not None else recipe.model_copy(update={"model": beneath})
    check_adapter(folder, str(known.name_or_path), built=by.model.build is not None)
    model = adapted(folder, by, original=whose is None and by.quantization.bits < 16)
    before = _says(model)
    whole = merged(by, model)
    apart = float((_says(whole) - before).abs().mean()) / max(float(before.std()), 1e-12)
    if not apart <= ALLOWED:
        raise ModelError(
            f"model.merge_adapter: the base with the adapter of {folder} in it does not say what the two say: logits "
            f"differ by {apart:.2%} of their standard deviation, and {ALLOWED:.0%} is rounding."
        )
    whole.save_pretrained(str(new))
    load_tokenizer(recipe.model_copy(update={"model": beneath})).save_pretrained(str(new))
    if (folder / "generation_config.json").is_file():
        shutil.copyfile(folder / "generation_config.json", new / "generation_config.json")


ALLOWED = 0.05
"""By how much logits may differ once an adapter is merged, as a share of their deviation: what bf16 rounds is less."""


def _says(model: Any) -> Any:
    """Return (32, V) the logits of the first ids of the vocabulary."""
    import torch

    with torch.inference_mode():
        ids = torch.arange(32, device=model.device)[None] % model.config.get_text_config().vocab_size
        return model.eval()(input_ids=ids, use_cache=False).logits[0].float().cpu()
