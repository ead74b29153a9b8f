"""From a recipe's name to a validated `Recipe`: find, extend, override, load plugins, validate, check."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from sftplug.answers import adaptable, complaints, metric_label, train_options
from sftplug.blame import describe, place_of, reason
from sftplug.components import DatasetSource
from sftplug.device import Device
from sftplug.errors import PluginError, Problem, RecipeError, did_you_mean
from sftplug.libraries import refuse_unsupported
from sftplug.plugins import DISABLE_VARIABLE, Plugins, load_plugins
from sftplug.recipe.choices import recipe_class
from sftplug.recipe.defaults import assume_quantization, settle
from sftplug.recipe.find import find_recipe, read_extended
from sftplug.recipe.merge import merge, read_override
from sftplug.recipe.model import DataSection, MaskingList, ModelSection, Recipe, resolve_path
from sftplug.recipe.problems import dotted, problem_at, problems_from
from sftplug.recipe.train_options import problems_in_train, untried_in_train
from sftplug.recipe.yaml import Tree
from sftplug.registry import Registry, build_registry


@dataclass(frozen=True, slots=True)
class LoadedRecipe:
    """A valid recipe, with where everything in it came from."""

    name: str
    recipe: Recipe
    tree: Tree
    """The merged data as written, and the origin of every value."""
    registry: Registry
    active: tuple[str, ...]
    """Names of the plugins that this run uses, sorted."""

    def call(self, hook: str, **arguments: Any) -> None:
        """Tell the plugins in use about a moment of the run."""
        answers = self.registry.plugins.call(hook, self.active, recipe=self.recipe, **arguments)
        for name, answer in answers.items():
            if answer is not None:
                plugin = self.registry.plugins.loaded[name]
                function = getattr(plugin.module, hook, plugin.module)
                text = f"must return nothing, not {type(answer).__name__}: it observes and changes nothing"
                raise PluginError(f"plugin {plugin}: {hook}() {text} ({place_of(function)})")

    def warnings(self) -> list[str]:
        """Return a sentence for what is wrong with what is installed that this recipe does not need, and for every
        option that it sets and that will be removed.
        """
        untried = (problem_at(self.tree, ("train", name), text) for name, text in untried_in_train(self.recipe.train))
        return [*self.registry.warnings(), *map(str, _deprecated(self.recipe, self.tree)), *map(str, untried)]

    def provenance(self) -> list[dict[str, str]]:
        """Return name, distribution, version, source and hash of every plugin in use, for the record of the run."""
        plugins = [self.registry.plugins.loaded[name] for name in self.active]
        return [
            {
                "name": plugin.name,
                "distribution": plugin.distribution,
                "version": plugin.version,
                "source": plugin.source.name if plugin.distribution == "file" else plugin.module.__name__,
                "sha256": plugin.sha256,
            }
            for plugin in plugins
        ]

    def using(self, *plugins: str) -> LoadedRecipe:
        """Return the same recipe with more plugins in use, those of them that are installed."""
        more = {name for name in plugins if name in self.registry.plugins.loaded}
        return replace(self, active=tuple(sorted({*self.active, *more})))


def load_recipe(
    reference: str,
    overrides: Sequence[str] = (),
    blocked: Iterable[str] = (),
    *,
    rows: bool = True,
    device: Device | None = None,
) -> LoadedRecipe:
    """Load the recipe that `reference` names: a path, or the name of a shipped recipe.

    `overrides` are ``section.key=value``; `blocked` are names of plugins that must not be loaded; without `rows`, for
    a model that is trained already, sources may be gone; `device` is what is trained on, where the recipe leaves
    something to it, by default this machine. Raises RecipeError with every problem at once: a plugin that the recipe
    needs and that is broken, or a name of it that two components claim, is one of them; and MissingLibraryError for
    libraries in versions that are not supported. Imports no heavy library, unless the machine must be asked what it
    does fast: then torch.
    """
    refuse_unsupported()
    file = find_recipe(reference)
    layers = [*read_extended(file), *map(read_override, overrides)]
    # Which plugins a recipe names is known without them; what its other sections mean is not.
    registry, problems = _load_named_plugins(merge(layers, {}), frozenset(blocked))
    tree = merge(layers, registry.classes())
    assume_quantization(tree, registry)
    problems += _train_problems(tree)
    recipe = _validate(tree, registry, problems)
    if recipe is not None and not problems:
        recipe = settle(recipe, tree, registry, device)
    if recipe is not None:
        problems += _check_components(recipe, tree, rows=rows)
    if problems or recipe is None:
        raise RecipeError(reference, sorted(problems, key=lambda problem: _line(problem.origin)))
    named = recipe.model_copy(update={"output": recipe.output.replace("{name}", file.stem)})
    return LoadedRecipe(file.stem, named, tree, registry, tuple(sorted(_active(named, registry, tree))))


# --- plugins ----------------------------------------------------------------------------------------------------------


def _load_named_plugins(tree: Tree, blocked: Collection[str]) -> tuple[Registry, list[Problem]]:
    """Load what is installed, and the files that the recipe names; say what it names and cannot have."""
    named = tree.data.get("plugins") or []
    named = [named] if isinstance(named, str) else named
    wanted = {index: name for index, name in enumerate(named if isinstance(named, list) else ()) if _is_text(name)}
    files = [plugin_name(name) for name in wanted.values() if is_plugin_file(name)]
    plugins = load_plugins(blocked, files)
    # What the command line leaves out is left out, also where the recipe lists it.
    wanted = {index: name for index, name in wanted.items() if plugin_name(name) not in plugins.blocked}
    texts = {index: _load_file(plugins, name) for index, name in wanted.items() if is_plugin_file(name)}
    registry = build_registry(plugins)
    for index, name in wanted.items():
        texts[index] = texts.get(index) or _lacking(plugins, plugin_name(name))
    found = sorted((index, text) for index, text in texts.items() if text)
    return registry, [problem_at(tree, ("plugins", index), text) for index, text in found]


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _load_file(plugins: Plugins, name: str) -> str | None:
    try:
        plugins.load_file(Path(resolve_path(name)))
    except PluginError as error:
        return str(error)
    return None


def _lacking(plugins: Plugins, name: str) -> str | None:
    if name in plugins.broken:
        return str(plugins.broken[name])
    if name in plugins.loaded:
        return None
    if name in plugins.disabled:
        return f"plugin '{name}' is installed, but {DISABLE_VARIABLE} is set: only sftplug's own are loaded."
    known = ", ".join(sorted(plugins.loaded))
    return f"no plugin '{name}' is installed.{did_you_mean(name, plugins.loaded)} Installed: {known}."


def plugin_name(entry: str) -> str:
    """Return the name of the plugin that an entry of ``plugins:`` asks for: a file's is its own, without ``.py``."""
    return Path(entry).stem if is_plugin_file(entry) else entry


def is_plugin_file(name: str) -> bool:
    """Whether an entry of ``plugins:`` names a file rather than an installed plugin."""
    return name.endswith(".py")


def _active(recipe: Recipe, registry: Registry, tree: Tree) -> set[str]:
    """Return the plugins whose components the recipe names, and those it lists."""
    named = {plugin_name(entry) for entry in recipe.plugins} & registry.plugins.loaded.keys()
    return named | {owner for _, part in recipe.components() if (owner := registry.plugin_of(part))}


# --- validate and check -----------------------------------------------------------------------------------------------


def _train_problems(tree: Tree) -> list[Problem]:
    options = tree.data.get("train")
    if not isinstance(options, dict):
        return []
    return [problem_at(tree, ("train", name), text) for name, text in problems_in_train(options)]


def _validate(tree: Tree, registry: Registry, problems: list[Problem]) -> Recipe | None:
    narrowed = recipe_class(registry)
    try:
        return narrowed.model_validate(tree.data)
    except ValidationError as error:
        problems += problems_from(error, tree, narrowed, registry)
        return None
    except Exception as error:
        # A validator says what is wrong with ValueError; anything else is a fault in its plugin.
        raise PluginError(f"a component's own check of its options failed: {reason(error)}") from error


def _check_components(recipe: Recipe, tree: Tree, *, rows: bool) -> Iterator[Problem]:
    for where, component in recipe.components():
        if rows or not isinstance(component, DatasetSource):
            yield from (_problem(tree, where, text) for text in complaints(component, recipe))
    for where, text in _check_core(recipe):
        yield _problem(tree, where, text)


def _deprecated(recipe: Recipe, tree: Tree) -> Iterator[Problem]:
    """Yield what the plugin's author says of every option that is set and marked with ``Field(deprecated=…)``."""
    for where, component in recipe.components():
        for name in sorted(component.model_fields_set):
            if text := type(component).model_fields[name].deprecation_message:
                yield _problem(tree, f"{where}.{name}", text)


def _problem(tree: Tree, where: str, text: str) -> Problem:
    found = next((path for path in tree.origins if dotted(path) == where), None)
    if found is None:
        # A single source may be written without its list.
        found = next((path for path in tree.origins if dotted(path) == where.replace("[0]", "")), None)
    return problem_at(tree, found, text) if found is not None else Problem(where, text)


def _check_core(recipe: Recipe) -> Iterator[tuple[str, str]]:
    """Yield (path, sentence) for what the core's own sections say that does not go together."""
    model = recipe.model
    if (model.name_or_path is None) == (model.build is None):
        yield "model", "needs exactly one of `name_or_path` and `build`."
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
    yield from _check_evaluation(recipe)
    yield from _check_weights(recipe)
    yield from _check_callbacks(recipe)


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
    if not (adapter.trains_base or adaptable(quantization) or complaints(quantization, recipe)):
        yield (
            "quantization",
            f"no adapter can be trained on {quantization.type} weights, and '{adapter.type}' is one. Choose another "
            "quantization, such as `nf4` or `bf16`.",
        )
    if adapter.trains_base and not (quantization.trainable or complaints(adapter, recipe)):
        yield (
            "adapter",
            f"'{adapter.type}' trains the base weights, which cannot be trained as {quantization.type}. Choose "
            "`quantization: bf16` or `fp32`, or an adapter such as `lora`.",
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


def _line(origin: str) -> int:
    _, _, line = origin.rpartition(":")
    return int(line) if line.isdigit() else 0
