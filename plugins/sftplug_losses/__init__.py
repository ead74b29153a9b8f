"""Losses: what each trained token costs."""

import sftplug
from sftplug_losses.base import KlToBase
from sftplug_losses.likelihood import CrossEntropy, Dft, Focal
from sftplug_losses.teacher import Distill


@sftplug.hookimpl
def sftplug_losses() -> list[type[sftplug.Loss]]:
    """Offer the built-in losses."""
    return [CrossEntropy, Dft, Focal, KlToBase, Distill]
