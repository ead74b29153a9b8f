"""The published shapes of the models that shipped recipes train, and what a tiny twin of each is made of.

They are data, in ``recipes/shapes``: a file for each architecture, in the words of transformers' configurations. A
shape is what the model's own ``config.json`` says as far as it decides modules and sizes; rates, ids of tokens and the
like are left out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from typing import Any

from sftplug.recipe.find import recipes_folder


@dataclass(frozen=True, slots=True)
class ModelShape:
    """What is published of a model."""

    model: str
    """Its name on the Hub."""
    architecture: str
    """transformers' ``model_type``."""
    since: str
    """The first version of transformers that knows the architecture."""
    billions: float
    """Its parameters, in billions, as its makers count them."""
    config: Mapping[str, Any]
    """Its configuration."""
    twin: Mapping[str, Any]
    """The configuration of its tiny twin."""
    template: str | None
    """Name of its chat template among those that TRL ships; None where TRL ships none."""


@cache
def known_shapes() -> Mapping[str, ModelShape]:
    """Return the shape of each model that has one, by its name on the Hub."""
    found = {}
    for file in sorted((recipes_folder() / "shapes").glob("*.json")):
        said = json.loads(file.read_text(encoding="utf-8"))
        for model, own in said["models"].items():
            config = laid_over(laid_over({"model_type": said["architecture"]}, said["figures"]), own["figures"])
            found[model] = ModelShape(
                model=model,
                architecture=said["architecture"],
                since=said["transformers"],
                billions=own["billions"],
                config=config,
                twin=laid_over(config, said["twin"]),
                template=own.get("template", said.get("template")),
            )
    return found


def laid_over(below: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return `over` laid over `below`: what is in a mapping of both is laid over in turn; null takes a value away."""
    both = deepcopy(dict(below))
    for key, value in over.items():
        if isinstance(value, Mapping) and isinstance(both.get(key), Mapping):
            both[key] = laid_over(both[key], value)
        elif value is None:
            both.pop(key, None)
        else:
            both[key] = deepcopy(value)
    return both


# --- chat templates ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class FamilyTemplate:
    """A model's own chat template, in the copy that TRL ships."""

    source: str
    """Jinja."""
    tokens: tuple[str, ...]
    """Its control tokens, each a token of the model's tokenizer."""
    eos: str
    """The token that ends a turn."""
    bos: str | None
    """The token that the template begins a text with, if it asks the tokenizer for one."""


def family_template(name: str) -> FamilyTemplate | None:
    """Return the template that TRL ships under `name`; None if the installed TRL has none of that name."""
    from importlib.resources import files

    file = files("trl") / "chat_templates" / f"{name}.jinja"
    if not file.is_file():
        return None
    known = json.loads((recipes_folder() / "shapes" / "templates" / "tokens.json").read_text(encoding="utf-8"))[name]
    source = file.read_text(encoding="utf-8")
    return FamilyTemplate(source, tuple(known["tokens"]), known["eos"], known.get("bos"))
