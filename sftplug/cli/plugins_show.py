"""``sftplug plugins show``"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from sftplug.cli.display import say, show
from sftplug.cli.options import warn
from sftplug.errors import PluginError, did_you_mean
from sftplug.plugin.errors import place_of
from sftplug.plugin.manager import Plugin, load_plugins

if TYPE_CHECKING:
    from sftplug.plugin.components import Component
    from sftplug.plugin.quality import Quality
    from sftplug.plugin.registry import Offer, Registry


def show_plugin(
    context: typer.Context, name: Annotated[str, typer.Argument(help="Name of a plugin, or of a component.")]
) -> None:
    """Show what a plugin offers, or a component: options, an example, and where it comes from."""
    from sftplug.plugin.registry import build_registry

    registry = build_registry(load_plugins(context.obj or []))
    plugin = registry.plugins.loaded.get(name)
    found = _offers(registry, name, plugin)
    if plugin is None and not found:
        raise PluginError(_unknown(registry, name))
    if plugin is not None:
        _show_plugin(plugin, registry)
    for kind, component_name, offer in found:
        _show_component(kind, component_name, offer)
    warn(str(clash) for clash in registry.clashes.values() if clash.name == name)


def _offers(registry: Registry, name: str, plugin: Plugin | None) -> list[tuple[type[Component], str, Offer]]:
    """Return what the plugin of that name offers, and every component of that name."""
    return [
        (kind, component, offer)
        for kind, offers in registry.offers.items()
        for component, offer in sorted(offers.items())
        if component == name or (plugin is not None and offer.plugin is plugin)
    ]


def _unknown(registry: Registry, name: str) -> str:
    broken = registry.plugins.broken.get(name)
    clashes = [str(clash) for clash in registry.clashes.values() if clash.name == name]
    if broken is not None or clashes:
        return "\n".join([*([str(broken)] if broken else []), *clashes])
    known = [*registry.plugins.loaded, *(name for offers in registry.offers.values() for name in offers)]
    return f"no plugin and no component is named '{name}'.{did_you_mean(name, known)} `sftplug plugins` lists them."


def _show_plugin(plugin: Plugin, registry: Registry) -> None:
    say(f"plugin {plugin.name}", "bold cyan")
    if plugin.module.__doc__:
        say(f"  {plugin.module.__doc__.splitlines()[0]}")
    say(f"  distribution  {plugin.distribution} {plugin.version}".rstrip())
    say(f"  source        {plugin.source}")
    say(f"  sha256        {plugin.sha256}")
    hooks = [name for name, value in inspect.getmembers(plugin.module) if hasattr(value, "sftplug_impl")]
    say(f"  hooks         {', '.join(hooks)}")
    from sftplug.plugin.quality import quality_of

    if (quality := quality_of(plugin, registry)) is not None:
        _show_quality(quality)


def _show_quality(quality: Quality) -> None:
    """Say what the kit has found, and with which versions."""
    say(f"  quality       {quality}")
    if quality.found is not None:
        found = quality.found
        with_versions = ", ".join(f"{name} {version}" for name, version in found.versions.items())
        say(f"                {found.date}: {with_versions}")
        for name, laws in found.laws.items():
            say(f"                {name}: {', '.join(laws)}")


def _show_component(kind: type[Component], name: str, offer: Offer) -> None:
    from sftplug.plugin.kinds import NOUNS
    from sftplug.recipe.describe import example_of, options_of

    say(f"\n{NOUNS[kind]} {name}", "bold cyan")
    for line in (inspect.getdoc(offer.component) or "").splitlines():
        say(f"  {line}".rstrip())
    say(f"  plugin  {offer.plugin}, sha256 {offer.plugin.sha256}")
    say(f"  source  {place_of(offer.component)}\n")
    options = options_of(offer.component)
    if options:
        table = Table("option", "type", "default", "what it does")
        for option in options:
            table.add_row(*map(escape, (option.name, option.type, option.default, option.description)))
        show(table)
    else:
        say("  no options")
    say("\n" + example_of(offer.component).rstrip(), "green")
