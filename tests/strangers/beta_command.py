from pathlib import Path

import typer

import sftplug


def reasons(run: Path) -> None:
    """Show why rows of RUN were left out, and how many for each reason."""
    account = sftplug.RunDirectory.open(run).ledger()["splits"]["train"][0]
    for reason, count in account["dropped"].items():
        typer.echo(f"{count}: {reason}")


@sftplug.hookimpl
def sftplug_commands():
    return {"reasons": reasons}
