"""What a run will cost, before anything but the model's configuration is downloaded."""

from sftplug.planning.fit import Trial, shared, trials
from sftplug.planning.make import Study, make_plan
from sftplug.planning.notes import model_notes
from sftplug.planning.result import Memory, Plan, Range, Work
from sftplug.planning.work import Rows, rows_of
from sftplug.util.device import DEVICES, Device, find_device

__all__ = [
    "DEVICES",
    "Device",
    "Memory",
    "Plan",
    "Range",
    "Rows",
    "Study",
    "Trial",
    "Work",
    "find_device",
    "make_plan",
    "model_notes",
    "rows_of",
    "shared",
    "trials",
]
