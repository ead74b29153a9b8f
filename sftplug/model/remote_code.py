"""Code that comes with a model: run only if the recipe says so, and only at the commit that its reader has read.

A model's configuration may say that its code lies in another repository (``other/repo--module.Class``). transformers
takes that from the branch ``main``, whatever the model's own revision is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sftplug.errors import ModelError

if TYPE_CHECKING:
    from sftplug.recipe.model import ModelSection


def code_options(model: ModelSection, place: str | Path | None = None) -> dict[str, Any]:
    """Return the arguments of ``from_pretrained`` that say which code may run: that of the base, or of a folder.

    Raises ModelError for code in a repository that the recipe does not pin to a commit.
    """
    if not model.trust_remote_code or (model.build is not None and place is None):
        return {"trust_remote_code": False}
    name = str(place or model.name_or_path)
    repositories = _repositories(name, None if place else model.revision)
    elsewhere = repositories - {name}
    on_hub = elsewhere if Path(name).is_dir() else repositories
    if len(on_hub) > 1:
        raise ModelError(
            f"the code of {name} lies in several repositories, and one commit cannot pin them all: "
            f"{', '.join(sorted(on_hub))}. Put it into one folder, and name that in `model.name_or_path`."
        )
    if place is None and model.code_revision and not elsewhere:
        raise ModelError(f"`model.code_revision` pins code in another repository, and {name} has none. Leave it out.")
    pins = [_pin(model, name, repository) for repository in on_hub]
    return {"trust_remote_code": True, **({"code_revision": pins[0]} if pins else {})}


def _pin(model: ModelSection, name: str, repository: str) -> str:
    commit = model.revision if repository == model.name_or_path else model.code_revision
    if commit is None:
        raise ModelError(
            f"the code of {name} lies in another repository, {repository}, which `model.revision` does not pin: "
            "whoever may write there can change what it does. Read it, and set `model.code_revision` to the commit "
            "that you have read, 40 hexadecimal digits."
        )
    return commit


def _repositories(name: str, revision: str | None) -> frozenset[str]:
    """Return where the code is that the configurations of model and tokenizer name; reads them, and runs nothing."""
    from transformers import PreTrainedConfig
    from transformers.models.auto.tokenization_auto import get_tokenizer_config

    options = {"revision": revision or "main"}
    try:
        config, _ = PreTrainedConfig.get_config_dict(name, **options)
    except (OSError, ValueError):
        config = {}  # whoever loads it will say so
    maps = [config.get("auto_map"), get_tokenizer_config(name, **options).get("auto_map")]
    return frozenset(reference.partition("--")[0] if "--" in reference else name for reference in _references(maps))


def _references(value: Any) -> Iterator[str]:
    """Yield ``module.Class`` and ``other/repo--module.Class`` wherever they stand."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list | tuple):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from _references(item)


def untrusted(model: ModelSection, place: str | Path, error: Exception) -> str | None:
    """Return what to do about code that a model needs and the recipe does not let run; None where that is not why."""
    if model.trust_remote_code or "trust_remote_code" not in str(error):
        return None
    pin = "" if Path(place).is_dir() else ", and `model.revision` to the commit that you have read"
    return (
        "it needs Python code that comes with it, which is not run unless the recipe says so. Read it there, then set "
        f"`model.trust_remote_code: true`{pin}."
    )


def refuse_kernels(name: str, config: Any) -> None:
    """Raise ModelError when the configuration of the model `name`, or a part of it, names a kernel on the Hub.

    transformers would download the code of the attention and run it, from a branch, whatever `trust_remote_code` says.
    """
    for attention in _attentions(config):
        if "/" in attention:  # ``org/kernel@revision:name``
            raise ModelError(
                f"the configuration of {name} names the attention {attention!r}: code on the Hub, which is not run. "
                "Set `model.attn_implementation: sdpa` (or `eager`, or `flash_attention_2`) to compute with another."
            )


def _attentions(config: Any) -> Iterator[str]:
    """Yield what a configuration and its parts say of attention."""
    value = getattr(config, "_attn_implementation", None)
    if isinstance(value, str):
        yield value
    for part in getattr(config, "sub_configs", None) or {}:
        yield from _attentions(getattr(config, part, None))
