"""What is shipped: each recipe with the model that it trains, how, and on which hardware, without loading it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sftplug.errors import RecipeError, SftplugError, did_you_mean
from sftplug.plugin.additions import plugin_recipes
from sftplug.recipe.find import read_extended, shipped_recipes

_GPUS = re.compile(r"(?P<count>one|\d+) GPUs? with (?P<gigabytes>\d+) GB")


@dataclass(frozen=True, slots=True)
class ShippedRecipe:
    """A recipe that comes with sftplug or a plugin, as far as its file and those that it extends say it."""

    name: str
    """What commands call it: ``qwen3/8b_qlora``."""
    purpose: str
    """Its first line: what it is for."""
    hardware: str
    """Its line ``# Hardware: …``; empty where a plugin's recipe has none."""
    model: str
    """Name on the Hub, or ``built: NAME`` of a model that is built on the spot."""
    adapter: str
    quantization: str | None
    """None where it is left to adapter and device."""
    devices: int
    """GPUs that it is made for; 0 for a CPU, and where the hardware is not said."""
    memory: int | None
    """Bytes of each GPU, a GB being 10⁹; None for a CPU, and where the hardware is not said."""
    source: str
    """``sftplug``, or ``plugin NAME``."""
    file: Path

    def in_short(self) -> str:
        """Return its hardware as a column has it: ``24 GB``, ``8 x 80 GB``, ``CPU``; empty where it is not said."""
        if self.memory is None:
            return "CPU" if "CPU" in self.hardware else ""
        each = f"{self.memory // 10**9} GB"
        return each if self.devices == 1 else f"{self.devices} x {each}"

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON holds it."""
        return {**asdict(self), "file": str(self.file)}


def every_recipe(blocked: Iterable[str] = (), broken: list[str] | None = None) -> Iterator[ShippedRecipe]:
    """Yield all recipes of sftplug and of plugins that are not `blocked`; `broken` is told what is wrong with others.

    A plugin's recipe that cannot be read is among those: the others are listed all the same.
    """
    for name, file in shipped_recipes().items():
        yield _read(name, file, "sftplug", blocked)
    for name, (plugin, file) in plugin_recipes(broken=broken, blocked=blocked).items():
        try:
            yield _read(name, file, f"plugin {plugin}", blocked)
        except RecipeError as error:
            if broken is not None:
                broken.append(f"plugin {plugin}: {error}")


def chosen(recipes: Iterable[ShippedRecipe], memory: int | None, model: str | None) -> list[ShippedRecipe]:
    """Return those whose hardware has at most `memory` bytes in all, and whose name or model contains `model`.

    Case, ``-`` and ``_`` do not count. A recipe for a CPU, or for hardware that it does not say, has no known memory,
    and is left out where `memory` is asked for. Raises SftplugError where nothing is left, with what there is.
    """
    every = list(recipes)
    named = [recipe for recipe in every if model is None or _contains(recipe, model)]
    if not named:
        families = sorted({recipe.name.partition("/")[0] for recipe in every if recipe.devices})
        raise SftplugError(
            f"no shipped recipe has '{model}' in its name, or in that of its model."
            f"{did_you_mean(str(model), families)} There are: {', '.join(families)}."
        )
    known = [(recipe, recipe.memory * recipe.devices) for recipe in named if recipe.memory is not None]
    fitting = named if memory is None else [recipe for recipe, total in known if total <= memory]
    if not fitting:
        least = min(known, key=lambda pair: pair[1], default=None)
        why = f"{least[0].name} needs the least: {least[0].hardware}" if least else "They name no GPU."
        raise SftplugError(f"none of {len(named)} recipes is made for so little memory. {why}")
    return fitting


def _contains(recipe: ShippedRecipe, text: str) -> bool:
    return _plain(text) in _plain(recipe.name) or _plain(text) in _plain(recipe.model)


def _plain(text: str) -> str:
    return re.sub(r"[-_]", "", text.lower())


# --- reading ----------------------------------------------------------------------------------------------------------


def purpose(file: Path) -> str:
    """Return the first comment line of a recipe or script: what it is for."""
    return next((line.lstrip("# ") for line in _lines(file) if line.startswith("# ")), "")


def _lines(file: Path) -> list[str]:
    return file.read_text(encoding="utf-8").splitlines()


def _read(name: str, file: Path, source: str, blocked: Iterable[str]) -> ShippedRecipe:
    said = _said(file, blocked)
    hardware = next((line.partition(":")[2].strip() for line in _lines(file) if line.startswith("# Hardware:")), "")
    found = _GPUS.search(hardware)
    count = int(found["count"].replace("one", "1")) if found else 0
    model = said.get("model")
    return ShippedRecipe(
        name=name,
        purpose=purpose(file),
        hardware=hardware,
        model=_model(model),
        adapter=_type(said.get("adapter")) or "full",
        quantization=_type(said.get("quantization")),
        devices=count,
        memory=int(found["gigabytes"]) * 10**9 if found else None,
        source=source,
        file=file,
    )


def _said(file: Path, blocked: Iterable[str]) -> Mapping[str, Any]:
    """Return each section as the last of the recipes that extend each other says it."""
    said: dict[str, Any] = {}
    for tree in read_extended(file, blocked=blocked):
        for key, value in tree.data.items():
            both = isinstance(value, dict) and isinstance(said.get(key), dict)
            said[key] = {**said[key], **value} if both else value
    return said


def _model(value: Any) -> str:
    if isinstance(value, dict):
        built = value.get("build")
        return str(value.get("name_or_path", "")) if built is None else f"built: {_type(built)}"
    return str(value or "")


def _type(value: Any) -> str | None:
    """Return the name of a component, of any of its short forms: ``lora``, ``{type: lora}``, ``{lora: …}``."""
    if isinstance(value, dict):
        return str(value["type"]) if "type" in value else next(iter(value), None)
    return None if value is None else str(value)
