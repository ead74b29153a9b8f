"""The kinds of component: what a recipe chooses by name, and what a plugin offers.

A component *is* its options: a frozen pydantic model whose ``type`` is the name that recipes use, and one method
that does the work. Field docstrings become the descriptions in the schema. Heavy libraries are imported inside
methods, so that listing plugins stays instant.
"""

from sftplug.plugin.components.base import (
    PARTS,
    Component,
    Deferred,
    give_sections,
    parts_of,
    section_of,
    sections_given,
)
from sftplug.plugin.components.exporting import Exporter
from sftplug.plugin.components.model import Adapter, ModelBuilder, Quantization
from sftplug.plugin.components.optimization import Optimizer, Schedule
from sftplug.plugin.components.patching import ModelPatch
from sftplug.plugin.components.policies import Policy, PolicyCommand
from sftplug.plugin.components.rows import (
    ChatTemplate,
    DatasetFormat,
    DatasetSource,
    LengthPolicy,
    Masking,
    RowProcessor,
    StreamProcessor,
)
from sftplug.plugin.components.sections import RecipeSection
from sftplug.plugin.components.training import Callback, Head, Loss, Metric

__all__ = [
    "PARTS",
    "Adapter",
    "Callback",
    "ChatTemplate",
    "Component",
    "DatasetFormat",
    "DatasetSource",
    "Deferred",
    "Exporter",
    "Head",
    "LengthPolicy",
    "Loss",
    "Masking",
    "Metric",
    "ModelBuilder",
    "ModelPatch",
    "Optimizer",
    "Policy",
    "PolicyCommand",
    "Quantization",
    "RecipeSection",
    "RowProcessor",
    "Schedule",
    "StreamProcessor",
    "give_sections",
    "parts_of",
    "section_of",
    "sections_given",
]
