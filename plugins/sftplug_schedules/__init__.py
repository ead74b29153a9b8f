"""Every schedule of the learning rate of the installed transformers, its options read from transformers' functions."""

from collections.abc import Sequence

import sftplug
from sftplug_schedules.by_name import schedules


@sftplug.hookimpl
def sftplug_schedules() -> Sequence[sftplug.Deferred]:
    """Offer all schedules that transformers has a name for, by that name."""
    return schedules()
