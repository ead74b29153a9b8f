"""What a run will cost, before anything but the model's configuration is downloaded."""

from sftplug.planning.fit import Fit, shared, ways_to_fit
from sftplug.planning.make import Planner, make_plan
from sftplug.planning.notes import model_notes, notes_of_rows
from sftplug.planning.result import Memory, Plan, Range, Work
from sftplug.planning.show import show_parts
from sftplug.planning.work import TrainingRows, rows_of
from sftplug.util.device import DEVICES, Device, find_device

__all__ = [
    "DEVICES",
    "Device",
    "Fit",
    "Memory",
    "Plan",
    "Planner",
    "Range",
    "TrainingRows",
    "Work",
    "find_device",
    "make_plan",
    "model_notes",
    "notes_of_rows",
    "rows_of",
    "shared",
    "show_parts",
    "ways_to_fit",
]
