"""``sftplug replay``"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sftplug import api
from sftplug.cli.options import NoPlugin, Verbose, be_verbose


def replay(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run.")],
    output: Annotated[Path, typer.Option("--output", metavar="DIR", help="Folder for the dataset.")],
    no_plugin: NoPlugin = None,
    verbose: Verbose = False,
) -> None:
    """Prepare a run's rows again from its folder, prove them identical to the byte, and write them to DIR."""
    be_verbose(verbose)
    prepared = api.replay(run, output, without=no_plugin or ())
    from sftplug.run import RunDirectory

    known = RunDirectory.open(run).data()
    hashes = {split: rows["sha256"] for split, rows in known.items() if split in ("train", "eval")}
    typer.echo(f"replayed {len(prepared.train)} rows in {output}, identical to the byte to those of {run}:")
    for split, found in hashes.items():
        typer.echo(f"  {split} sha256 {found}")
