"""The folder that a run writes: what it was, how far it is, and what a later reader needs.

`RunDirectory` reads one, `begin` starts or resumes one; ``docs/run-directory.md`` describes the files.
"""

from sftplug.run.attempt import Attempt, begin
from sftplug.run.checkpoints import Checkpoint
from sftplug.run.directory import RunDirectory, RunState

__all__ = ["Attempt", "Checkpoint", "RunDirectory", "RunState", "begin"]
