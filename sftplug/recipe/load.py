"""From a recipe's name to a validated `Recipe`: find, extend, override, load plugins, validate, check."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from sftplug.errors import PluginError, Problem, RecipeError
from sftplug.libraries.versions import refuse_unsupported
from sftplug.plugin.calls import component_problems
from sftplug.plugin.components import PARTS, Component, DatasetSource
from sftplug.plugin.errors import place_of, reason
from sftplug.plugin.manager import IN_PROGRAM, Plugin
from sftplug.plugin.registry import Registry, offer_classes
from sftplug.recipe.adapter_base import spell_out_base
from sftplug.recipe.check import check_core
from sftplug.recipe.choices import Parts, recipe_class
from sftplug.recipe.defaults import assume_quantization, settle
from sftplug.recipe.find import find_recipe, is_own, read_extended
from sftplug.recipe.given import KEPT, PYTHON, LoadRequest, read_mapping, read_tree
from sftplug.recipe.house import House, house_above, house_of_record, read_house
from sftplug.recipe.merge import merge, read_override
from sftplug.recipe.model import Recipe
from sftplug.recipe.named_plugins import load_named_plugins, named_in, plugin_name, with_files
from sftplug.recipe.own_sections import bind, in_use, leave_out_gone, own_sections, set_defaults_aside
from sftplug.recipe.places import is_record
from sftplug.recipe.problems import path_of, problem_at, problems_from
from sftplug.recipe.recognize import Found, Recognition, put_in
from sftplug.recipe.replaced import words
from sftplug.recipe.rules import Rule, against, house_rules, misfits, rules_of
from sftplug.recipe.short_forms import Offers, spell_out
from sftplug.recipe.train_options import problems_in_train, untried_in_train
from sftplug.recipe.upgrade import upgrade_options, with_versions
from sftplug.recipe.yaml import Tree
from sftplug.types.moment import MomentContext
from sftplug.util.device import Device
from sftplug.util.frozen import frozen


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
    asked: LoadRequest
    """What it was loaded from."""
    written: Tree
    """The merged data without what suits adapter and device: what another process fills in in the same way."""
    aged: tuple[str, ...] = ()
    """A sentence for all that was written for an earlier version of a plugin, and is read as that of today."""
    house: House = field(default_factory=House)
    """The house file that holds for it."""
    rules: tuple[Rule, ...] = ()
    """The policies that it is held to: its own, and those of the house file."""
    context: MomentContext = field(default_factory=MomentContext)
    """What it is used for, as plugins are told."""
    recognized: tuple[Found, ...] = ()
    """The formats that the recipe leaves out, as they were read from the rows."""

    def for_command(self, command: str) -> LoadedRecipe:
        """Return the recipe for what `command` does. Raises RecipeError with what its policies say against that."""
        if command == self.context.command:
            return self
        if problems := against(self.rules, self.recipe, command):
            raise RecipeError(self.asked.name, problems)
        return replace(self, context=replace(self.context, command=command))

    def again(self, *overrides: str, device: Device | None = None) -> LoadedRecipe:
        """Load the recipe once more, with more overrides, or for another device."""
        known = replace(self.asked, recognized=self.recognized)
        return load_asked(replace(known, overrides=(*known.overrides, *overrides)), device=device)

    def told(self) -> Iterator[str]:
        """Yield what its owner should know: what a house file gave, and what the rows were found to be."""
        yield from self.house.told()
        yield from map(str, self.recognized)

    def nowhere_written(self) -> list[str]:
        """Return a sentence for each plugin in use that the recipe cannot name, for it is an object of a program."""
        plugins = [self.registry.plugins.loaded[name] for name in self.active]
        return [
            f"the module '{plugin.module.__name__}' is known to this Python program only: a recipe cannot name it"
            for plugin in plugins
            if plugin.distribution == IN_PROGRAM
        ]

    def call(self, hook: str, **arguments: Any) -> None:
        """Tell the plugins in use about a moment of the run."""
        answers = self.registry.plugins.call(
            hook, self.active, recipe=frozen(self.recipe), **arguments, context=self.context
        )
        for name, answer in answers.items():
            if answer is not None:
                plugin = self.registry.plugins.loaded[name]
                function = getattr(plugin.module, hook, plugin.module)
                text = f"must return nothing, not {type(answer).__name__}: it observes and changes nothing"
                raise PluginError(f"plugin {plugin}: {hook}() {text} ({place_of(function)})")

    def call_after(self, hook: str, done: str, **arguments: Any) -> None:
        """Tell the plugins in use of what was done; where one of them fails, the error says that it is `done`."""
        try:
            self.call(hook, **arguments)
        except PluginError as error:
            error.add_note(done)
            raise

    def plugins(self) -> list[Plugin]:
        """Return the plugins in use."""
        return [self.registry.plugins.loaded[name] for name in self.active]

    def warnings(self) -> list[str]:
        """Return a sentence for what is wrong with what is installed that this recipe does not need, and for every
        option that it sets and that has been replaced or will be removed.
        """
        untried = (problem_at(self.tree, ("train", name), text) for name, text in untried_in_train(self.recipe.train))
        deprecated = map(str, _deprecated(self.recipe, self.tree))
        return [*self.registry.warnings(), *self.aged, *deprecated, *map(str, untried)]

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
    return load_asked(LoadRequest(reference, tuple(overrides), tuple(blocked)), rows=rows, device=device)


def load_asked(asked: LoadRequest, *, rows: bool = True, device: Device | None = None) -> LoadedRecipe:
    """Load a recipe; see `load_recipe`. A dict is one too, and may hold components themselves."""
    refuse_unsupported()
    name, house, layers, classes = _read(asked)
    # Which plugins a recipe names is known without them; what its other sections mean is not.
    registry, problems, aged = load_named_plugins(_laid(map(_plugins_of, layers), {}), house, asked, _words_of(layers))
    offer_classes(registry, classes)
    set_aside = set_defaults_aside(layers, house, registry)
    tree = _of_today(_laid(layers, registry.classes()), registry, asked, aged, problems)
    written = tree.copy()  # only whole sections are filled in
    assume_quantization(tree, registry)
    rules, wrong = house_rules(house, registry, aged)
    problems += [*wrong, *_train_problems(tree)]
    recipe = _validate(tree, registry, problems, _used(tree, registry, house, rules, classes), asked)
    found: list[Found] = []
    if recipe is not None and not problems and rows:
        recipe, found = _recognized(recipe, (tree, written), registry, problems, (name, asked))
    # What suits them is asked of components only in a recipe that is valid: they may rely on that.
    if recipe is not None and not problems:
        recipe = with_files(settle(recipe, tree, registry, device), tree, registry, house)
        recipe = recipe.model_copy(update={"output": recipe.output.replace("{name}", name)})
        in_force = [*rules_of(recipe, tree), *rules]
        bind(_parts_of(recipe, rules), recipe.own_sections(), registry)
        problems += [*misfits(rules, recipe), *(against(in_force, recipe, asked.command) if asked.command else ())]
    if recipe is not None:
        problems += _check_components(recipe, tree, rows=rows)
    if asked.versions is not None:
        problems = list(with_versions(problems, tree, registry, asked.versions))
    house = replace(house.in_effect(tree, set_aside), blocked=registry.plugins.blocked)
    if problems or recipe is None:
        # In the order of the lines, as whoever fixes the file goes through it.
        refused = RecipeError(asked.name, sorted(problems, key=lambda problem: _line(problem.origin)))
        for sentence in house.told():  # a place such as sftplug.toml:3 does not say in which folder that is
            refused.add_note(f"note: {sentence}")
        raise refused
    return LoadedRecipe(
        name,
        recipe,
        tree,
        registry,
        tuple(sorted(_active(recipe, registry, house, in_force, asked))),
        asked,
        written,
        tuple(aged),
        house=house,
        rules=tuple(in_force),
        context=MomentContext(asked.command),
        recognized=tuple(found),
    )


def _read(asked: LoadRequest) -> tuple[str, House, list[Tree], list[type[Component]]]:
    """Return the recipe's name, the house file, its layers with the lowest first, and the classes of those in a dict.

    What the house file gives recipes lies beneath all; what another process, or a run, has recorded has it in it.
    """
    overrides = [read_override(override, asked.origin) for override in asked.overrides]
    if not isinstance(asked.reference, str):
        tree, classes = read_mapping(asked.reference)
        house = house_above(Path())
        return PYTHON, house, [*_beneath(house), *read_extended(Path(PYTHON), tree, asked.blocked), *overrides], classes
    file = find_recipe(asked.reference, blocked=asked.blocked)
    if file.name == KEPT:
        tree, name, kept = read_tree(file)
        return name, read_house(kept), [tree, *overrides], []
    if is_record(file):
        return file.stem, house_of_record(file), [*read_extended(file, blocked=asked.blocked), *overrides], []
    house = house_above(file.parent, file) if is_own(asked.reference) else house_above(Path())
    return file.stem, house, [*_beneath(house), *read_extended(file, blocked=asked.blocked), *overrides], []


def _beneath(house: House) -> list[Tree]:
    """Return the layer of the house file, if there is one."""
    defaults = house.defaults()
    return [defaults] if defaults.data else []


def _recognized(
    recipe: Recipe, trees: Sequence[Tree], registry: Registry, problems: list[Problem], of: tuple[str, LoadRequest]
) -> tuple[Recipe, list[Found]]:
    """Return the recipe with the formats that it leaves out, which are put into `trees`, and these formats.

    They are known without a look at the rows where the recipe was loaded before, and where a run is resumed.
    """
    name, asked = of
    known = asked.recognized
    if not known and asked.begun is not None:
        known = asked.begun(recipe.output.replace("{name}", name), recipe, registry)
    recognition = Recognition(trees[0], registry, problems)
    recipe = recognition.complete(recipe, known)
    for tree in trees:
        put_in(tree, recognition.found)
    return recipe, recognition.found


def _laid(layers: Iterable[Tree], offers: Offers) -> Tree:
    """Return one tree of all layers, in which everything is spelled out."""
    return merge([spell_out(layer, offers) for layer in layers], offers)


def _of_today(tree: Tree, registry: Registry, asked: LoadRequest, aged: list[str], problems: list[Problem]) -> Tree:
    """Return a tree whose options are those of today's plugins; what that changes in it is told to `aged`.

    An adapter that stands for its base is spelled out; in the record of a run it is already.
    """
    if asked.versions is not None:
        aged += leave_out_gone(tree, registry, asked.versions)
    else:
        problems += spell_out_base(tree)
    aged += upgrade_options(tree, registry, asked.versions)
    return tree


# --- plugins ----------------------------------------------------------------------------------------------------------


def _plugins_of(layer: Tree) -> Tree:
    """Return of a layer what it says about plugins."""
    data = {name: value for name, value in layer.data.items() if name == "plugins"}
    return Tree(type(layer.data)(data), layer.origins, layer.places)


def _words_of(layers: Iterable[Tree]) -> frozenset[str]:
    """Return the words of all layers, among which the names of components are."""
    return frozenset(word for layer in layers for word in words(layer.data))


def _active(recipe: Recipe, registry: Registry, house: House, rules: Iterable[Rule], asked: LoadRequest) -> set[str]:
    """Return the plugins in use.

    Those whose components the recipe names, or the house file its policies, those that either lists, and those that are
    modules of the program.
    """
    given = {plugin.name for plugin in registry.plugins.loaded.values() if plugin.module in asked.modules}
    named = given | {plugin_name(entry) for entry in (*recipe.plugins, *house.plugins)} & registry.plugins.loaded.keys()
    return named | {owner for part in _parts_of(recipe, rules) if (owner := registry.plugin_of(part))}


def _used(
    tree: Tree, registry: Registry, house: House, rules: Iterable[Rule], classes: Sequence[type[Component]]
) -> set[str]:
    """Return the plugins that are in use whatever sections of plugins the recipe has.

    Those that it or the house file lists, or names components of, and those whose `classes` a program has put in.
    """
    named = in_use(tree, registry, [*named_in(house.tree), *named_in(tree)])
    offers = [offer for of_kind in registry.offers.values() for offer in of_kind.values()] if classes else []
    named |= {offer.plugin.name for offer in offers if any(map(offer.made, classes))}
    return named | {owner for rule in rules if (owner := registry.plugin_of(rule.policy))}


# --- validate and check -----------------------------------------------------------------------------------------------


def _train_problems(tree: Tree) -> list[Problem]:
    options = tree.data.get("train")
    if not isinstance(options, dict):
        return []
    return [problem_at(tree, ("train", name), text) for name, text in problems_in_train(options)]


def _validate(
    tree: Tree, registry: Registry, problems: list[Problem], used: Container[str], asked: LoadRequest
) -> Recipe | None:
    sections, wrong = own_sections(tree, registry, used, of_record=asked.versions is not None)
    problems += wrong
    narrowed = recipe_class(registry, sections)
    try:
        recipe = narrowed.model_validate(tree.data, context={PARTS: Parts(registry)})
        bind(_parts_of(recipe), recipe.own_sections(), registry)
        return recipe
    except ValidationError as error:
        problems += problems_from(error, tree, narrowed, registry)
        return None
    except Exception as error:
        # A validator says what is wrong with ValueError; anything else is a fault in its plugin.
        raise PluginError(f"a component's own check of its options failed: {reason(error)}") from error


def _parts_of(recipe: Recipe, rules: Iterable[Rule] = ()) -> list[Component]:
    return [*(part for _, part in recipe.components()), *(rule.policy for rule in rules)]


def _check_components(recipe: Recipe, tree: Tree, *, rows: bool) -> Iterator[Problem]:
    for path, component in recipe.located_components():
        if rows or not isinstance(component, DatasetSource):
            yield from (problem_at(tree, path, text) for text in component_problems(component, recipe))
    for place, text in check_core(recipe):
        yield problem_at(tree, path_of(place), text)


def _deprecated(recipe: Recipe, tree: Tree) -> Iterator[Problem]:
    """Yield what the plugin's author says of every option that is set and marked with ``Field(deprecated=…)``."""
    for path, component in recipe.located_components():
        for name in sorted(component.model_fields_set):
            field = type(component).model_fields[name]
            if text := field.deprecation_message:
                yield problem_at(tree, (*path, field.alias or name), text)


def _line(origin: str) -> int:
    _, _, line = origin.rpartition(":")
    return int(line) if line.isdigit() else 0
