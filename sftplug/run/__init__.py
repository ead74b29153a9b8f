"""The folder that a run writes: what it was, how far it is, and what a later reader needs.

`RunDirectory` reads one, `open_session` starts or resumes one; ``docs/run-directory.md`` describes the files.
"""

from sftplug.run.checkpoints import Checkpoint
from sftplug.run.directory import RunDirectory, RunState
from sftplug.run.session import RunSession, open_session

__all__ = ["Checkpoint", "RunDirectory", "RunSession", "RunState", "open_session"]
