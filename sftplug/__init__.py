"""sftplug: supervised fine-tuning in which every step is a plugin.

This is the public API: what a Python program calls (`load`, `check`, `prepare`, `preview`, `plan`, `train`, `encode`),
and everything that a plugin may import. Importing it loads no heavy library.
"""

import typing as _typing

from pydantic import Field

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
from sftplug.libraries.options import LibrarySource, set_options
from sftplug.libraries.versions import require
from sftplug.model.parameters import count_parameters
from sftplug.model.prompt import encode_prompt, render_prompt
from sftplug.model.structure import ModelStructure, structure_of
from sftplug.plugin.components import (
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
from sftplug.plugin.hookspecs import hookimpl
from sftplug.recipe.in_words import train_in_words
from sftplug.recipe.model import InputPath, Recipe
from sftplug.types.conversation import ROLES, Conversation, Message, Reply, Row, ToolCall
from sftplug.types.ledger import Account, Ledger, Mixed, Packing
from sftplug.types.reasons import RowGroup, RowGroups
from sftplug.types.result import MovedWeights, ParameterCounts, RunResult
from sftplug.types.tokens import PARTS, ROLE_CODES, LongRow, LossSums, TokenBatch
from sftplug.types.trainer import RunTrainer
from sftplug.util.device import ComputeDtype, Device, this_device
from sftplug.util.patterns import Pattern
from sftplug.util.redact import without_secrets
from sftplug.util.text import read_text, visible

__version__ = "0.1.0"

if _typing.TYPE_CHECKING:
    from sftplug.api import (
        Encoded,
        Preview,
        TrainedRun,
        check,
        encode,
        load,
        open_run,
        plan,
        prepare,
        preview,
        train,
    )
    from sftplug.data.prepare import Prepared
    from sftplug.planning.answer import PlanAnswer
    from sftplug.recipe.load import LoadedRecipe
    from sftplug.run.directory import RunDirectory
else:  # else a type checker would take any name for one of this package
    _LAZY = {
        **dict.fromkeys(("Encoded", "encode"), "sftplug.api.encoding"),
        **dict.fromkeys(("check", "load"), "sftplug.api.recipes"),
        **dict.fromkeys(("Preview", "preview"), "sftplug.api.previewing"),
        **dict.fromkeys(("TrainedRun", "open_run"), "sftplug.api.result"),
        "LoadedRecipe": "sftplug.recipe.load",
        "RunDirectory": "sftplug.run.directory",
        "PlanAnswer": "sftplug.planning.answer",
        "Prepared": "sftplug.data.prepare",
        "plan": "sftplug.api.planning",
        "prepare": "sftplug.api.rows",
        "train": "sftplug.api.runs",
    }

    def __getattr__(name):
        """Return a name that is imported when it is asked for; for one that will be removed, with a warning."""
        if name in _LAZY:
            from importlib import import_module

            return globals().setdefault(name, getattr(import_module(_LAZY[name]), name))
        from sftplug.plugin.deprecation import old_name

        return old_name(__name__, name)

    def __dir__():
        """List the names that are imported when they are asked for, too."""
        return sorted({*globals(), *_LAZY})


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
    "Encoded",
    "Field",
    "InputPath",
    "Interrupted",
    "LaunchError",
    "Ledger",
    "LengthPolicy",
    "LibrarySource",
    "LoadedRecipe",
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
    "ParameterCounts",
    "Pattern",
    "PlanAnswer",
    "PluginError",
    "Prepared",
    "Preview",
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
    "TemplateError",
    "TemplateStopped",
    "TokenBatch",
    "ToolCall",
    "TrainedRun",
    "TrainingError",
    "check",
    "count_parameters",
    "did_you_mean",
    "encode",
    "encode_prompt",
    "hookimpl",
    "load",
    "open_run",
    "plan",
    "prepare",
    "preview",
    "read_text",
    "render_prompt",
    "require",
    "set_options",
    "structure_of",
    "this_device",
    "train",
    "train_in_words",
    "visible",
    "without_secrets",
]
