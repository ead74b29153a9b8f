"""``sftplug chat``"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sftplug.cli.options import NoPlugin, Verbose, be_verbose
from sftplug.cli.runs import Json, Run, open_run
from sftplug.util.text import visible

if TYPE_CHECKING:
    from sftplug.api.result import Drawing
    from sftplug.ship.chat import ChatSession

RESET, QUIT = "/reset", "/quit"


def chat(  # noqa: PLR0913 - an argument is an option of the command
    run: Run,
    prompt: Annotated[str | None, typer.Option("--prompt", metavar="TEXT", help="Answer this, and end.")] = None,
    compare_base: Annotated[bool, typer.Option("--compare-base", help="Show the base model's answer beside.")] = False,
    system: Annotated[str | None, typer.Option("--system", metavar="TEXT", help="System prompt.")] = None,
    max_new_tokens: Annotated[int, typer.Option("--max-new-tokens", min=1, help="Longest answer.")] = 256,
    temperature: Annotated[
        float, typer.Option("--temperature", min=0.0, help="0 takes the most likely token each time.")
    ] = 0.0,
    top_p: Annotated[float, typer.Option("--top-p", min=0.0, max=1.0, help="Draw from this share only.")] = 1.0,
    top_k: Annotated[int, typer.Option("--top-k", min=1, help="Draw from so many tokens only.")] = 50,
    seed: Annotated[int | None, typer.Option("--seed", help="Draw the same answer each time.")] = None,
    as_json: Json = False,
    no_plugin: NoPlugin = None,
    verbose: Verbose = False,
) -> None:
    """Talk to the model that RUN has trained, with the template that it was trained with.

    Each line is a message; /reset begins a new conversation, /quit or the end of the input ends. Reasoning stands apart
    from the answer, under ``[thinking]``, and a call of a tool in a line with ``[call]``. In a pipe, messages
    come from the input, a line each, and the output holds the answers alone (those of ``--compare-base`` with the name
    of the model before them).
    """
    be_verbose(verbose)
    trained = open_run(run, no_plugin)
    drawn: Drawing = {"max_new_tokens": max_new_tokens, "temperature": temperature, "top_p": top_p}
    drawn |= {"top_k": top_k, "seed": seed}
    tuned = trained.conversation(system=system, **drawn)
    base = trained.conversation(system=system, base=True, **drawn) if compare_base else None
    for line in [prompt] if prompt is not None else _lines():
        if line == RESET:
            for conversation in filter(None, (tuned, base)):
                conversation.reset()
        elif as_json:
            _answer_as_json(line, tuned, base)
        else:
            _answer(line, tuned, base)


def _lines() -> Iterator[str]:
    """Yield what the user says, until there is no more."""
    interactive = sys.stdin.isatty()
    if interactive:
        typer.echo(f"{RESET} starts over, {QUIT} ends.", err=True)
    while True:
        if interactive:
            typer.echo("> ", nl=False, err=True)
        line = sys.stdin.readline()
        if interactive and not line:
            typer.echo(err=True)  # the end of the input ends no line
        if not line or line.strip() == QUIT:
            return
        if line.strip():
            yield line.strip()


def _answer(line: str, tuned: ChatSession, base: ChatSession | None) -> None:
    if base is None:
        tuned.ask(line, lambda text: typer.echo(visible(text), nl=False))
        typer.echo()
        return
    answers = {name: visible(_shown(talk, line)) for name, talk in (("base", base), ("tuned", tuned))}
    if sys.stdout.isatty():
        _beside(answers)
    else:  # where lines have no width, two columns of them cannot be read
        typer.echo("".join(f"{name}: {answer}\n" for name, answer in answers.items()), nl=False)


def _shown(talk: ChatSession, line: str) -> str:
    talk.ask(line)
    return talk.shown


def _beside(answers: dict[str, str]) -> None:
    from rich.markup import escape
    from rich.table import Table

    from sftplug.cli.display import show

    table = Table(*answers)
    table.add_row(*(escape(answer) for answer in answers.values()))
    show(table)


def _answer_as_json(line: str, tuned: ChatSession, base: ChatSession | None) -> None:
    before = {"base": base.ask(line)} if base is not None else {}
    told = {"prompt": line, **before, "answer": tuned.ask(line), **_more(tuned)}
    typer.echo(json.dumps(told, ensure_ascii=False))


def _more(talk: ChatSession) -> dict[str, Any]:
    """Return the reasoning and the calls of the last answer, if it has any."""
    said = talk.messages[-1]
    return {key: said[key] for key in ("reasoning_content", "tool_calls") if key in said}
