"""Run what the documentation shows, and keep what it prints: ``python docs/transcript.py`` writes ``transcripts/``.

With ``--check`` nothing is written, and it fails if what is printed now says something else: other words, other counts,
another order. Times, speeds, losses, hashes, versions and folders may differ. Everything runs in an environment of its
own, which lies over the one that runs this script: nothing is installed into that.
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
from collections.abc import Iterator
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

SHOWN = {
    "masking": "sftplug preview recipe.yaml -n 1",
    "format": "sftplug preview recipe.yaml -n 1",
    "template": "sftplug preview recipe.yaml -n 1",
    "source": "sftplug preview recipe.yaml -n 1",
    "adapter": "sftplug train recipe.yaml",
    "quantization": "sftplug train recipe.yaml",
    "callback": "sftplug train recipe.yaml",
    "metric": "sftplug train recipe.yaml",
}
"""Kind -> what its chapter runs in the folder of its package."""


def main() -> None:
    """Write the transcripts, or check them."""
    FOLDER.mkdir(exist_ok=True)
    stale = False
    for name, text in transcripts():
        file = FOLDER / f"{name}.txt"
        before = file.read_text(encoding="utf-8") if file.is_file() else ""
        if "--check" not in sys.argv:
            file.write_text(text, encoding="utf-8")
        elif essence(before) != essence(text):
            stale = True
            print(*difflib.unified_diff(essence(before), essence(text), file.name, "now", lineterm=""), sep="\n")
    if stale:
        sys.exit("stale transcripts. Run python docs/transcript.py")


def transcripts() -> Iterator[tuple[str, str]]:
    """Yield (name, text) of every session."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        environment = make_environment(folder / "environment")
        assert len(FROM_NOTHING) <= 10
        yield "from-nothing", session(FROM_NOTHING, folder / "home", environment)
        # The chapters' packages; that of the session before is one of them.
        shutil.copytree(DOCS / "tutorial", folder / "tutorial")
        editable = " ".join(f"--editable {folder / 'tutorial' / name}" for name in PACKAGES.values())
        session((f"pip install --quiet {editable}",), folder / "tutorial", environment)
        for kind, command in SHOWN.items():
            yield kind, session((command,), folder / "tutorial" / PACKAGES[kind], environment)


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
    """Return the lines of `text` without what may differ from run to run; the curve of the loss is such."""
    lines = [line for line in text.splitlines() if "│" not in line]
    for pattern, sign in _VARYING:
        lines = [pattern.sub(sign, line) for line in lines]
    return [line.strip() for line in lines if line.strip()]


if __name__ == "__main__":
    main()
