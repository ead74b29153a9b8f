"""``sftplug recipes --proof``"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.table import Table

from sftplug.cli.display import narrow
from sftplug.cli.display import show as show_table

if TYPE_CHECKING:
    from sftplug.proving import RecipeProof
    from sftplug.recipe.shipped import ShippedRecipe


def prove(recipes: list[ShippedRecipe], *, as_json: bool) -> None:
    """Prove recipes that train a model of the Hub, and print what came of it; exit 1 if one does not hold.

    Recipes that build their model on the spot need no proof: `sftplug train` runs them as they are.
    """
    from sftplug.proving import to_dict

    proofs = list(_made([recipe for recipe in recipes if not recipe.model.startswith("built:")]))
    if as_json:
        typer.echo(json.dumps(to_dict(proofs), indent=2))
    else:
        show_table(_matrix(proofs))
    if not all(proof.holds for proof in proofs):
        raise typer.Exit(1)


def _made(recipes: list[ShippedRecipe]) -> Iterator[RecipeProof]:
    from sftplug.libraries.logging import quiet_progress_bars
    from sftplug.proving import prove_recipe

    quiet_progress_bars()
    with tempfile.TemporaryDirectory() as folder:
        for number, recipe in enumerate(recipes, 1):
            typer.echo(f"{number} of {len(recipes)}: {recipe.name}", err=True)
            yield prove_recipe(recipe, Path(folder))


def _matrix(proofs: list[RecipeProof]) -> Table:
    from sftplug.proving import STAGES

    table = Table("recipe", "model", *STAGES)
    for proof in proofs:
        stages = (proof.stages[name] for name in STAGES)
        cells = (narrow(f"{_MARKS[stage.outcome]} {stage.text}") for stage in stages)
        table.add_row(proof.recipe, proof.model, *cells)
    return table


_MARKS = {"proven": "✓", "not proven": "-", "failed": "✗"}
