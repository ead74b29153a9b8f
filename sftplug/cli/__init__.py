"""The command line: one file a command. Nothing heavy is imported until a command needs it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from sftplug.cli.chat import chat
from sftplug.cli.check import check
from sftplug.cli.data import data
from sftplug.cli.evaluate import evaluate
from sftplug.cli.explain import explain
from sftplug.cli.export import export
from sftplug.cli.list_runs import list_runs
from sftplug.cli.merge import merge
from sftplug.cli.plan import plan
from sftplug.cli.plugin_commands import CommandsOfPlugins
from sftplug.cli.plugins import plugins
from sftplug.cli.prepare import prepare
from sftplug.cli.preview import preview
from sftplug.cli.push import push
from sftplug.cli.recipes import recipes
from sftplug.cli.replay import replay
from sftplug.cli.report import report
from sftplug.cli.schema import schema
from sftplug.cli.train import train
from sftplug.errors import MaskError, PluginFault, SftplugError
from sftplug.util.processes import end, is_main, report_failure, world_size
from sftplug.util.redact import redact, redact_logs
from sftplug.util.streams import fill_closed, let_go, spell_out
from sftplug.util.text import visible

app = typer.Typer(
    cls=CommandsOfPlugins,
    help="Supervised fine-tuning in which every step is a plugin.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command()(train)
app.command()(check)
app.command()(data)
app.command()(prepare)
app.command()(preview)
app.command()(schema)
app.command()(explain)
app.command()(plan)
app.command()(replay)
app.command()(merge)
app.command()(chat)
app.command("eval")(evaluate)
app.command()(report)
app.command("runs")(list_runs)
app.command()(export)
app.command()(push)
app.add_typer(recipes, name="recipes")
app.add_typer(plugins, name="plugins")


@app.callback(invoke_without_command=True)
def _options(version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False) -> None:
    redact_logs()
    if version:
        from sftplug import __version__

        typer.echo(f"sftplug {__version__}")
        raise typer.Exit


def main() -> None:
    """Run the command line; errors that sftplug raises on purpose are shown without a traceback."""
    fill_closed()
    spell_out()
    try:
        _run()
    finally:
        let_go()  # else Python would complain, at its end, of what could not be printed


def _run() -> None:
    verbose = bool({"-v", "--verbose"} & set(sys.argv[1:]))
    try:
        app()
    except SftplugError as error:
        report_failure(error, error.exit_code, refusal=not isinstance(error, PluginFault))
        if is_main():
            _show(error, verbose)
        end(error.exit_code)
    except KeyboardInterrupt:
        typer.echo("interrupted", err=True)
        sys.exit(130)
    except Exception as error:  # noqa: BLE001 - whatever it is, the command has failed
        report_failure(error, 1, refusal=False)
        if verbose:
            _show_traceback(error)
        elif world_size() == 1:
            # Of several processes, the launcher says which one failed, and why.
            name = type(error).__name__
            said = _said("\n".join([f"sftplug failed: {name}: {error}", *getattr(error, "__notes__", ())]))
            typer.echo(f"{said}\nRun the command again with -v for the traceback.", err=True)
        end(1)


def _said(text: str) -> str:
    """Return what may be printed of a text in which strangers' words stand: no secret, nothing for the terminal."""
    return visible(redact(text))


def _show(error: SftplugError, verbose: bool) -> None:
    let_go()
    if verbose:
        _show_traceback(error)
    elif said := _said("\n".join([str(error), *getattr(error, "__notes__", ())])):
        typer.echo(said, err=True)
    if isinstance(error, MaskError) and error.picture:
        _show_picture(error.picture)


def _show_traceback(error: Exception) -> None:
    """Show all there is to know; it ends with the error's own text and notes."""
    import traceback

    typer.echo(_said("".join(traceback.format_exception(error))), err=True, nl=False)


def _show_picture(picture: Sequence[tuple[str, str]]) -> None:
    """Show the row that failed its check: what would be trained green, what is wrong red."""
    from rich.console import Console
    from rich.text import Text

    from sftplug.previewing.terminal import marked

    Console(stderr=True).print(Text.assemble(*((marked(text), style) for text, style in picture)))
