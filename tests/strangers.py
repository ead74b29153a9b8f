"""Distributions of strangers as pip would leave them, and sftplug run beside them as a user runs it."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

GOOD = """
import sftplug

class Mine(sftplug.Masking):
    type: str = "mine"
    def weights(self, tokens):
        return tokens.trainable

@sftplug.hookimpl
def sftplug_maskings():
    return [Mine]
"""


class Site:
    """A folder of installed distributions."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()

    def install(self, source, name="acme", distribution=None, version="1.2.3", requires=()):
        """Install a distribution with one plugin; return its module's file."""
        distribution = distribution or name
        module = f"{distribution}_plugin"
        info = self.folder / f"{distribution}-{version}.dist-info"
        info.mkdir()
        lines = ["Metadata-Version: 2.1", f"Name: {distribution}", f"Version: {version}"]
        lines += [f"Requires-Dist: {requirement}" for requirement in requires]
        (info / "METADATA").write_text("\n".join(lines) + "\n")
        (info / "entry_points.txt").write_text(f"[sftplug]\n{name} = {module}\n")
        file = self.folder / f"{module}.py"
        file.write_text(textwrap.dedent(source))
        return file

    def sftplug(self, *arguments, **environment):
        """Run sftplug in a process that has these distributions installed."""
        return subprocess.run(
            [sys.executable, "-m", "sftplug", *map(str, arguments)],
            env={**os.environ, "PYTHONPATH": str(self.folder), **environment},
            capture_output=True,
            text=True,
            check=False,
        )
