"""What is not an error in a recipe, and what its owner should know all the same, before anything is trained."""

from __future__ import annotations

from collections.abc import Iterator

from sftplug.errors import SftplugError
from sftplug.libraries.logging import quiet_libraries
from sftplug.model.generation import drop_unused
from sftplug.model.loading import generation_config
from sftplug.plugin.calls import changes_model, load_kwargs, loading_code
from sftplug.plugin.components import Quantization
from sftplug.plugin.errors import describe
from sftplug.recipe.defaults import suits
from sftplug.recipe.load import LoadedRecipe
from sftplug.recipe.model import Recipe
from sftplug.recipe.problems import origin_of
from sftplug.training.preflight.watching import forgotten
from sftplug.util.device import Device, this_device

FAR = 10.0
"""A rate that is so many times what is usual, or that part of it, is told."""

_AUTOCAST = {"bf16": "bfloat16", "fp16": "float16"}
"""Option of the trainer -> the type that it lets matrices be multiplied in."""


def notices(loaded: LoadedRecipe, device: Device | None = None, updates: int | None = None) -> list[str]:
    """Return a sentence for everything in the recipe that is obeyed, and has a price that is not to be seen in it.

    `device` is what is trained on, by default this machine; `updates` is how many the run makes, where the rows are
    known that say it.
    """
    quiet_libraries()
    device = device or this_device(use_cpu=bool(loaded.recipe.train.get("use_cpu")))
    return [
        *_far_rate(loaded),
        *endless_warmup(loaded, updates or loaded.recipe.train.get("max_steps") or 0),
        *_slow_numbers(loaded, device),
        *_lost_updates(loaded, device),
        *_idle_generation(loaded.recipe),
        *_unlike_its_card(loaded),
        *forgotten(loaded),
    ]


def _far_rate(loaded: LoadedRecipe) -> Iterator[str]:
    """A rate that was copied from another sort of training learns nothing that shows, or spoils the model."""
    recipe = loaded.recipe
    rate, usual = recipe.train.get("learning_rate"), suits(recipe).get("learning_rate")
    if rate == 0:
        origin = origin_of(loaded.tree, ("train", "learning_rate"))
        yield f"train.learning_rate ({origin}): at 0 no weight moves. Leave it out for what is usual."
        return
    # A rate of ten times what is usual is told, whatever 10 * 2e-4 comes to in floats.
    if not rate or not usual or usual / FAR * (1 + 1e-9) < rate < usual * FAR * (1 - 1e-9):
        return
    origin = origin_of(loaded.tree, ("train", "learning_rate"))
    said = f"train.learning_rate ({origin}): {rate:g} is {_times(rate / usual)} what is usual for adapter"
    what = f"{said} {recipe.adapter.type}, {usual:g}."
    if rate < usual:
        yield f"{what} The run may learn nothing that shows: set `train.learning_rate: {usual:g}`."
    else:
        yield f"{what} It may spoil a pretrained model, though very small models stand higher rates than large ones."


def endless_warmup(loaded: LoadedRecipe, updates: int) -> Iterator[str]:
    """A warmup that is as long as a run of so many updates ends below the rate; 0 is a number that is not known."""
    warmup = loaded.recipe.train.get("warmup_steps") or 0
    if not 0 < updates <= warmup:
        return
    origin = origin_of(loaded.tree, ("train", "warmup_steps"))
    yield (
        f"train.warmup_steps ({origin}): the rate rises over {warmup:g} updates, and the run has {updates:,}: it "
        "ends before the rate is reached. `train.warmup_steps: 0.03` warms up over 3% of the updates."
    )


def _slow_numbers(loaded: LoadedRecipe, device: Device) -> Iterator[str]:
    """A type that the device has no units for is computed with many times slower than 32-bit floats."""
    quantization, train = loaded.recipe.quantization, loaded.recipe.train
    autocast = next((name for name in _AUTOCAST if train.get(name)), None)
    dtype: str | None
    if autocast is not None:
        dtype, path, remedy = _AUTOCAST[autocast], f"train.{autocast}", f"`train.{autocast}: false`"
    else:
        dtype, named = _dtype(quantization), getattr(quantization, "compute_dtype", None)
        path = "quantization" if named is None else "quantization.compute_dtype"
        remedy = f"`{path}: {device.float_quantization if named is None else device.compute_dtype}`"
    if dtype is None or device.is_fast_in(dtype):
        return
    origin = origin_of(loaded.tree, tuple(path.split(".")))
    yield (
        f"{path} ({origin}): {device.explain(dtype)}, and the run computes in it. {remedy} is faster"
        f"{', and weights take twice the memory' if path == 'quantization' and 'fp32' in remedy else ''}."
    )


STEP = {"bfloat16": 2**-9, "float16": 2**-12}
"""The part of itself by which a weight must change, at least, not to be rounded back: half of the least distance
between neighbouring numbers."""


def _lost_updates(loaded: LoadedRecipe, device: Device) -> Iterator[str]:
    """Weights of 16 bits that are trained without a copy in 32 bits lose every update much smaller than themselves."""
    recipe, dtype = loaded.recipe, _dtype(loaded.recipe.quantization)
    if not recipe.adapter.trains_base or dtype not in STEP or keeps_copies(recipe, device):
        return
    computes = "; with `train.bf16: true` it still computes in bfloat16" if device.is_fast_in("bfloat16") else ""
    origin = origin_of(loaded.tree, ("quantization",))
    yield (
        f"quantization ({origin}): '{recipe.adapter.type}' trains weights in {dtype} and keeps no copy of them in 32 "
        f"bits, so small updates are lost. {_rounded_back(recipe, STEP[dtype])}`quantization: fp32` keeps every "
        f"update, for twice the memory{computes}. At a higher rate more weights move. An adapter such as `lora` is "
        "trained in 32 bits."
    )


def _rounded_back(recipe: Recipe, step: float) -> str:
    """Return which weights stay what they are at the recipe's rate."""
    rate = recipe.train.get("learning_rate")
    if not rate:
        return ""
    # Only weights up to rate / step are moved, and those of norms are about 1.
    norms = ", norms among them" if rate < step else ""
    return (
        f"Adam moves a weight by about the learning rate in an update: at {rate:g}, those beyond {rate / step:.2g} are "
        f"rounded back to what they were{norms}. "
    )


def keeps_copies(recipe: Recipe, device: Device) -> bool:
    """Whether what trains the recipe keeps a copy in 32 bits of weights that are held in 16.

    DeepSpeed does; FSDP2 holds what it trains in 32 bits where it computes under autocast, which it does not on CPUs.
    """
    strategy = recipe.launch.strategy if recipe.launch is not None else None
    deepspeed = strategy in ("zero2", "zero3") or bool(recipe.train.get("deepspeed"))
    return deepspeed or (strategy == "fsdp2" and not device.on_cpu)


def _dtype(quantization: Quantization) -> str | None:
    """Return the type that a quantization computes in; None where the model's configuration or nothing says it."""
    try:
        dtype = str(load_kwargs(quantization).get("dtype", "auto")).removeprefix("torch.")
    except SftplugError:
        return None  # whatever it lacks is said before anything is loaded
    return dtype if dtype.startswith(("bfloat", "float")) else None


def _idle_generation(recipe: Recipe) -> Iterator[str]:
    """What the base's author wrote and nothing uses is lost with the result: it cannot be saved again."""
    try:
        idle = drop_unused(generation_config(recipe))
    except SftplugError:
        return  # whatever is wrong with it is told as a problem
    if idle:
        listed = ", ".join(f"{name}: {value}" for name, value in idle.items())
        yield (
            f"model: its generation_config.json says {listed}, which has no effect beside the rest of it (a "
            "temperature, for one, without `do_sample: true`) and cannot be saved again. The result answers as the "
            "base does, and is saved without."
        )


def _unlike_its_card(loaded: LoadedRecipe) -> Iterator[str]:
    """Who loads a result by the code of its card must get the base on which it was trained."""
    quantization = loaded.recipe.quantization
    if changes_model(quantization) and not loading_code(quantization).strip():
        yield (
            f"quantization ({origin_of(loaded.tree, ('quantization',))}): {describe(quantization)} changes the model "
            "once it is loaded (`prepare_model`), and has no `loading_code` that does so without sftplug. The code of "
            "the model card loads other weights beneath the adapter than those that it is trained on: only sftplug "
            "loads the result as it is, and what `sftplug merge` makes of it."
        )


def _times(factor: float) -> str:
    return f"{factor:,.3g} times" if factor >= 1 else f"1/{1 / factor:,.3g} of"
