"""The files that hold a model's weights: all there, whole, in the model's own folder, and every weight of them used."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from sftplug.errors import ModelError
from sftplug.recipe.adapter_base import ADAPTER, OWN, adapter_config

if TYPE_CHECKING:
    from transformers import PreTrainedModel

INDEX = "model.safetensors.index.json"
_WHOLE = "model.safetensors"
_CONFIG = "config.json"
_ADAPTER_WEIGHTS = "adapter_model.safetensors"
PICKLED = (
    "Only safetensors are loaded: pickled weights can run code. If you trust where they are from, "
    "`model.use_safetensors: false` takes them all the same."
)
_SHOWN = 5


# --- the files --------------------------------------------------------------------------------------------------------


def check_weights(folder: Path, *, named: str | None = None, pickled: bool = False) -> None:
    """Raise ModelError for the first file of a model's weights that is damaged, missing, pickled or elsewhere.

    Reads the files' headers and no weight. `named` is the file that the configuration names (``transformers_weights``)
    in place of the usual ones; `pickled` allows what is not safetensors, whose insides are not looked at.
    """
    _refuse_shards(folder)
    first = _first_file(folder, named)
    if first is None and not pickled and any(folder.glob("*.bin")):
        raise ModelError(f"the weights in {folder} are pickled. {PICKLED}")
    if first is None and not any(folder.glob("*.safetensors")) and not any(folder.glob("*.bin")):
        raise ModelError(f"{folder} has a configuration and no weights: there is no {_WHOLE} or {INDEX} in it.")
    if first is not None and first.suffix != ".json":
        _check_file(first)
    elif first is not None:
        for name in _parts(first):
            if not (pickled and not name.endswith(".safetensors")):
                _check_part(first, folder, name)
        _refuse_twice(first, folder)


def weights_named_in(config: Any) -> str | None:
    """Return the file of weights that a configuration names in place of the usual ones; None if it names none."""
    named = getattr(config, "transformers_weights", None)
    return None if named is None else str(named)


def _first_file(folder: Path, named: str | None) -> Path | None:
    """Return the file that transformers reads first: the weights, or their index. None if there is neither."""
    if named is not None:
        place = PurePosixPath(named.replace("\\", "/"))
        if place.is_absolute() or ".." in place.parts or ":" in named:
            raise ModelError(f"{folder / _CONFIG} names the weights {named!r}, which lie outside of the folder.")
        if not named.endswith((".safetensors", ".safetensors.index.json")) or not (folder / named).is_file():
            raise ModelError(f"{folder / _CONFIG} names the weights {named!r}, and there is no such safetensors file.")
        return folder / named
    if (folder / _WHOLE).is_file():
        return folder / _WHOLE
    if (folder / _WHOLE).is_symlink() or (folder / _WHOLE).is_dir():
        raise ModelError(f"{folder / _WHOLE} is not a file, nor a link to one. Get the model once more.")
    return folder / INDEX if (folder / INDEX).is_file() else None


def _refuse_shards(folder: Path) -> None:
    """Raise ModelError for the files of a distributed checkpoint.

    transformers loads them in place of all others, and tells of no weight that they lack.
    """
    for name in sorted(path.name for path in folder.glob("shard-*-model-*.safetensors")):
        raise ModelError(
            f"{folder} holds a part of a checkpoint that several processes have saved, {name}. transformers "
            "would load it in place of the model's other weights. Delete it, or save the model whole."
        )


def _parts(index: Path) -> list[str]:
    """Return the files that an index names, each once."""
    known = _object(index)
    named = known.get("weight_map")
    if not isinstance(named, dict) or not named or not all(isinstance(name, str) for name in named.values()):
        raise ModelError(f"{index} is damaged: it has no `weight_map` from the names of weights to files.")
    if not isinstance(known.get("metadata"), dict):
        raise ModelError(f"{index} is damaged: it has no `metadata`, which transformers asks for.")
    return sorted(set(named.values()))


def _refuse_twice(index: Path, folder: Path) -> None:
    """Raise ModelError for a weight that two files of an index hold: which is loaded is anybody's guess."""
    holder: dict[str, str] = {}
    for part in _parts(index):
        for name in header_of(folder / part) if part.endswith(".safetensors") else ():
            if name in holder:
                raise ModelError(
                    f"{folder} holds the weight {name} twice, in {holder[name]} and in {part}. Get the model once more."
                )
            holder[name] = part


def _check_part(index: Path, folder: Path, name: str) -> None:
    place = PurePosixPath(name.replace("\\", "/"))
    if place.is_absolute() or ".." in place.parts or ":" in name:
        raise ModelError(f"{index} names {name!r}, which lies outside of the folder of the model.")
    if not name.endswith(".safetensors"):
        raise ModelError(f"{index} names {name!r}, which is not a safetensors file. {PICKLED}")
    if not (folder / name).is_file():
        raise ModelError(f"{index} names {name!r}, which is not in the folder: get the model once more.")
    _check_file(folder / name)


def _check_file(file: Path) -> None:
    if fault := fault_of(file):
        raise ModelError(f"{file} is damaged: {fault}. Get the model once more.")


def fault_of(file: Path) -> str | None:
    """Return what is wrong with a safetensors file, by its size and header: 8 bytes of length, JSON, then the weights.

    None if nothing is. The format: https://github.com/huggingface/safetensors#format
    """
    size = file.stat().st_size
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
    if size < 8 or length > size - 8:
        return f"it has {size:,} bytes, and ends within its header"
    try:
        # A download that was broken off shows here: the header, which comes first, tells how long the file should be.
        ends = [int(tensor["data_offsets"][1]) for tensor in header_of(file).values()]
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError) as error:
        return f"its header cannot be read ({type(error).__name__})"
    expected = 8 + length + max(ends, default=0)
    return (
        _refused_by_library(file)
        if size == expected
        else f"it has {size:,} bytes, and its header tells of {expected:,}"
    )


def _refused_by_library(file: Path) -> str | None:
    """Return what safetensors itself says of a header: tensors over each other, types that there are not …"""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="np"):
            return None
    except SafetensorError as error:
        return f"its header cannot be read ({error})"


def header_of(file: Path) -> dict[str, Any]:
    """Return what a safetensors file says of its tensors: name -> ``dtype``, ``shape``, ``data_offsets``."""
    with file.open("rb") as stream:
        header = json.loads(stream.read(int.from_bytes(stream.read(8), "little")))
    return {name: tensor for name, tensor in header.items() if name != "__metadata__"}


def headers(folder: Path, named: str | None = None) -> dict[str, Any]:
    """Return what the files of a model say of its tensors, if `check_weights` finds nothing wrong with them.

    Empty where they are not safetensors.
    """
    first = _first_file(folder, named)
    names = [] if first is None else _parts(first) if first.suffix == ".json" else [str(first.relative_to(folder))]
    held = [header_of(folder / name) for name in names if name.endswith(".safetensors")]
    return {name: tensor for header in held for name, tensor in header.items()}


def damaged_json(folder: Path) -> str:
    """Return which of the JSON files beside a model's weights cannot be read; empty if all can."""
    for file in sorted(folder.glob("*.json")):
        try:
            _object(file)
        except ModelError as error:
            return str(error)
    return ""


def _object(file: Path) -> Mapping[str, Any]:
    try:
        known = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{file} is damaged, and cannot be read as JSON: {error}") from error
    if not isinstance(known, dict):
        raise ModelError(f"{file} is damaged: it holds no object.")
    return known


# --- adapters ---------------------------------------------------------------------------------------------------------


def check_adapter(folder: Path, base: str, *, built: bool = False) -> None:
    """Raise ModelError when the adapter in `folder` has no whole safetensors file, or names another base than `base`.

    A base that was `built` on the spot has another folder on each machine, and the same name there. What an adapter
    has saved that is no type of PEFT, it alone knows.
    """
    own = (folder / OWN).is_file()
    if not own:
        _check_weights_of_peft(folder)
    named = adapter_config(folder).get("base_model_name_or_path")
    same = named is None or (Path(named).name == Path(base).name if built else _place(named) == _place(base))
    if not same:
        raise ModelError(
            f"{folder / (OWN if own else ADAPTER)} names {named} as the base of the adapter, and the recipe of the run "
            f"{base}. If they are one and the same model, set `base_model_name_or_path` there to {base!r}."
        )


def _check_weights_of_peft(folder: Path) -> None:
    if not (folder / _ADAPTER_WEIGHTS).is_file():
        pickled = (folder / "adapter_model.bin").is_file()
        why = "its weights are pickled, which can run code" if pickled else "its weights are not there"
        raise ModelError(f"the adapter in {folder} is not loaded: there is no {_ADAPTER_WEIGHTS}, {why}.")
    _check_file(folder / _ADAPTER_WEIGHTS)


def _place(name: str) -> str:
    return str(Path(name).resolve()) if Path(name).exists() else name


# --- which weights they are -------------------------------------------------------------------------------------------


def foresee_weights(model: PreTrainedModel, folder: Path, named: str | None = None) -> None:
    """Raise ModelError for what `refuse_other_weights` would refuse, before a weight is read.

    The headers of safetensors tell names and shapes. transformers itself "loads" tensors of these names and shapes, and
    without content, into another model like `model`, which is without weights: with all that it renames, puts together,
    ties and leaves out.
    """
    import torch

    held = headers(folder, named)
    _refuse_whole_numbers(folder, held)
    tensors = {name: torch.empty(tensor["shape"], device="meta") for name, tensor in held.items()}
    if not tensors or vars(type(model.config)).get("extra_files"):
        return  # there is nothing to tell, or a class that reads other files besides
    options = {"output_loading_info": True, "ignore_mismatched_sizes": True, "dtype": torch.float32}
    try:
        _, info = type(model).from_pretrained(
            None, config=model.config, state_dict=tensors, device_map={"": "meta"}, **options
        )
    except RuntimeError as error:
        raise ModelError(f"the weights of {folder} cannot be loaded: {error}{unlike_experts(held)}") from error
    refuse_other_weights(str(folder), info)


def foresee_saving(model: PreTrainedModel) -> None:
    """Raise ModelError when what transformers would write of the weights of `model` is not what it would read again.

    As in `foresee_weights`, of tensors without content: renamed and taken apart as they are for a file, and back.
    """
    import torch

    try:
        from transformers.core_model_loading import revert_weight_conversion
        from transformers.modeling_utils import remove_tied_weights_from_state_dict
    except ImportError:  # one that writes weights in another way, which nothing tells
        return
    left_out = set(getattr(model, "_keys_to_ignore_on_save", None) or ())
    held = {name: tensor for name, tensor in model.state_dict().items() if name not in left_out}
    held = remove_tied_weights_from_state_dict(held, model)
    tensors = {name: torch.empty_like(tensor, device="meta") for name, tensor in held.items()}
    written = revert_weight_conversion(model, tensors)
    options = {"output_loading_info": True, "ignore_mismatched_sizes": True, "dtype": model.dtype}
    _, info = type(model).from_pretrained(
        None, config=model.config, state_dict=written, device_map={"": "meta"}, **options
    )
    refuse_other_weights("the result", info)


def _refuse_whole_numbers(folder: Path, held: Mapping[str, Any]) -> None:
    """Raise ModelError for weights that are held as whole numbers: the configuration names no quantization.

    transformers makes floats of them as they stand: 127 for what was, say, 0.01 times a scale that nobody applies.
    """
    whole = [name for name, tensor in held.items() if str(tensor.get("dtype", "")).startswith(("I", "U", "BOOL"))]
    if wrong := [name for name in whole if not _DERIVED.search(name)]:
        raise ModelError(
            f"{folder} holds weights as whole numbers ({', '.join(wrong[:_SHOWN])}), and its {_CONFIG} names no "
            "quantization that they would be of. Get the model once more."
        )


def unlike_experts(held: Mapping[str, Any]) -> str:
    """Return a sentence on the experts that are not like the others; empty if all are.

    transformers puts the experts of a layer together, and where it cannot, it does not say which are in the way.
    """
    kinds: dict[tuple[str, str], dict[str, tuple[int, ...]]] = {}
    numbers: dict[str, set[str]] = {}
    for name, tensor in held.items():
        if found := _EXPERT.search(name):
            before, after = name[: found.start(1)], name[found.end(1) :]
            kinds.setdefault((before, after), {})[found[1]] = tuple(tensor["shape"])
            numbers.setdefault(before, set()).add(found[1])
    missing, other = [], []
    for (before, after), shapes in kinds.items():
        # The shape that most experts have is the right one: the file may lack some, or have some of another model.
        usual = Counter(shapes.values()).most_common(1)[0][0]
        missing += [f"{before}{number}{after}" for number in sorted(numbers[before] - shapes.keys())]
        other += [f"{before}{number}{after}" for number, shape in shapes.items() if shape != usual]
    wrong = [*_named("are missing", missing), *_named("have another shape", other)]
    return f" Of its experts {'; '.join(wrong)}." if wrong else ""


_EXPERT = re.compile(r"\.experts\.(\d+)\.")


# --- what was loaded --------------------------------------------------------------------------------------------------


def refuse_other_weights(path: str, info: Mapping[str, Any]) -> None:
    """Raise ModelError when not all weights of a model were in its files, or not all of those in the files were used.

    `info` is what ``from_pretrained`` tells: weights that are tied, and those that a class is known to lack or to leave
    alone, are not in it. Parts for images and sound that a model for text leaves alone are meant to be left.
    """
    missing = sorted(info["missing_keys"])
    mismatched = sorted(str(entry[0]) for entry in info["mismatched_keys"])
    known = (_OF_OTHER_SENSES, _DERIVED)
    unexpected = sorted(key for key in info["unexpected_keys"] if not any(kind.search(key) for kind in known))
    wrong = [*_named("are missing", missing), *_named("have another shape", mismatched)]
    wrong += _named("are of no use to this model", unexpected)
    if wrong:
        raise ModelError(
            f"the weights of {path} are not those of the model that its config.json describes: {'; '.join(wrong)}. "
            "What is missing would be filled at random. Get the model once more, or name the one that these belong to."
        )


_OF_OTHER_SENSES = re.compile(
    r"(^|[._])(vision|visual|image|audio|speech|video|multi_modal|mm_projector|projector)", re.IGNORECASE
)
"""Names of parts that a text class leaves out of a checkpoint of images and text."""


_DERIVED = re.compile(r"(rotary_emb\.inv_freq|attn\.(masked_)?bias|attention\.(masked_)?bias|position_ids)$")
"""Buffers that old checkpoints hold and models compute: frequencies of positions, causal masks."""


def _named(what: str, names: list[str]) -> Iterator[str]:
    if names:
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        yield f"{len(names)} {what} ({', '.join(names[:_SHOWN])}{more})"
