"""``sftplug prepare``"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sftplug import api
from sftplug.cli.options import NoPlugin, Overrides, RecipeName, Verbose, be_verbose, open_recipe
from sftplug.storage.folder import atomic_folder, refuse_taken

if TYPE_CHECKING:
    from sftplug.data.prepare import Prepared


def prepare(
    recipe: RecipeName,
    output: Annotated[Path, typer.Option("--output", metavar="DIR", help="Folder for the dataset.")],
    overrides: Overrides = None,
    no_plugin: NoPlugin = None,
    verbose: Verbose = False,
) -> None:
    """Write the dataset exactly as the trainer gets it to DIR/train and DIR/eval; loads no weights."""
    be_verbose(verbose)
    loaded = open_recipe(recipe, overrides, no_plugin)
    refuse_taken(output)
    prepared = api.prepare(loaded)
    write_prepared(prepared, output)
    typer.echo(f"prepared {len(prepared.train)} rows in {output}")


def write_prepared(prepared: Prepared, output: Path) -> None:
    """Write the rows of both splits as datasets, and the ledger; all of it or nothing."""
    with atomic_folder(output) as folder:
        prepared.train.save_to_disk(str(folder / "train"))
        if prepared.eval is not None:
            prepared.eval.save_to_disk(str(folder / "eval"))
        ledger = json.dumps(prepared.ledger.to_dict(), indent=2, ensure_ascii=False)
        (folder / "ledger.json").write_text(ledger, encoding="utf-8")
