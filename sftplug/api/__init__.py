"""sftplug from Python: what the commands do, as functions. ``docs/python.md`` shows each of them.

Everything here is exported by `sftplug` itself, which imports it when it is first asked for.
"""

from sftplug.api.encoding import Encoded, encode
from sftplug.api.explaining import Explanation, explain
from sftplug.api.planning import plan
from sftplug.api.previewing import Preview, preview
from sftplug.api.pushing import push
from sftplug.api.recipes import check, load
from sftplug.api.reporting import report
from sftplug.api.result import TrainedRun, open_run
from sftplug.api.rows import prepare, replay
from sftplug.api.runs import train

__all__ = [
    "Encoded",
    "Explanation",
    "Preview",
    "TrainedRun",
    "check",
    "encode",
    "explain",
    "load",
    "open_run",
    "plan",
    "prepare",
    "preview",
    "push",
    "replay",
    "report",
    "train",
]
