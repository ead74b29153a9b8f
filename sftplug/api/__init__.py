"""sftplug from Python: what the commands do, as functions. ``docs/python.md`` shows each of them.

Everything here is exported by `sftplug` itself, which imports it when it is first asked for.
"""

import typing as _typing

if _typing.TYPE_CHECKING:
    from sftplug.api.catalogue import recipes
    from sftplug.api.decoding import decode
    from sftplug.api.encoding import Encoded, encode
    from sftplug.api.explaining import Explanation, explain
    from sftplug.api.listing import runs
    from sftplug.api.planning import plan
    from sftplug.api.previewing import Preview, preview
    from sftplug.api.pushing import push
    from sftplug.api.recipes import check, load
    from sftplug.api.reporting import report
    from sftplug.api.result import TrainedRun, open_run
    from sftplug.api.rows import prepare, replay
    from sftplug.api.runs import train
else:
    # The command line imports this for one of them, and lists all commands without any.
    _HOMES = {
        "sftplug.api.catalogue": "recipes",
        "sftplug.api.decoding": "decode",
        "sftplug.api.encoding": "Encoded encode",
        "sftplug.api.explaining": "Explanation explain",
        "sftplug.api.listing": "runs",
        "sftplug.api.planning": "plan",
        "sftplug.api.previewing": "Preview preview",
        "sftplug.api.pushing": "push",
        "sftplug.api.recipes": "check load",
        "sftplug.api.reporting": "report",
        "sftplug.api.result": "TrainedRun open_run",
        "sftplug.api.rows": "prepare replay",
        "sftplug.api.runs": "train",
    }

    def __getattr__(name):
        """Return one of the names above."""
        home = next((home for home, names in _HOMES.items() if name in names.split()), None)
        if home is None:
            raise AttributeError(f"module 'sftplug.api' has no attribute {name!r}")
        from importlib import import_module

        return getattr(import_module(home), name)


__all__ = [
    "Encoded",
    "Explanation",
    "Preview",
    "TrainedRun",
    "check",
    "decode",
    "encode",
    "explain",
    "load",
    "open_run",
    "plan",
    "prepare",
    "preview",
    "push",
    "recipes",
    "replay",
    "report",
    "runs",
    "train",
]
