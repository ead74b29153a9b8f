"""What the core's own sections of a recipe say that does not go together, known without loading anything."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sftplug.plugin.calls import adaptable, component_problems, is_nll, metric_label, teacher_of, train_options
from sftplug.plugin.errors import describe
from sftplug.recipe.check_optimization import check_optimizer, check_schedule
from sftplug.recipe.model import DataSection, MaskingList, ModelSection, Recipe


def check_core(recipe: Recipe) -> Iterator[tuple[str, str]]:
    """Yield (path, sentence) for what the core's own sections say that does not go together."""
    model = recipe.model
    # Equal where both are missing, and where both are there.
    if (model.name_or_path is None) == (model.build is None):
        yield "model", "needs exactly one of `name_or_path` and `build`."
    yield from _check_adapter_of_model(model)
    yield from _check_remote_code(model)
    name = model.name_or_path
    if name and Path(name).is_absolute() and not Path(name).exists():
        yield "model.name_or_path", f"the folder {name} does not exist."
    yield from _check_data(recipe)
    yield from _check_masking("masking", recipe.masking)
    for split, sources in (("train", recipe.data.train), ("eval", recipe.data.eval)):
        for index, source in enumerate(sources):
            if source.masking is not None:
                yield from _check_masking(f"data.{split}[{index}].masking", source.masking)
            if source.row_weight is not None and not _reads_weights(source.masking or recipe.masking):
                yield (
                    f"data.{split}[{index}].row_weight",
                    "no masking strategy reads it: add `message_weights` to them.",
                )
    yield from _check_loss(recipe)
    yield from check_optimizer(recipe)
    yield from check_schedule(recipe)
    yield from _check_evaluation(recipe)
    yield from _check_weights(recipe)
    yield from _check_callbacks(recipe)
    yield from _check_exporters(recipe)


def _check_adapter_of_model(model: ModelSection) -> Iterator[tuple[str, str]]:
    """An adapter that is trained on names its base itself."""
    if model.merge_adapter and model.adapter is None:
        yield "model.merge_adapter", "says what becomes of `model.adapter`, and there is none. Leave it out."
    if model.adapter is not None and model.build is not None:
        yield "model.adapter", "names its base itself. Leave `model.build` out."


_COMMIT = r"[0-9a-f]{40}"


def _check_remote_code(model: ModelSection) -> Iterator[tuple[str, str]]:
    """Code from the Hub must be what its reader has read; that in a folder is what stands there."""
    if model.code_revision is not None:
        if not model.trust_remote_code:
            yield "model.code_revision", "says which code to run, and `model.trust_remote_code` is false: none is."
        if re.fullmatch(_COMMIT, model.code_revision) is None:
            yield "model.code_revision", "must be a commit, 40 hexadecimal digits: branches and tags can be moved."
    if not model.trust_remote_code or model.name_or_path is None or Path(model.name_or_path).is_dir():
        return
    if re.fullmatch(_COMMIT, model.revision or "") is None:
        found = "" if model.revision is None else f" '{model.revision}' is none: branches and tags can be moved."
        yield (
            "model.trust_remote_code",
            f"runs code that comes with the model: pin `model.revision` to a commit, 40 hexadecimal digits.{found}",
        )


def _check_masking(where: str, masking: MaskingList) -> Iterator[tuple[str, str]]:
    """Something must say what is trained: strategies that only weigh would leave every token in, prompts and all."""
    weighing = [part.type for union in masking for part in union if not part.selects]
    if not any(part.selects for union in masking for part in union):
        listed = f"{', '.join(weighing)} only weighs what another strategy selects" if weighing else "is empty"
        yield where, f"{listed}: list one that selects tokens too, such as `assistant`, or `all` for every token."
    for union in masking:
        if len(union) > 1 and (other := next((part.type for part in union if not part.selects), None)):
            yield where, f"`+` unites strategies that select tokens, and `{other}` weighs them: list it beside them."


def _reads_weights(masking: MaskingList) -> bool:
    return any(part.reads_weights for union in masking for part in union)


def _check_weights(recipe: Recipe) -> Iterator[tuple[str, str]]:
    """Something must be trainable: the weights, or an adapter on them. A component's own words come first."""
    quantization, adapter = recipe.quantization, recipe.adapter
    if not (adapter.trains_base or adaptable(quantization) or component_problems(quantization, recipe)):
        yield (
            "quantization",
            f"no adapter can be trained on {quantization.type} weights, and '{adapter.type}' is one. Choose another "
            "quantization, such as `nf4` or `bf16`.",
        )
    if adapter.trains_base and not (quantization.trainable or component_problems(adapter, recipe)):
        yield (
            "adapter",
            f"'{adapter.type}' trains the base weights, which cannot be trained as {quantization.type}. Choose "
            "`quantization: bf16` or `fp32`, or an adapter such as `lora`.",
        )


def _check_loss(recipe: Recipe) -> Iterator[tuple[str, str]]:
    """The base must be there beside what is trained, where a loss reads its logits."""
    loss, adapter, launch = recipe.loss, recipe.adapter, recipe.launch
    yield from _check_head(recipe)
    teacher = teacher_of(loss)
    if teacher is not None and launch is not None and launch.strategy != "ddp":
        yield (
            "loss",
            f"'{loss.type}' has a teacher, which each process holds whole, and that has not been shown to work where "
            f"`{launch.strategy}` splits the model. Choose `launch: ddp`.",
        )
    if not loss.reads_base:
        return
    if adapter.trains_base:
        yield (
            "loss",
            f"'{loss.type}' compares with the base model, and '{adapter.type}' trains the weights of the base "
            "themselves. Choose an adapter beside them, such as `adapter: lora`.",
        )
    if launch is not None and launch.strategy != "ddp":
        yield (
            "loss",
            f"'{loss.type}' switches the adapter off for a second forward pass, which has not been shown to work where "
            f"`{launch.strategy}` splits the model. Choose `launch: ddp`.",
        )


def _check_head(recipe: Recipe) -> Iterator[tuple[str, str]]:
    """A head must give the loss what it asks for, and have before it what it takes."""
    loss, head = recipe.loss, recipe.loss.head
    if head is None or head.takes == "logits":
        return
    if head.takes != "pieces" and loss.reads_logits and not is_nll(loss):
        yield (
            "loss.head",
            f"'{head.type}' makes no logits, and '{loss.type}' with these options asks for them. Choose "
            "`head: chunked` or `head: full`.",
        )
    if (patch := next((patch for patch in recipe.patches if patch.changes_logits), None)) is not None:
        yield (
            "loss.head",
            f"'{head.type}' passes by what the patch '{patch.type}' does to the logits. Choose `head: full`.",
        )
    launch = recipe.launch
    if head.takes != "trl" and launch is not None and launch.strategy != "ddp":
        yield (
            "loss.head",
            f"'{head.type}' needs the whole output layer in each process, and `{launch.strategy}` splits it. Choose "
            "`launch: ddp`, or leave the head out.",
        )


def _check_callbacks(recipe: Recipe) -> Iterator[tuple[str, str]]:
    """Two callbacks must not mean two values of one option of the trainer, unless the recipe itself says a value."""
    meant: dict[str, tuple[str, Any]] = {}
    for index, callback in enumerate(recipe.callbacks):
        for name, value in train_options(callback, recipe).items():
            first, other = meant.setdefault(name, (f"callbacks[{index}] ({describe(callback)})", value))
            if other != value and name not in recipe.train:
                yield (
                    f"callbacks[{index}]",
                    f"{describe(callback)} means `train.{name}: {value!r}`, and {first} means {other!r}. Leave out one "
                    f"of them, or say in the recipe what `train.{name}` is.",
                )


def _check_evaluation(recipe: Recipe) -> Iterator[tuple[str, str]]:
    wanted = recipe.train.get("eval_strategy", "no")
    if wanted != "no" and not recipe.data.eval and not recipe.data.eval_fraction:
        yield "train.eval_strategy", f"{wanted} evaluates, and no rows are held out: set `data.eval_fraction`."
    labels = [metric_label(metric) for metric in recipe.evaluation.metrics]
    twice = next((label for label in labels if labels.count(label) > 1), None)
    if twice is not None:
        named = any(
            "name" in type(metric).model_fields for metric in recipe.evaluation.metrics if metric_label(metric) == twice
        )
        yield (
            "evaluation.metrics",
            f"two of them call their results '{twice}': leave out one{', or give one another `name`' * named}.",
        )


def _check_data(recipe: Recipe) -> Iterator[tuple[str, str]]:
    data, attention = recipe.data, recipe.model.attn_implementation or ""
    if "/" in attention:
        yield (
            "model.attn_implementation",
            f"{attention!r} names code on the Hub, which is not run. Take `sdpa`, `eager` or `flash_attention_2`.",
        )
    if data.packing == "rows" and data.max_length is None:
        yield "data.packing", "needs `data.max_length`: it is the length of the packed rows."
    if data.packing == "rows" and "flash" in attention:
        yield "data.packing", "`rows` is laid out for sdpa and eager attention; FlashAttention takes `flat`."
    if data.packing == "flat" and "flash" not in attention:
        yield "data.packing", "`flat` needs `model.attn_implementation: flash_attention_2`; others take `rows`."
    if data.eval and data.eval_fraction:
        yield "data.eval_fraction", "does not go together with `data.eval`."
    yield from _check_mix(data)


def _check_mix(data: DataSection) -> Iterator[tuple[str, str]]:
    shared = [index for index, source in enumerate(data.train) if source.share is not None]
    if shared and len(shared) < len(data.train):
        lacking = next(index for index in range(len(data.train)) if index not in shared)
        yield f"data.train[{lacking}]", "has no `share`, and other sources have one: give all of them one, or none."
    for index, source in enumerate(data.eval):
        if source.share is not None or source.epochs != 1:
            yield f"data.eval[{index}]", "`share` and `epochs` are for training rows; held-out rows are used once."


def _check_exporters(recipe: Recipe) -> Iterator[tuple[str, str]]:
    """Each writes to a place of its own, which is named after it."""
    names = [exporter.type for exporter in recipe.export]
    for index, name in enumerate(names):
        if name in names[:index]:
            yield (
                f"export[{index}]",
                f"'{name}' is listed twice, and both would be written to one place. Leave one out: after training, "
                f"`sftplug export RUN {name} OPTION=VALUE --output PATH` writes another.",
            )
