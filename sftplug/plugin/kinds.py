"""The kinds of component, and what each is called."""

from __future__ import annotations

from sftplug.plugin.components import (
    Adapter,
    Callback,
    ChatTemplate,
    Component,
    DatasetFormat,
    DatasetSource,
    Exporter,
    Head,
    LengthPolicy,
    Loss,
    Masking,
    Metric,
    ModelBuilder,
    ModelPatch,
    Optimizer,
    Policy,
    Quantization,
    RecipeSection,
    RowProcessor,
    Schedule,
)

NOUNS: dict[type[Component], str] = {
    DatasetSource: "source",
    RowProcessor: "row processor",
    DatasetFormat: "format",
    ChatTemplate: "chat template",
    Masking: "masking",
    LengthPolicy: "length policy",
    ModelBuilder: "model builder",
    Quantization: "quantization",
    ModelPatch: "model patch",
    Adapter: "adapter",
    Loss: "loss",
    Head: "head",
    Optimizer: "optimizer",
    Schedule: "schedule",
    Callback: "callback",
    Metric: "metric",
    Exporter: "exporter",
    Policy: "policy",
    RecipeSection: "section",
}
"""What each kind is called in a sentence."""
