"""Metrics: what the model's own replies are worth beside what the rows say."""

import sftplug
from sftplug_metrics.calls import ToolCallsEqual
from sftplug_metrics.structure import JsonEqual, JsonValid, Regex
from sftplug_metrics.words import Contains, ExactMatch, TokenF1


@sftplug.hookimpl
def sftplug_metrics() -> list[type[sftplug.Metric]]:
    """Offer the built-in metrics."""
    return [Contains, ExactMatch, JsonEqual, JsonValid, Regex, TokenF1, ToolCallsEqual]
