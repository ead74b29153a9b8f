"""sftplug: supervised fine-tuning in which every step is a plugin.

This is the public API: everything that a plugin may import, and nothing else. Importing it loads no heavy library.
"""

import typing as _typing

from pydantic import Field

from sftplug.components import (
    Adapter,
    Callback,
    ChatTemplate,
    DatasetFormat,
    DatasetSource,
    Deferred,
    LengthPolicy,
    Masking,
    Metric,
    ModelBuilder,
    Quantization,
)
from sftplug.conversation import ROLES, Conversation, Message, Reply, Row, ToolCall
from sftplug.device import ComputeDtype, Device, this_device
from sftplug.errors import (
    DataError,
    Interrupted,
    LaunchError,
    MaskError,
    MissingLibraryError,
    ModelError,
    PluginError,
    Problem,
    RecipeError,
    RowError,
    RunError,
    SftplugError,
    TemplateError,
    TemplateStopped,
    TrainingError,
    did_you_mean,
)
from sftplug.hookspecs import hookimpl
from sftplug.libraries import require
from sftplug.library_options import LibrarySource, set_options
from sftplug.patterns import Pattern
from sftplug.prompt import encode_prompt, render_prompt
from sftplug.recipe.in_words import train_in_words
from sftplug.recipe.model import InputPath, Recipe
from sftplug.redact import without_secrets
from sftplug.run import RunDirectory
from sftplug.size import measure
from sftplug.structure import ModelStructure, structure_of
from sftplug.text import read_text, visible
from sftplug.tokens import PARTS, ROLE_CODES, LongRow, LossSums, TokenBatch
from sftplug.types.ledger import Account, Ledger, Mixed, Packing
from sftplug.types.reasons import RowGroup, RowGroups
from sftplug.types.result import MovedWeights, RunResult, Size
from sftplug.types.trainer import RunTrainer

__version__ = "0.1.0"

if not _typing.TYPE_CHECKING:  # else a type checker would take any name for one of this package

    def __getattr__(name):
        """Return what a name that will be removed stands for, with a warning."""
        from sftplug.deprecated import old_name

        return old_name(__name__, name)


__all__ = [
    "PARTS",
    "ROLES",
    "ROLE_CODES",
    "Account",
    "Adapter",
    "Callback",
    "ChatTemplate",
    "ComputeDtype",
    "Conversation",
    "DataError",
    "DatasetFormat",
    "DatasetSource",
    "Deferred",
    "Device",
    "Field",
    "InputPath",
    "Interrupted",
    "LaunchError",
    "Ledger",
    "LengthPolicy",
    "LibrarySource",
    "LongRow",
    "LossSums",
    "MaskError",
    "Masking",
    "Message",
    "Metric",
    "MissingLibraryError",
    "Mixed",
    "ModelBuilder",
    "ModelError",
    "ModelStructure",
    "MovedWeights",
    "Packing",
    "Pattern",
    "PluginError",
    "Problem",
    "Quantization",
    "Recipe",
    "RecipeError",
    "Reply",
    "Row",
    "RowError",
    "RowGroup",
    "RowGroups",
    "RunDirectory",
    "RunError",
    "RunResult",
    "RunTrainer",
    "SftplugError",
    "Size",
    "TemplateError",
    "TemplateStopped",
    "TokenBatch",
    "ToolCall",
    "TrainingError",
    "did_you_mean",
    "encode_prompt",
    "hookimpl",
    "measure",
    "read_text",
    "render_prompt",
    "require",
    "set_options",
    "structure_of",
    "this_device",
    "train_in_words",
    "visible",
    "without_secrets",
]
