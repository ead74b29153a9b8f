"""The laws of quantization backends, on small models with random weights."""

from __future__ import annotations

import tempfile
import weakref
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from sftplug.plugin.calls import adaptable, bytes_per_parameter, for_device, load_kwargs
from sftplug.plugin.components import Quantization
from sftplug.testing.component import check_component
from sftplug.testing.law import Breach, check, demand, make, shown
from sftplug.testing.proofs import proving
from sftplug.testing.runs import TrainingRun, difference, load_tiny, logits
from sftplug.util.device import Device

EXACT = 1e-5
"""Largest difference of logits that rounding explains."""
ROUGHLY = 0.05
"""Largest error of ``bytes_per_parameter``; the constants of a whole layer, such as a table of levels, are in it."""


@dataclass
class QuantizationTrial:
    """A backend, and the runs on it."""

    quantization: Quantization
    lora: TrainingRun = field(init=False)
    full: TrainingRun = field(init=False)

    def __post_init__(self) -> None:
        """Make the runs; nothing is loaded yet."""
        self.lora = TrainingRun(quantization=self.quantization, adapter_name="lora")
        self.full = TrainingRun(quantization=self.quantization)


@proving
def check_quantization(component: type[Quantization], /, **options: Any) -> None:
    """Hold a backend to its laws: models are loaded in it, trained, saved and loaded again. Raises LawBroken."""
    check_component(component, **options)
    made = make(component, options)
    check(made, LAWS, QuantizationTrial(made))


def gives_the_same_arguments(trial: QuantizationTrial) -> None:
    """``load_kwargs`` returns a new dictionary each time, for it is changed on the way, with the same names in it."""
    first, second = (load_kwargs(trial.quantization) for _ in range(2))
    demand(
        first is not second and first.keys() == second.keys(),
        f"{shown(first)}, and then {shown(second)}",
        "make the dictionary in the method.",
    )


def leaves_nothing_open(trial: QuantizationTrial) -> None:
    """``for_device`` returns one of its own class in which nothing is left to the device: asked again, for another
    device, it returns the same."""
    # On the one bfloat16 is twice as fast as float32, on the other ten times as slow: what is left open is decided
    # differently for the two.
    fast, slow = (Device("cpu", on_cpu=True, speeds={"bfloat16": speed}) for speed in (2.0, 0.1))
    once = for_device(trial.quantization, fast)
    again = for_device(once, slow)
    demand(
        again == once,
        f"{shown(once)}, and then {shown(again)}",
        "set every option that is still open with `self.model_copy(update={…})`, and no other.",
    )


def loads(trial: QuantizationTrial) -> None:
    """A model loads with ``load_kwargs`` and passes ``prepare_model``, and its logits are finite."""
    values = logits(trial.lora.fresh)
    demand(
        bool(values.isfinite().all()),
        "logits that are not finite",
        "see that what is not quantized (embeddings, norms, head) is held in a type of enough range.",
    )


def says_how_many_bits(trial: QuantizationTrial) -> None:
    """``bits`` and ``bytes_per_parameter`` say what one weight of a quantized module takes, constants and all."""
    model = _wide_model(trial.quantization)
    modules = list(_quantized(model))
    held, counted = (sum(column) for column in zip(*modules, strict=True))
    said, real = bytes_per_parameter(trial.quantization), held / counted
    demand(
        abs(said - real) <= ROUGHLY * real,
        f"bytes_per_parameter is {said:.4f}, and {len(modules)} modules hold {real:.4f} bytes a weight",
        "set `bits` to what a weight is held in, and override bytes_per_parameter to add the constants.",
    )


def says_whether_inputs_are_kept(trial: QuantizationTrial) -> None:
    """``keeps_inputs`` says whether a product holds on to its input where activations are checkpointed."""
    if not adaptable(trial.quantization):
        return
    said, kept = trial.quantization.keeps_inputs, _keeps_input(trial.quantization)
    demand(
        said is kept,
        f"keeps_inputs is {said}, and the input of a product is {'kept' if kept else 'not kept'}",
        f"set `keeps_inputs = {kept}`, so that `sftplug plan` counts what checkpointing saves.",
    )


def trains_an_adapter_or_says_it_cannot(trial: QuantizationTrial) -> None:
    """With LoRA on it the loss over the same rows falls; or ``adaptable`` says that no adapter can be trained."""
    if not adaptable(trial.quantization):
        return
    _demand_learning(trial.lora, "override `adaptable` to return False, if the weights are for inference only.")


def reloads_to_the_same_logits(trial: QuantizationTrial) -> None:
    """An adapter that was trained, saved, and loaded onto a base loaded again gives the same logits."""
    if not adaptable(trial.quantization):
        return
    from peft import PeftModel

    live = logits(trial.lora.trained)
    with tempfile.TemporaryDirectory(prefix="sftplug-") as folder:
        trial.lora.trained.save_pretrained(folder)
        found = difference(live, logits(PeftModel.from_pretrained(trial.lora.load(), folder)))
    demand(
        found <= EXACT,
        f"the logits differ by {found:.2g} of the largest, more than the {EXACT:.0e} of rounding",
        "weights must be quantized the same each time they are loaded, and the kernel of evaluation must compute what "
        "that of training does; prepare_model can choose another.",
    )


def is_loaded_by_its_card(trial: QuantizationTrial) -> None:
    """Loaded with ``load_kwargs``, and changed by ``loading_code``, the base gives the logits that it gives after
    ``prepare_model``: so the model card loads it where there is no sftplug."""
    from transformers import AutoModelForCausalLM

    from sftplug.model.loading import base_model_path
    from sftplug.model.own_adapter import by_card

    path = base_model_path(trial.lora.recipe)
    plain = by_card(trial.quantization, AutoModelForCausalLM.from_pretrained(path, **load_kwargs(trial.quantization)))
    found = difference(logits(trial.lora.load_base()), logits(plain))
    demand(
        found <= EXACT,
        f"the logits differ by {found:.2g} of the largest, more than the {EXACT:.0e} of rounding",
        "override loading_code to return Python that does to `model` what prepare_model does, without sftplug.",
    )


def trains_whole_if_it_says_so(trial: QuantizationTrial) -> None:
    """If ``trainable`` says so, the weights themselves are trained: the loss falls, and they are saved and loaded."""
    if not trial.quantization.trainable:
        return
    from transformers import AutoModelForCausalLM

    _demand_learning(trial.full, "set `trainable` to False, if only an adapter can be trained on the weights.")
    live = logits(trial.full.trained)
    with tempfile.TemporaryDirectory(prefix="sftplug-") as folder:
        trial.full.trained.save_pretrained(folder)
        again = AutoModelForCausalLM.from_pretrained(folder, **load_kwargs(trial.quantization))
        found = difference(live, logits(again))
    demand(
        found <= EXACT,
        f"the logits of the model that was saved and loaded differ by {found:.2g} of the largest",
        "weights that are trained must be saved in the type that they are loaded in.",
    )


LAWS = (
    gives_the_same_arguments,
    leaves_nothing_open,
    loads,
    says_how_many_bits,
    says_whether_inputs_are_kept,
    trains_an_adapter_or_says_it_cannot,
    reloads_to_the_same_logits,
    is_loaded_by_its_card,
    trains_whole_if_it_says_so,
)


def _demand_learning(run: TrainingRun, fix: str) -> None:
    try:
        before, after = run.losses
    except Exception as error:
        raise Breach(f"training raised {type(error).__name__}: {error}", fix) from error
    demand(after < before, f"the loss was {before:.4f} before 5 steps, and is {after:.4f}", fix)


def _wide_model(quantization: Quantization) -> Any:
    """Return a model whose layers are wide enough for the constants of a layer to be few."""
    from sftplug.model.loading import load_model

    build = {"type": "tiny", "pretrain_steps": 0, "layers": 1, "hidden_size": 256}
    recipe = load_tiny(model={"build": build}, adapter="lora").recipe
    return load_model(recipe.model_copy(update={"quantization": quantization}))


def _quantized(model: Any) -> Iterator[tuple[int, int]]:
    """Yield (bytes, weights) of every quantized linear layer, constants and all; of every linear one if none is."""
    for module in _chosen(model):
        tensors = [value for value in module.state_dict().values() if hasattr(value, "element_size")]
        yield sum(map(_bytes_of, tensors)), module.in_features * module.out_features


def _chosen(model: Any) -> list[Any]:
    from torch import nn

    layers = [module for module in model.model.layers.modules() if hasattr(module, "in_features")]
    plain = [module for module in layers if type(module) is nn.Linear and _is_plain(module.weight)]
    return [module for module in layers if module not in plain] or plain


def _keeps_input(quantization: Quantization) -> bool:
    """Whether a quantized layer holds on to its input when nothing is saved for the backward pass."""
    import torch

    model = _wide_model(quantization).train()
    module = _chosen(model)[0]
    # `* 1.0`: the graph itself keeps a leaf, and this is to be none. As nothing is saved for the backward pass either,
    # whoever still holds the storage in the end is the layer.
    inputs = torch.ones(4, 8, module.in_features, dtype=model.dtype, requires_grad=True) * 1.0
    storage = weakref.ref(inputs.untyped_storage())
    nothing = torch.empty(0)
    with torch.autograd.graph.saved_tensors_hooks(lambda _: nothing, lambda saved: saved):
        result = module(inputs)
    del inputs
    return result.requires_grad and storage() is not None


def _is_plain(weight: Any) -> bool:
    return bool(weight.is_floating_point()) and not hasattr(weight, "__tensor_flatten__")


def _bytes_of(tensor: Any) -> int:
    """Return the bytes of a tensor; of one that stands for several (as torchao's do), the bytes of all of them."""
    if hasattr(tensor, "__tensor_flatten__"):
        names, _ = tensor.__tensor_flatten__()
        return sum(_bytes_of(getattr(tensor, name)) for name in names)
    return int(tensor.numel() * tensor.element_size())
