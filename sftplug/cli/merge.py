"""``sftplug merge``"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from sftplug.cli.options import NoPlugin, Verbose, be_verbose
from sftplug.cli.runs import Data, Format, Json, Run, open_run, read_format

if TYPE_CHECKING:
    from sftplug.api.result import Merging


def merge(  # noqa: PLR0913 - an argument is an option of the command
    run: Run,
    output: Annotated[Path, typer.Option("--output", metavar="DIR", help="Folder for the merged model.")],
    in_place: Annotated[
        bool,
        typer.Option(
            "--in-place", "--quantized", help="Merge into the quantized weights, which rounds the update to them."
        ),
    ] = False,
    base: Annotated[
        Literal["dequantized", "original"],
        typer.Option(
            "--base", help="Weights that the update is added to: the floats of the quantized ones, or those before."
        ),
    ] = "dequantized",
    dtype: Annotated[
        Literal["bf16", "fp16", "fp32"] | None,
        typer.Option("--dtype", help="Numbers of the merged weights; by default those that the base computes in."),
    ] = None,
    tolerance: Annotated[
        float | None,
        typer.Option(
            "--tolerance",
            min=0.0,
            help="Largest mean difference of the logits, as a share of their deviation; 0.02, and 0.05 in bf16.",
        ),
    ] = None,
    data: Data = None,
    format: Format = None,
    as_json: Json = False,
    no_plugin: NoPlugin = None,
    verbose: Verbose = False,
) -> None:
    """Make the adapter of RUN part of the weights, and write a model that needs no adapter to DIR.

    A quantized base is made floats before: only that reproduces what was trained; ``--base original`` takes the weights
    from before they were quantized. The merged model is loaded again
    and compared with the adapter on held-out rows; where it says something else, nothing is kept.
    """
    be_verbose(verbose)
    given = read_format(data, format)
    how: Merging = {"in_place": in_place, "base": base, "dtype": dtype, "tolerance": tolerance}
    record = open_run(run, no_plugin).merge(output, data=data, format=given, **how)
    typer.echo(json.dumps(record, indent=2) if as_json else _told(record, output))


def _told(record: dict[str, Any], output: Path) -> str:
    apart = record["difference"]
    untied = "the head has weights of its own now: the adapter changed the embeddings alone, or the head\n"
    return (
        f"merged {record['adapter']} onto {record['onto']} in {record['dtype']}: {output}\n"
        f"{untied if record['untied'] else ''}"
        f"logits differ from the adapter's by {apart['relative']:.3%} of their standard deviation "
        f"(mean {apart['mean']:.3g}, largest {apart['max']:.3g}, KL {apart['kl']:.2g}), on {apart['positions']} "
        f"positions of {apart['rows']} {record['compared_on']}"
    )
