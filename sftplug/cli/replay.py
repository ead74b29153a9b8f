"""``sftplug replay``"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sftplug.cli.options import Verbose, be_verbose
from sftplug.cli.prepare import write_prepared
from sftplug.libraries.logging import quiet_progress_bars
from sftplug.storage.folder import refuse_taken


def replay(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run.")],
    output: Annotated[Path, typer.Option("--output", metavar="DIR", help="Folder for the dataset.")],
    verbose: Verbose = False,
) -> None:
    """Prepare a run's rows again from its folder, prove them identical to the byte, and write them to DIR."""
    be_verbose(verbose)
    refuse_taken(output)
    from sftplug.api.progress import show_progress
    from sftplug.run import RunDirectory
    from sftplug.ship.replay import replay as prepare_again

    directory = RunDirectory.open(run)
    quiet_progress_bars()
    with show_progress() as progress:
        prepared = prepare_again(directory, progress)
    write_prepared(prepared, output)
    hashes = {split: rows["sha256"] for split, rows in directory.data().items() if split in ("train", "eval")}
    typer.echo(f"replayed {len(prepared.train)} rows in {output}, identical to the byte to those of {run}:")
    for split, found in hashes.items():
        typer.echo(f"  {split} sha256 {found}")
