"""What a folder is that a recipe names as its model, where it is not a model; and how to resume it."""

from __future__ import annotations

from pathlib import Path
from shlex import quote

from sftplug.errors import ModelError
from sftplug.recipe.adapter_base import ADAPTER, OWN, adapter_config, is_adapter
from sftplug.run import RunDirectory
from sftplug.run.result import PROMPTS

_CONFIG = "config.json"
_TOKENIZER = ("tokenizer.json", "tokenizer_config.json")
_ROWS = (".jsonl", ".json", ".csv", ".tsv", ".parquet", ".arrow", ".txt", ".zst", ".gz")


def refuse_no_model(name: str, *, tokenizer_does: bool = False) -> None:
    """Raise ModelError when `name` is a file or folder on this machine that is not a model: what it is, and what to do.

    Where a `tokenizer_does`, as it does for rows, a folder with nothing else is let through.
    """
    path = Path(name)
    if path.is_file():
        raise ModelError(_of_file(path))
    if not path.is_dir():
        return  # a name on the Hub, or nothing: whoever loads it will say so
    _refuse_endless(path)
    if is_adapter(path):
        raise ModelError(_of_adapter(path))
    known = any((path / file).is_file() for file in _TOKENIZER) and not RunDirectory(path).exists()
    if tokenizer_does and known:
        return
    # A bare name is one on the Hub, and that a folder of this name is here may be chance: its error will say so.
    if not (path / _CONFIG).is_file() and (path.is_absolute() or name.startswith(".")):
        raise ModelError(f"model: {path} is not a model: {_of_folder(path)}")


def _refuse_endless(folder: Path) -> None:
    """Raise ModelError for what no library would come to the end of: a device, a pipe, a text beyond all measure."""
    for file in sorted(folder.iterdir()):
        if file.exists() and not (file.is_file() or file.is_dir()):
            raise ModelError(f"model: {file} is not a file, but a device or a pipe. Get the model once more.")
        if file.suffix in _TEXTS and file.is_file() and (size := file.stat().st_size) > _LONGEST:
            raise ModelError(f"model: {file} has {size:,} bytes; {_LONGEST:,} are read. Get the model once more.")


_TEXTS, _LONGEST = (".json", ".jinja", ".txt"), 200_000_000
"""What is read whole, and how many bytes at most: the largest tokenizers and indexes have a fifth of that."""


def refuse_adapter_on_hub(name: str, revision: str | None) -> None:
    """Raise ModelError when the repository `name`, whose configuration could not be had, holds an adapter."""
    from transformers.utils import cached_file

    quiet = {"_raise_exceptions_for_gated_repo": False, "_raise_exceptions_for_missing_entries": False}
    file = cached_file(
        name, ADAPTER, revision=revision or "main", _raise_exceptions_for_connection_errors=False, **quiet
    )
    if file is not None:
        merged = f"./{name.rpartition('/')[2]}-merged"
        base = adapter_config(Path(file).parent).get("base_model_name_or_path")
        raise ModelError(
            f"model: {name} is an adapter of {base}, and no model. To train on from it, make it part of the weights:\n"
            f"  {_merge_by_peft(name, merged)}\nthen `model: {merged}`. "
            f"To train another adapter beside the same base: `model: {base}`."
        )


def _of_file(path: Path) -> str:
    if path.suffix == ".gguf":
        return f"model: {path} is a GGUF file. {_GGUF}"
    return f"model: {path} is a file. Name the folder of the model, which holds {_CONFIG}."


_GGUF = (
    "It holds weights that were rounded for llama.cpp, and is not trained on: name the model that it was made from, in "
    "safetensors."
)


# --- adapters ---------------------------------------------------------------------------------------------------------


def _of_adapter(path: Path) -> str:
    config = adapter_config(path)
    base = config.get("base_model_name_or_path") or "a base that it does not name"
    kind = str(config.get("peft_type", config.get("adapter_type", "unknown"))).lower()
    known = f"model: {path} is an adapter ({kind}) of {base}, and no model."
    if Path(base).is_absolute() and not Path(base).exists():
        known += " Nothing is at that place, and before its base is there again, nothing of what follows works."
    other = f"To train another adapter beside the same base: `model: {base}`."
    if config.get("peft_type") in PROMPTS:
        return f"{known} A trained prompt cannot become part of the weights. {other}"
    merged = f"{path}-merged"
    if (path / OWN).is_file() and not RunDirectory(path).exists():
        return f"{known} It is no type of PEFT: its own model card says how it is loaded. {other}"
    if RunDirectory(path).exists():
        how = f"sftplug merge {quote(str(path))} --output {quote(merged)}"
    else:
        how = _merge_by_peft(str(path), merged)
    return f"{known} To train on from it, make it part of the weights:\n  {how}\nthen `model: {merged}`. {other}"


def _merge_by_peft(adapter: str, merged: str) -> str:
    return f"python -c {quote(_MERGE.format(adapter=adapter, merged=merged))}"


_MERGE = (
    "from peft import AutoPeftModelForCausalLM as A; from transformers import AutoTokenizer as T; "
    'm = A.from_pretrained("{adapter}"); b = m.peft_config["default"].base_model_name_or_path; '
    'm.merge_and_unload().save_pretrained("{merged}"); T.from_pretrained(b).save_pretrained("{merged}")'
)
"""Merges an adapter that no run of ours has made: plain PEFT."""


# --- other folders ----------------------------------------------------------------------------------------------------


def _of_folder(path: Path) -> str:
    """Return what a folder without a configuration holds."""
    names = sorted(entry.name for entry in path.iterdir())
    if RunDirectory(path).exists():
        return _of_run(path)
    if not names:
        return "the folder is empty."
    inner = sorted(entry.parent.name for entry in path.glob(f"*/{_CONFIG}"))
    if inner:
        return f"it holds folders with models. Name one: {', '.join(f'{path / name}' for name in inner[:5])}."
    if any(name.endswith(".gguf") for name in names):
        return f"it holds a GGUF file. {_GGUF}"
    if any(file in names for file in _TOKENIZER):
        return f"it holds a tokenizer, and no {_CONFIG} and weights beside it."
    rows = [name for name in names if name.endswith(_ROWS)]
    if rows:
        return f"it holds rows ({', '.join(rows[:3])}). Rows are named in `data.train`: `{{path: {path}}}`."
    shown = f"{', '.join(names[:5])}{' …' if len(names) > 5 else ''}"
    return f"it has no {_CONFIG}, and holds {shown}."


def _of_run(path: Path) -> str:
    """Return what to do with a run that has left neither a model nor an adapter."""
    directory = RunDirectory(path)
    state = directory.state()
    reason = f": {state.reason}" if state.reason else ""
    recipe = f"`sftplug train {quote(str(path / 'recipe.yaml'))} --output {quote(str(path))}` resumes it."
    return (
        f"it is the folder of a run without a result, which is {state.state}{reason}. "
        f"{recipe if (path / 'recipe.yaml').is_file() else 'Its recipe was not written.'}"
    )
