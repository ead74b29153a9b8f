"""The kind that is a part of the recipe: a section of a plugin's own."""

from __future__ import annotations

from sftplug.plugin.components.base import Component


class RecipeSection(Component):
    """A section of the recipe that a plugin owns: options of its own at the top of a recipe, under the name `type`.

    A recipe writes it as it writes ``train:``, and may where the plugin is in use: where it lists the plugin under
    ``plugins``, names a component of it, or the house file does. Of a plugin in use that is not written about, the
    section is there with its defaults; one that has an option without a default must be written. Options are checked,
    recorded, compared on resume and upgraded as those of every component.

    Who reads it: what is told of a moment, or gets the recipe otherwise, by ``recipe.section(MySection)``, and the
    components of the same plugin by ``self.section(MySection)``.
    """
