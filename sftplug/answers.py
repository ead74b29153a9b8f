"""What the methods of components return, checked where it comes in; what is wrong is blamed on plugin, file and line.

Methods that are called for each row or batch are checked by the module of `sftplug.data` that calls them.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Iterable, Mapping, Sequence
from numbers import Real
from typing import TYPE_CHECKING, Any

from sftplug.blame import blaming, fault
from sftplug.redact import redact

if TYPE_CHECKING:
    from peft import PeftConfig
    from torch import nn
    from transformers import PreTrainedTokenizerBase, TrainerCallback

    from sftplug.components import Adapter, Callback, ChatTemplate, Component, DatasetSource, Metric, Quantization
    from sftplug.conversation import Reply
    from sftplug.device import Device
    from sftplug.recipe.model import Recipe
    from sftplug.tokens import LossSums

OWNED_LOAD_KWARGS: Mapping[str, str] = {
    "revision": "model.revision",
    "trust_remote_code": "model.trust_remote_code",
    "attn_implementation": "model.attn_implementation",
    "use_safetensors": "model",
}
"""Arguments of ``from_pretrained`` that sections of the recipe decide, and no quantization."""


def complaints(component: Component, recipe: Recipe) -> list[str]:
    """Return what ``check`` of a component says about `recipe`. Raises PluginError for anything but sentences."""
    with blaming(component, "check"):
        return _sentences(component, "check", component.check(recipe))


def model_complaints(adapter: Adapter, model: nn.Module) -> list[str]:
    """Return what ``check_model`` of an adapter says about `model`. Raises PluginError for anything but sentences."""
    with blaming(adapter, "check_model"):
        return _sentences(adapter, "check_model", adapter.check_model(model))


def merge_complaints(adapter: Adapter, quantization: Quantization, *, in_place: bool) -> list[str]:
    """Return why an adapter cannot be merged. Raises PluginError for anything but sentences."""
    with blaming(adapter, "check_merge"):
        return _sentences(adapter, "check_merge", adapter.check_merge(quantization, in_place=in_place))


def _sentences(component: Component, method: str, said: Iterable[str]) -> list[str]:
    # A string is iterable too: each of its letters would be a problem.
    sentences = [said] if isinstance(said, str) or not isinstance(said, Iterable) else list(said)
    for sentence in sentences:
        if not isinstance(sentence, str) or said is sentence:
            raise fault(component, method, f"must yield sentences, or return a list of them, not {_kind(said)}")
    return sentences


def label(source: DatasetSource) -> str:
    """Return the name of a source, without secrets. Raises PluginError for anything but text."""
    with blaming(source, "label"):
        answer: object = source.label()
    text: str = _checked(source, "label", answer, str, "text")
    return redact(text)


def fingerprint(source: DatasetSource) -> str | None:
    """Return what changes with the rows of a source. Raises PluginError for anything but text and None."""
    with blaming(source, "fingerprint"):
        answer: object = source.fingerprint()
    return None if answer is None else _checked(source, "fingerprint", answer, str, "text or None")


def stamp(source: DatasetSource) -> str | None:
    """Return what changes when a source is written to. Raises PluginError for anything but text and None."""
    with blaming(source, "stamp"):
        answer: object = source.stamp()
    return None if answer is None else _checked(source, "stamp", answer, str, "text or None")


def template_source(template: ChatTemplate, tokenizer: PreTrainedTokenizerBase) -> str:
    """Return the Jinja source of a chat template. Raises PluginError for anything but text."""
    with blaming(template, "source"):
        answer: object = template.source(tokenizer)
    text: str = _checked(template, "source", answer, str, "the template's Jinja source as text")
    return text


def load_kwargs(quantization: Quantization) -> dict[str, Any]:
    """Return the arguments for ``from_pretrained``. Raises PluginError when they are no such arguments."""
    with blaming(quantization, "load_kwargs"):
        answer: object = quantization.load_kwargs()
    arguments: dict[str, Any] = _checked(quantization, "load_kwargs", answer, dict, "a dict of keyword arguments")
    for name in arguments:
        if name in OWNED_LOAD_KWARGS:
            section = OWNED_LOAD_KWARGS[name]
            raise fault(quantization, "load_kwargs", f"must not return {name!r}: the recipe's `{section}` decides it")
    return arguments


def loading_code(quantization: Quantization) -> str:
    """Return the Python of a quantization for the model card. Raises PluginError for anything but Python."""
    with blaming(quantization, "loading_code"):
        answer: object = quantization.loading_code()
    code: str = _checked(quantization, "loading_code", answer, str, "Python as text")
    try:
        ast.parse(code)
    except SyntaxError as error:
        raise fault(quantization, "loading_code", f"must return Python: {error.msg}, line {error.lineno}") from error
    return code


def adaptable(quantization: Quantization) -> bool:
    """Return whether an adapter can be trained on the weights. Raises PluginError for anything but true or false."""
    with blaming(quantization, "adaptable"):
        answer: object = quantization.adaptable
    return bool(_checked(quantization, "adaptable", answer, bool, "True or False"))


def peft_config(adapter: Adapter) -> PeftConfig | None:
    """Return the PEFT configuration of an adapter. Raises PluginError for anything else."""
    with blaming(adapter, "peft_config"):
        answer: object = adapter.peft_config()
    if answer is None:
        return None
    from peft import PeftConfig

    return _checked(adapter, "peft_config", answer, PeftConfig, "a peft.PeftConfig or None")


def train_options(callback: Callback, recipe: Recipe) -> dict[str, Any]:
    """Return the trainer's options that go with a callback. Raises PluginError for anything but a dict."""
    with blaming(callback, "train_options"):
        answer: object = callback.train_options(recipe)
    options: dict[str, Any] = _checked(callback, "train_options", answer, dict, "a dict of options of `train`")
    return options


def quantization_for(adapter: Adapter, device: Device) -> str:
    """Return the quantization that an adapter asks for on a device. Raises PluginError for anything but text."""
    with blaming(adapter, "quantization_for"):
        answer: object = adapter.quantization_for(device)
    name: str = _checked(adapter, "quantization_for", answer, str, "the name of a quantization")
    return name


def for_device(quantization: Quantization, device: Device) -> Quantization:
    """Return a quantization with all options set. Raises PluginError for anything but one of the same class."""
    with blaming(quantization, "for_device"):
        answer: object = quantization.for_device(device)
    settled: Quantization = _checked(quantization, "for_device", answer, type(quantization), "one of its own class")
    return settled


def train_defaults(adapter: Adapter, recipe: Recipe) -> dict[str, Any]:
    """Return the trainer's options that suit an adapter. Raises PluginError for anything but a dict."""
    with blaming(adapter, "train_defaults"):
        answer: object = adapter.train_defaults(recipe)
    options: dict[str, Any] = _checked(adapter, "train_defaults", answer, dict, "a dict of options of `train`")
    return options


def loss_metrics(callback: Callback, sums: LossSums) -> dict[str, float]:
    """Return what a callback logs beside the loss. Raises PluginError for anything but numbers by name."""
    with blaming(callback, "loss_metrics"):
        answer: object = callback.loss_metrics(sums)
    metrics: dict[str, float] = _checked(callback, "loss_metrics", answer, dict, "a dict of numbers")
    for name, value in metrics.items():
        if not isinstance(value, int | float) or name == "loss":
            raise fault(
                callback, "loss_metrics", f"must return numbers under names of its own, not {name!r}: {value!r}"
            )
    return metrics


def metric_scores(metric: Metric, replies: Sequence[Reply]) -> list[float]:
    """Return the score of each reply. Raises PluginError for anything but a finite number for each, naming the row."""
    with blaming(metric, "scores"):
        answer: object = metric.scores(replies)
        scores = list(answer) if isinstance(answer, Iterable) and not isinstance(answer, str | Mapping) else None
    if scores is None:
        raise fault(metric, "scores", f"must return a list of numbers, not {_kind(answer)}")
    if len(scores) != len(replies):
        text = (
            f"must return a number for each of the {len(replies)} replies, in their order, and returned {len(scores)}"
        )
        raise fault(metric, "scores", text)
    for reply, score in zip(replies, scores, strict=True):
        if not isinstance(score, Real):
            text = f"must return numbers, and for {reply.origin} returned {_kind(score)}: make it a float"
            raise fault(metric, "scores", text)
        if not math.isfinite(score):
            text = (
                f"gave {reply.origin} the score {float(score)}: return a finite number, 0.0 for what is worth nothing"
            )
            raise fault(metric, "scores", text)
    return [float(score) for score in scores]


def trainer_callback(callback: Callback) -> TrainerCallback:
    """Return the callback for the trainer. Raises PluginError for anything else."""
    from transformers import TrainerCallback

    with blaming(callback, "trainer_callback"):
        answer: object = callback.trainer_callback()
    return _checked(callback, "trainer_callback", answer, TrainerCallback, "an instance of TrainerCallback")


def _checked(component: Component, method: str, answer: object, kind: type, wanted: str) -> Any:
    if isinstance(answer, kind):
        return answer
    raise fault(component, method, f"must return {wanted}, not {_kind(answer)}")


def _kind(answer: object) -> str:
    """Return what to call an object in a sentence: a class is named, anything else by its class."""
    return f"the class {answer.__name__}" if isinstance(answer, type) else type(answer).__name__
