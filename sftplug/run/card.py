"""The model card: what a stranger must know who finds the result, and how to load it. No paths of the user's."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING, Any, Literal

from sftplug.plugin.calls import (
    changes_model,
    label,
    load_kwargs,
    loading_code,
    metric_label,
    peft_config,
    saves_itself,
)
from sftplug.recipe.adapter_base import OWN
from sftplug.recipe.defaults import OF_TRL
from sftplug.recipe.in_words import numbers_in_words, train_in_words
from sftplug.recipe.yaml import write_yaml
from sftplug.run.exports import EXPORTS, export_rows
from sftplug.run.left_out import PATCHES, STANDS_IN
from sftplug.run.record import recorded
from sftplug.storage.files import atomic_write
from sftplug.util.redact import redact

if TYPE_CHECKING:
    from pathlib import Path

    from sftplug.recipe.model import Recipe
    from sftplug.run import RunDirectory

CARD = "README.md"
Sort = Literal["whole", "peft", "own"]
"""What a result is: a whole model, an adapter of PEFT, or one that saves itself."""
HERE = 'folder = "."'
"""The line of the card's code that says where the model is; whoever publishes it puts the name there."""


def write_card(directory: RunDirectory, recipe: Recipe, folder: Path, merge: Mapping[str, Any] | None = None) -> None:
    """Write the card of a run's result to `folder`; `merge` is the record of the merge if the adapter is merged."""
    atomic_write(folder / CARD, redact(card(directory, recipe, merge)))


def card(directory: RunDirectory, recipe: Recipe, merge: Mapping[str, Any] | None = None) -> str:
    """Return the card as Markdown, with the metadata that the Hub reads at its head."""
    sort = _sort(recipe) if merge is None else "whole"
    name = directory.path.resolve().name
    parts = [
        f"---\n{write_yaml(_metadata(recipe, sort))}---",
        f"# {name}",
        f"{_base(recipe)}, fine-tuned with [TRL](https://github.com/huggingface/trl) by sftplug "
        f"{directory.environment()['libraries'].get('sftplug', '')}: adapter `{recipe.adapter.type}`, "
        f"base weights in `{recipe.quantization.type}`.",
        "## How to load it",
        f"```python\n{_snippet_of(directory, recipe, merge, sort)}```",
        *(_merge(merge) if merge is not None else _other_weights(recipe)),
        *_patches(directory.state().patches),
        *(_exports(directory) if merge is None else ()),
        "## Training",
        _table(("", "", "from"), _training(directory, recipe)),
        "## Metrics",
        _table(("", ""), _metrics(directory, recipe)),
        "## Data",
        _table(_LEDGER, _ledger(directory.ledger())),
        *([_table(("source", "", ""), _known(recipe))] if any(_known(recipe)) else []),
        "## Recipe",
        f"```yaml\n{write_yaml(_public_recipe(recipe, directory.recipe()))}```",
        "## Versions",
        _table(("library", "version"), _versions(directory)),
        _table(("plugin", "distribution", "version", "SHA-256"), _plugins(directory)),
    ]
    return "\n\n".join(parts) + "\n"


def _snippet_of(directory: RunDirectory, recipe: Recipe, merge: Mapping[str, Any] | None, sort: Sort) -> str:
    return snippet(recipe, merge, sort=sort, chat=_has_template(directory), kind=directory.state().auto_class)


def rehearse_card(recipe: Recipe) -> None:
    """Write what of a card the recipe alone decides, to nowhere: what cannot be written is known before training."""
    sort = _sort(recipe)
    for text in (write_yaml(_metadata(recipe, sort)), write_yaml(_public_recipe(recipe)), _base(recipe)):
        redact(text)
    snippet(recipe, sort=sort)


def _sort(recipe: Recipe) -> Sort:
    """Return what the result of a recipe is."""
    if peft_config(recipe.adapter) is not None:
        return "peft"
    return "own" if saves_itself(recipe.adapter) else "whole"


def _has_template(directory: RunDirectory) -> bool:
    return (directory.path / "chat_template.jinja").is_file()


def _metadata(recipe: Recipe, sort: Sort) -> dict[str, Any]:
    """Return what the Hub reads; only what is on the Hub is named as such."""
    name = recipe.model.name_or_path
    metadata: dict[str, Any] = {
        "library_name": "peft" if sort == "peft" else "transformers",
        "pipeline_tag": "text-generation",
    }
    if name is not None and not _is_path(name) and not recipe.model.merge_adapter:
        metadata["base_model"] = name
    hub = [getattr(source.source, "hub", None) for source in recipe.data.train]
    if any(hub):
        metadata["datasets"] = sorted({str(item) for item in hub if item})
    return {**metadata, "tags": ["sftplug", "trl", "sft", recipe.adapter.type]}


def _base(recipe: Recipe) -> str:
    if recipe.model.build is not None:
        return f"A model that sftplug builds on the spot (`{recipe.model.build.type}`)"
    revision = f" at revision `{recipe.model.revision}`" if recipe.model.revision else ""
    adapter = f", with the adapter of `{public(recipe.model.adapter)}` in its weights" * recipe.model.merge_adapter
    return f"`{public(recipe.model.name_or_path)}`{revision}{adapter}"


# --- how to load it ---------------------------------------------------------------------------------------------------


_TEXT_MODEL = "AutoModelForCausalLM"


def snippet(
    recipe: Recipe, merge: Mapping[str, Any] | None = None, *, sort: Sort, chat: bool = True, kind: str = _TEXT_MODEL
) -> str:
    """Return Python that loads the result with transformers, and PEFT for one of its adapters, and answers a question.

    An adapter is put on weights in the numbers on which it was trained, computed with as they were in training. `kind`
    is the class of transformers that loads the model.
    """
    arguments = {"dtype": "auto"} if merge is not None else _arguments(recipe)
    quantized = merge is None or merge["in_place"]
    config = arguments.pop("quantization_config", None)
    options = "".join(f", {name}={value!r}" for name, value in arguments.items())
    options += f",\n    quantization_config={_expression(config)}" if config is not None else ""
    own = sort == "own"
    # PEFT has a class that loads base and adapter in one for models of text alone.
    peft = ("AutoPeftModelForCausalLM",) if kind == _TEXT_MODEL else ("PeftConfig", "PeftModel")
    at_once = sort == "peft" and kind == _TEXT_MODEL
    names = ["AutoTokenizer", *([type(config).__name__] if config is not None else []), "GenerationConfig"]
    where = _OF_BASE if own else "folder" if sort == "whole" or at_once else _OF_PEFT
    lines = [
        *(_IMPORTS if own else [f"from peft import {', '.join(peft)}"] if sort == "peft" else ()),
        f"from transformers import {', '.join([*([] if at_once else [kind]), *names])}",
        "",
        HERE,
        "tokenizer = AutoTokenizer.from_pretrained(folder)",
        *(_BASE if own else ()),
        f"model = {peft[0] if at_once else kind}.from_pretrained({where}{options})",
        *(["model = PeftModel.from_pretrained(model, folder)"] if where == _OF_PEFT else ()),
        "model.generation_config = GenerationConfig.from_pretrained(folder)  # where an answer ends",
        *(loading_code(recipe.quantization).splitlines() if quantized else ()),
        *(line for patch in recipe.patches for line in loading_code(patch).splitlines()),
        *(loading_code(recipe.adapter).splitlines() if own else ()),
        *(_CHAT if chat else _TEXT),
        "answer = model.generate(**inputs, max_new_tokens=64)[0, inputs.input_ids.shape[1] :]",
        "print(tokenizer.decode(answer, skip_special_tokens=True))",
    ]
    return "\n".join(lines) + "\n"


_OF_PEFT = "PeftConfig.from_pretrained(folder).base_model_name_or_path"
_IMPORTS = ("import json", "from pathlib import Path", "", "from huggingface_hub import snapshot_download")
_BASE = (
    "files = Path(folder) if Path(folder).is_dir() else Path(snapshot_download(folder))",
    f'base = json.loads((files / "{OWN}").read_text())',
)
_OF_BASE = 'base["base_model_name_or_path"], revision=base["revision"] or "main"'
"""An adapter that is no type of PEFT says in a file of its own what it belongs to."""


def _arguments(recipe: Recipe) -> dict[str, Any]:
    """Return the arguments of ``from_pretrained`` as they are written in code."""
    arguments = load_kwargs(recipe.quantization)
    return {**arguments, "dtype": str(arguments.get("dtype", "auto")).removeprefix("torch.")}


def _expression(config: Any) -> str:
    """Return the call that makes a quantization configuration."""
    skipped = ("quant_method", "_load_in_4bit", "_load_in_8bit")
    options = {name: value for name, value in config.to_diff_dict().items() if name not in skipped}
    given = ", ".join(f"{name}={value!r}" for name, value in options.items())
    return f"{type(config).__name__}({given})"


_CHAT = (
    "",
    'messages = [{"role": "user", "content": "Hello!"}]',
    "inputs = tokenizer.apply_chat_template(",
    '    messages, add_generation_prompt=True, return_dict=True, return_tensors="pt"',
    ").to(model.device)",
)
_TEXT = ("", 'inputs = tokenizer("Once upon a time", return_tensors="pt").to(model.device)')
"""What the model is asked: as a chat if it has a template, else as text that it continues."""


# --- tables -----------------------------------------------------------------------------------------------------------

_LEDGER = ("split", "source", "rows read", "kept", "dropped", "tokens", "trained")


def _ledger(ledger: Mapping[str, Any]) -> Iterator[tuple[Any, ...]]:
    for split, accounts in ledger["splits"].items():
        for account in accounts:
            dropped = ", ".join(f"{count:,} {why}" for why, count in account["dropped"].items()) or "0"
            counts = (f"{account['read']:,}", f"{account['kept']:,}", dropped, f"{account['tokens']:,}")
            yield split, public(account["source"]), *counts, f"{account['trained_share']:.1%}"


def _known(recipe: Recipe) -> Iterator[tuple[str, str, str]]:
    """Yield source, name and value of what else is known of the rows."""
    for source in (*recipe.data.train, *recipe.data.eval):
        yield from ((str(public(label(source.source))), name, value) for name, value in source.meta.items())


def _training(directory: RunDirectory, recipe: Recipe) -> Iterator[tuple[str, str, str]]:
    """Yield what was in force, wherever it came from."""
    origins = directory.origins()
    for name, value, path in numbers_in_words(recipe.quantization.model_dump(mode="json")):
        yield name, value, origins.get(path, "default")
    named = [getattr(part, "type", None) for part in (recipe.optimizer, recipe.schedule)]
    for name, value, path in train_in_words(recipe.train, *named):
        yield name, value, origins.get(path, OF_TRL)


def _metrics(directory: RunDirectory, recipe: Recipe) -> Iterator[tuple[str, str]]:
    state, last = directory.state(), {}
    for entry in directory.metrics():
        last.update(entry)
    yield "steps", f"{state.steps:,}"
    yield "tokens in training", f"{state.tokens:,}"
    yield "seconds in training", f"{state.seconds:,.1f}"
    yield "mean training loss", f"{state.loss:.4f}" if state.loss is not None else "not known"
    wanted = ("loss", *sorted(name for name in last if name.startswith("eval_") and name.endswith("loss")))
    yield from ((f"last {name}", f"{last[name]:.4f}") for name in wanted if isinstance(last.get(name), float))
    of_replies = [f"eval_{metric_label(metric)}" for metric in recipe.evaluation.metrics]
    yield from ((name, f"{last[name]:.4f}") for name in of_replies if name in last)


def _merge(merge: Mapping[str, Any]) -> Iterator[str]:
    apart = merge["difference"]
    yield (
        f"The adapter is merged onto {merge['onto']}, in {merge['dtype']}. Its logits differ from those of the adapter "
        f"on its base by {apart['relative']:.3%} of their standard deviation on average, {apart['max']:.3g} at most, "
        f"on {apart['positions']} positions of {apart['rows']} {merge['compared_on']}."
    )


def _other_weights(recipe: Recipe) -> Iterator[str]:
    if changes_model(recipe.quantization) and not loading_code(recipe.quantization).strip():
        yield (
            f"**This code loads other weights than those that were trained on**: `{recipe.quantization.type}` changes "
            "the base once it is loaded, which sftplug does and this code does not."
        )


def _exports(directory: RunDirectory) -> Iterator[str]:
    """Yield how each exported form compares with the trained model."""
    lines = [public(line) for line in export_rows(directory.exports(), directory.state().steps)]
    if lines:
        yield "## Exports"
        yield "Each was read again and compared with the trained model: prompts have the same tokens, replies stop."
        yield _table(EXPORTS, iter(lines))


def _patches(patches: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield what was done to the model in training, and whether whoever loads it needs that."""
    if not patches:
        return
    names = ", ".join(f"`{patch['type']}`" for patch in patches)
    changing = ", ".join(f"`{patch['type']}`" for patch in patches if patch["changes_logits"])
    apart = patches[0]["difference"]
    measured = f", but for {apart:.1e} of the standard deviation of its logits" if apart else ""
    if apart is None:
        measured = ", as its author says: it was not compared, for several processes shared the model"
    rest = f"A plain model computes the same{measured}."
    if changing:
        rest = f"What it computes is changed by {changing}: the code above does the same to a plain model{measured}."
    yield f"In training, how the model computes was changed by {names}. {rest}"


def _versions(directory: RunDirectory) -> Iterator[tuple[str, str]]:
    known = directory.environment()
    yield "Python", known["python"]
    yield from known["libraries"].items()


def _plugins(directory: RunDirectory) -> Iterator[tuple[str, ...]]:
    for plugin in directory.plugins():
        yield plugin["name"], plugin["distribution"], plugin["version"], plugin["sha256"][:12]


def _table(head: Sequence[str], rows: Iterator[tuple[Any, ...]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(_cell(cell) for cell in line)} |" for line in lines)


def _cell(value: Any) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")


# --- what may be told -------------------------------------------------------------------------------------------------


def _public_recipe(recipe: Recipe, then: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the resolved recipe without what is nobody's business: folders, and what `recorded` leaves out.

    What only training uses is as the record has it, `then`: it may not be there to be read any more.
    """
    plain = json.loads(json.dumps(then or {}))  # what is read knows where it was written
    known = recorded(recipe) | {name: value for name, value in plain.items() if name in {**STANDS_IN, **PATCHES}}
    del known["output"]
    told: dict[str, Any] = public(known)
    return told


def public(value: Any) -> Any:
    """Return plain data in which of every absolute path only the last name is left."""
    if isinstance(value, Mapping):
        return {name: public(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [public(item) for item in value]
    if isinstance(value, str) and _is_path(value):
        return re.split(r"[\\/]", value.rstrip("\\/"))[-1]
    return value


def _is_path(text: str) -> bool:
    """Whether `text` is an absolute path; a lone slash before a word is none."""
    absolute = PurePosixPath(text).is_absolute() or PureWindowsPath(text).is_absolute() or text.startswith("~")
    return absolute and len(re.findall(r"[\\/]", text)) > 1 and "\n" not in text
