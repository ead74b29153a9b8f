"""Write the package of a new plugin: working, tested, and installable at once.

A package is made of real files in the folders beside this one: those that every kind shares, and those of its own.
Their names end in ``.tmpl``, which is left out; ``$placeholders`` in them are filled by `string.Template`.
"""

from __future__ import annotations

import importlib.util
import keyword
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import distributions
from pathlib import Path
from string import Template

from sftplug.errors import PluginError, did_you_mean
from sftplug.plugin.components import (
    Adapter,
    Callback,
    ChatTemplate,
    Component,
    DatasetFormat,
    DatasetSource,
    Exporter,
    Head,
    Loss,
    Masking,
    Metric,
    ModelPatch,
    Optimizer,
    Policy,
    Quantization,
    RecipeSection,
    RowProcessor,
    Schedule,
)
from sftplug.plugin.kinds import NOUNS
from sftplug.plugin.registry import Registry
from sftplug.plugin.validation import CORE_SECTIONS, problem_of_section
from sftplug.types.command_names import COMMAND_NAMES
from sftplug.types.kind_names import PREFIX


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of which a package can be written."""

    component: type[Component] | None
    """The class of the kind; None for commands, which no recipe chooses."""
    section: str
    """The section of a recipe that chooses it, with ``$component`` for its name."""
    folders: tuple[str, ...] = ("common", "chats")
    """The folders of files beside its own."""


KINDS: Mapping[str, Kind] = {
    "format": Kind(DatasetFormat, "data:\n  train: {path: rows.jsonl, format: $component}", ("common",)),
    "processor": Kind(
        RowProcessor,
        "data:\n  train:\n    path: rows.jsonl\n    process: {type: $component, most: 2}\n"
        "    format: {type: columns, user: question, assistant: answer}",
        ("common",),
    ),
    "template": Kind(ChatTemplate, "chat_template: $component"),
    "masking": Kind(Masking, "masking: {type: $component, weight: 3.0}"),
    "quantization": Kind(Quantization, "quantization: {type: $component, keep: [self_attn, lm_head]}"),
    "patch": Kind(ModelPatch, "patches: {type: $component, cap: 30.0}"),
    "adapter": Kind(Adapter, "adapter: {type: $component, targets: [k_proj, v_proj]}"),
    "loss": Kind(Loss, "loss: {type: $component, most: 3.0}"),
    "head": Kind(Head, "loss: {type: cross_entropy, head: {type: $component, tokens: 256}}"),
    "optimizer": Kind(Optimizer, "optimizer: {type: $component, tables: 0.1}"),
    "schedule": Kind(Schedule, "schedule: {type: $component, half: 40}"),
    "callback": Kind(Callback, "callbacks: [{type: $component, loss: 0.1}]"),
    "metric": Kind(Metric, "evaluation:\n  metrics: [exact_match, {type: $component, words: 3}]"),
    "exporter": Kind(Exporter, "export: $component"),
    "policy": Kind(Policy, "policies: {type: $component, most: 3}"),
    "section": Kind(RecipeSection, "plugins: [$component]\n$component: {per_million: 0.4}"),
    "command": Kind(None, ""),
    "source": Kind(
        DatasetSource,
        "data:\n  train: {source: $component, folder: notes, format: text}",
        ("common",),
    ),
}
"""What ``sftplug plugins new`` can write."""

FOLDER = Path(__file__).parent
NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?")
"""The name of a distribution, as PEP 508 has it."""
_RENAMED = {"module.py": "$module.py", "module.jinja": "$module.jinja", "test.py": "tests/test_$module.py"}


def write_package(kind: str, name: str, parent: Path, registry: Registry) -> list[Path]:
    """Write the package `name` with a component of `kind` into a new folder of that name in `parent`.

    The distribution is called ``sftplug-NAME``, for by that others find it. Returns the files. Raises PluginError when
    there is no such kind, when the name cannot be one or is taken by something installed (which `registry` knows), and
    when the folder is there already.
    """
    if kind not in KINDS:
        raise PluginError(f"there is no kind '{kind}'.{did_you_mean(kind, KINDS)} Kinds: {', '.join(KINDS)}.")
    module = module_name(name)
    for problem in (*_taken(KINDS[kind], name, module, registry), *_in_the_way(parent / name)):
        raise PluginError(problem)
    values = {
        "name": name,
        "distribution": distribution_name(name),
        "module": module,
        "component": module,
        "command": module.replace("_", "-"),
        "Class": "".join(part[:1].upper() + part[1:] for part in module.split("_")),
        "words": _noun(KINDS[kind]),
        "section": Template(KINDS[kind].section).substitute(component=module),
        "files": ", ".join(f'"{file}"' for file in _shipped(kind, module)),
    }
    return [_write(source, parent / name / _filled(target, values), values) for target, source in _sources(kind)]


def distribution_name(name: str) -> str:
    """Return what a package is called on an index: `sftplug plugins search` finds what begins with ``sftplug-``."""
    own = re.sub(r"[-_.]+", "-", name).lower()
    return own if own.startswith(PREFIX) else f"{PREFIX}{own}"


def _noun(kind: Kind) -> str:
    return NOUNS[kind.component] if kind.component is not None else "command"


def module_name(name: str) -> str:
    """Return the Python module of a package, which is the name of its plugin and of its component too.

    Of ``sftplug-acme`` it is ``acme``. Raises PluginError for a name that no distribution or no module can have.
    """
    if not NAME.fullmatch(name):
        raise PluginError(
            f"'{name}' cannot be the name of a package: use letters, digits, '-', '_' and '.', with a letter or digit "
            "at both ends, such as my-format."
        )
    module = distribution_name(name).removeprefix(PREFIX).replace("-", "_")
    if not module.isidentifier() or keyword.iskeyword(module):
        raise PluginError(f"'{name}' cannot be the name of a package: Python cannot import a module '{module}'.")
    return module


def _taken(kind: Kind, name: str, module: str, registry: Registry) -> Iterator[str]:
    """Yield a sentence for everything installed that has the name already."""
    offer = registry.offers[kind.component].get(module) if kind.component is not None else None
    if offer is not None:
        yield f"the plugin {offer.plugin} offers the {_noun(kind)} '{module}' already. Choose another name."
    yield from _impossible(kind, module)
    plugins = {**registry.plugins.loaded, **registry.plugins.broken}
    if module in plugins:
        yield f"a plugin of that name is installed: {plugins[module]}. Choose another name."
    for distribution in distributions():
        other = distribution.metadata["Name"]
        if other and re.sub(r"[-_.]+", "-", other).lower() in (module.replace("_", "-"), distribution_name(name)):
            yield f"a package of that name is installed: {other} {distribution.version}. Choose another name."
    if module in sys.stdlib_module_names or importlib.util.find_spec(module) is not None:
        yield f"'{name}' would hide the module '{module}', which can be imported already. Choose another name."


def _impossible(kind: Kind, module: str) -> Iterator[str]:
    """Yield a sentence for a name that sftplug itself needs."""
    if kind.component is RecipeSection and module in CORE_SECTIONS:
        yield f"recipes have a section '{module}' of sftplug's own. Choose another name."
    elif kind.component is RecipeSection and (said := problem_of_section(module)):
        yield f"a section of a recipe cannot be called so: it {said}."
    if kind.component is None and module.replace("_", "-") in COMMAND_NAMES:
        yield f"sftplug has a command '{module.replace('_', '-')}' of its own. Choose another name."


def _in_the_way(folder: Path) -> Iterator[str]:
    if folder.exists():
        yield f"{folder} exists already. Choose another name, or another folder with --dir."


def _shipped(kind: str, module: str) -> list[str]:
    """Return the files that belong into the wheel."""
    return [f"{module}{path.suffix}" for path, _ in _sources(kind) if path.stem == "module"]


def _sources(kind: str) -> list[tuple[Path, Path]]:
    """Return (path in the package, file here) for every file of a package of `kind`."""
    found: dict[Path, Path] = {}
    for folder in (*(FOLDER / name for name in KINDS[kind].folders), FOLDER / kind):
        for file in sorted(folder.rglob("*.tmpl")):
            found[file.relative_to(folder).with_suffix("")] = file
    return list(found.items())


def _filled(path: Path, values: Mapping[str, str]) -> str:
    return Template(_RENAMED.get(str(path), path.as_posix())).substitute(values)


def _write(source: Path, target: Path, values: Mapping[str, str]) -> Path:
    text = Template(source.read_text(encoding="utf-8")).substitute(values)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text, encoding="utf-8")
    return target
