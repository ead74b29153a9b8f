"""The files that hold a model's weights: all there, whole, in the model's own folder, and every weight of them used."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from sftplug.errors import ModelError
from sftplug.run.result import ADAPTER, adapter_config

INDEX = "model.safetensors.index.json"
_WHOLE = "model.safetensors"
_ADAPTER_WEIGHTS = "adapter_model.safetensors"
PICKLED = (
    "Only safetensors are loaded: pickled weights can run code. If you trust where they are from, "
    "`model.use_safetensors: false` takes them all the same."
)
_SHOWN = 5


# --- the files --------------------------------------------------------------------------------------------------------


def check_weights(folder: Path, *, pickled: bool = False) -> None:
    """Raise ModelError for the first file of a model's weights that is damaged, missing, pickled or elsewhere.

    Reads the files' headers and no weight. `pickled` allows what is no safetensors, whose insides are not looked at.
    """
    if (folder / _WHOLE).is_file():
        _check_file(folder / _WHOLE)
    elif (folder / INDEX).is_file():
        for name in _parts(folder / INDEX):
            if not (pickled and not name.endswith(".safetensors")):
                _check_part(folder, name)
    elif not pickled and any(folder.glob("*.bin")):
        raise ModelError(f"the weights in {folder} are pickled. {PICKLED}")
    elif not any(folder.glob("*.safetensors")) and not any(folder.glob("*.bin")):
        raise ModelError(f"{folder} has a configuration and no weights: there is no {_WHOLE} or {INDEX} in it.")


def _parts(index: Path) -> list[str]:
    """Return the files that an index names, each once."""
    known = _object(index)
    named = known.get("weight_map")
    if not isinstance(named, dict) or not all(isinstance(name, str) for name in named.values()):
        raise ModelError(f"{index} is damaged: it has no `weight_map` from the names of weights to files.")
    return sorted(set(named.values()))


def _check_part(folder: Path, name: str) -> None:
    place = PurePosixPath(name.replace("\\", "/"))
    if place.is_absolute() or ".." in place.parts or ":" in name:
        raise ModelError(f"{folder / INDEX} names {name!r}, which lies outside of the folder of the model.")
    if not name.endswith(".safetensors"):
        raise ModelError(f"{folder / INDEX} names {name!r}, which is no safetensors file. {PICKLED}")
    if not (folder / name).is_file():
        raise ModelError(f"{folder / INDEX} names {name!r}, which is not in the folder: get the model once more.")
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
            header = json.loads(stream.read(length))
            ends = [int(tensor["data_offsets"][1]) for name, tensor in header.items() if name != "__metadata__"]
        except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError) as error:
            return f"its header cannot be read ({type(error).__name__})"
    expected = 8 + length + max(ends, default=0)
    return None if size == expected else f"it has {size:,} bytes, and its header tells of {expected:,}"


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

    A base that was `built` on the spot has another folder on each machine, and the same name there.
    """
    if not (folder / _ADAPTER_WEIGHTS).is_file():
        pickled = (folder / "adapter_model.bin").is_file()
        why = "its weights are pickled, which can run code" if pickled else "its weights are not there"
        raise ModelError(f"the adapter in {folder} is not loaded: there is no {_ADAPTER_WEIGHTS}, {why}.")
    _check_file(folder / _ADAPTER_WEIGHTS)
    named = adapter_config(folder).get("base_model_name_or_path")
    same = named is None or (Path(named).name == Path(base).name if built else _place(named) == _place(base))
    if not same:
        raise ModelError(
            f"{folder / ADAPTER} names {named} as the base of the adapter, and the recipe of the run {base}. If they "
            f"are one and the same model, set `base_model_name_or_path` there to {base!r}."
        )


def _place(name: str) -> str:
    return str(Path(name).resolve()) if Path(name).exists() else name


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
