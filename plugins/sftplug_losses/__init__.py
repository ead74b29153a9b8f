"""Losses: what each trained token costs, and the heads that compute them."""

import sftplug
from sftplug_losses.base import KlToBase
from sftplug_losses.heads import Chunked, Full, Fused
from sftplug_losses.likelihood import CrossEntropy, Dft, Focal
from sftplug_losses.teacher import Distill


@sftplug.hookimpl
def sftplug_losses() -> list[type[sftplug.Loss]]:
    """Offer the built-in losses."""
    return [CrossEntropy, Dft, Focal, KlToBase, Distill]


@sftplug.hookimpl
def sftplug_heads() -> list[type[sftplug.Head]]:
    """Offer the built-in heads."""
    return [Full, Chunked, Fused]
