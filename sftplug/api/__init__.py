"""sftplug from Python: what the commands do, as functions. ``docs/python.md`` shows each of them.

Everything here is exported by `sftplug` itself, which imports it when it is first asked for.
"""

from sftplug.api.encoding import Encoded, encode
from sftplug.api.planning import plan
from sftplug.api.previewing import Preview, preview
from sftplug.api.recipes import check, load
from sftplug.api.result import TrainedRun, open_run
from sftplug.api.rows import prepare
from sftplug.api.runs import train

__all__ = [
    "Encoded",
    "Preview",
    "TrainedRun",
    "check",
    "encode",
    "load",
    "open_run",
    "plan",
    "prepare",
    "preview",
    "train",
]
