"""``sftplug push``"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from sftplug import api
from sftplug.cli.options import NoPlugin, Verbose, be_verbose
from sftplug.cli.runs import Json


def push(  # noqa: PLR0913 - an argument is an option of the command
    folder: Annotated[Path, typer.Argument(metavar="RUN|DIR", help="Folder of a finished run, or of a merged model.")],
    repo: Annotated[str, typer.Argument(metavar="REPO", help="Repository on the Hub: NAME or OWNER/NAME.")],
    private: Annotated[bool, typer.Option("--private", help="Make a new repository private.")] = False,
    as_json: Json = False,
    no_plugin: NoPlugin = None,
    verbose: Verbose = False,
) -> None:
    """Publish the model, tokenizer and card on the Hub, with the token of `hf auth login`.

    Checkpoints and the record of the run, which names paths and quotes rows, stay here.
    """
    be_verbose(verbose)
    pushed = api.push(folder, repo, private=private, without=no_plugin or ())
    typer.echo(json.dumps(asdict(pushed)) if as_json else f"pushed {', '.join(pushed.files)} to {pushed.url}")
