"""sftplug: supervised fine-tuning in which every step is a plugin.

This is the public API: what a Python program calls (`load`, `check`, `train`, `encode` …),
and everything that a plugin may import. Importing it takes a moment: each name is imported when it is first asked for,
and none of them imports a heavy library.
"""

import typing as _typing

__version__ = "0.1.0"

if _typing.TYPE_CHECKING:
    from pydantic import Field

    from sftplug.api.catalogue import recipes
    from sftplug.api.decoding import decode
    from sftplug.api.encoding import Encoded, encode
    from sftplug.api.explaining import Explanation, explain
    from sftplug.api.inspecting import DataInspection, inspect_data
    from sftplug.api.listing import runs
    from sftplug.api.planning import plan
    from sftplug.api.plugins import add_plugin, search_plugins
    from sftplug.api.previewing import Preview, preview
    from sftplug.api.pushing import push
    from sftplug.api.recipes import check, load
    from sftplug.api.reporting import report
    from sftplug.api.result import TrainedRun, open_run
    from sftplug.api.rows import prepare, replay
    from sftplug.api.runs import train
    from sftplug.data.prepare import Prepared
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
    from sftplug.libraries.optimizer_state import known_state_bytes
    from sftplug.libraries.options import LibrarySource, set_options
    from sftplug.libraries.package_index import ListedPlugin
    from sftplug.libraries.restoring import restoring
    from sftplug.libraries.versions import require
    from sftplug.model.parameters import count_parameters
    from sftplug.model.prompt import encode_prompt, render_prompt
    from sftplug.model.structure import ModelStructure, structure_of
    from sftplug.planning.answer import PlanAnswer
    from sftplug.plugin.components import (
        Adapter,
        Callback,
        ChatTemplate,
        DatasetFormat,
        DatasetSource,
        Deferred,
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
        PolicyCommand,
        Quantization,
        RecipeSection,
        RowProcessor,
        Schedule,
        StreamProcessor,
    )
    from sftplug.plugin.hookspecs import hookimpl
    from sftplug.recipe.in_words import train_in_words
    from sftplug.recipe.load import LoadedRecipe
    from sftplug.recipe.model import Recipe
    from sftplug.recipe.section import InputPath, ModelName
    from sftplug.run.directory import RunDirectory
    from sftplug.types.conversation import ROLES, Conversation, Message, Reply, Row, RowTokens, ToolCall
    from sftplug.types.decoded import Decoded
    from sftplug.types.filling import TextFiller
    from sftplug.types.finished_model import FinishedModel
    from sftplug.types.ledger import Account, Ledger, Mixed, Packing, Processed
    from sftplug.types.listed_run import ListedRun, RunList
    from sftplug.types.moment import MomentContext
    from sftplug.types.output_layer import OutputLayer
    from sftplug.types.processing import Dropped, Made, RowContext
    from sftplug.types.reasons import RowGroup, RowGroups
    from sftplug.types.recognition import Recognized
    from sftplug.types.result import MovedWeights, ParameterCounts, RunResult
    from sftplug.types.served_model import ServedModel
    from sftplug.types.tokens import PARTS, ROLE_CODES, LongRow, LossSums, TokenBatch
    from sftplug.types.trained_parameters import Horizon, TrainedParameter, TrainedParameters
    from sftplug.types.trained_tokens import TrainedTokens
    from sftplug.types.trainer import RunTrainer
    from sftplug.util.device import ComputeDtype, Device, this_device
    from sftplug.util.notebook import NotebookBar
    from sftplug.util.patterns import Pattern
    from sftplug.util.redact import without_secrets
    from sftplug.util.text import read_text, visible
else:  # else a type checker would take any name for one of this package
    _HOMES = {
        "pydantic": "Field",
        "sftplug.api.decoding": "decode",
        "sftplug.api.encoding": "Encoded encode",
        "sftplug.api.explaining": "Explanation explain",
        "sftplug.api.inspecting": "DataInspection inspect_data",
        "sftplug.api.catalogue": "recipes",
        "sftplug.api.listing": "runs",
        "sftplug.api.planning": "plan",
        "sftplug.api.plugins": "add_plugin search_plugins",
        "sftplug.api.previewing": "Preview preview",
        "sftplug.api.recipes": "check load",
        "sftplug.api.reporting": "report",
        "sftplug.api.pushing": "push",
        "sftplug.api.result": "TrainedRun open_run",
        "sftplug.api.rows": "prepare replay",
        "sftplug.api.runs": "train",
        "sftplug.data.prepare": "Prepared",
        "sftplug.errors": (
            "DataError Interrupted LaunchError MaskError MissingLibraryError ModelError PluginError "
            "Problem RecipeError RowError RunError SftplugError TemplateError TemplateStopped "
            "TrainingError did_you_mean"
        ),
        "sftplug.libraries.optimizer_state": "known_state_bytes",
        "sftplug.libraries.options": "LibrarySource set_options",
        "sftplug.libraries.package_index": "ListedPlugin",
        "sftplug.libraries.restoring": "restoring",
        "sftplug.libraries.versions": "require",
        "sftplug.model.parameters": "count_parameters",
        "sftplug.model.prompt": "encode_prompt render_prompt",
        "sftplug.model.structure": "ModelStructure structure_of",
        "sftplug.planning.answer": "PlanAnswer",
        "sftplug.plugin.components": (
            "Adapter Callback ChatTemplate DatasetFormat DatasetSource Deferred Exporter Head LengthPolicy Loss "
            "Masking Metric ModelBuilder ModelPatch Optimizer Policy PolicyCommand Quantization RecipeSection "
            "RowProcessor Schedule StreamProcessor"
        ),
        "sftplug.plugin.hookspecs": "hookimpl",
        "sftplug.recipe.in_words": "train_in_words",
        "sftplug.recipe.load": "LoadedRecipe",
        "sftplug.recipe.model": "Recipe",
        "sftplug.recipe.section": "InputPath ModelName",
        "sftplug.run.directory": "RunDirectory",
        "sftplug.types.conversation": "ROLES Conversation Message Reply Row RowTokens ToolCall",
        "sftplug.types.decoded": "Decoded",
        "sftplug.types.filling": "TextFiller",
        "sftplug.types.finished_model": "FinishedModel",
        "sftplug.types.served_model": "ServedModel",
        "sftplug.types.ledger": "Account Ledger Mixed Packing Processed",
        "sftplug.types.listed_run": "ListedRun RunList",
        "sftplug.types.moment": "MomentContext",
        "sftplug.types.output_layer": "OutputLayer",
        "sftplug.types.processing": "Dropped Made RowContext",
        "sftplug.types.reasons": "RowGroup RowGroups",
        "sftplug.types.recognition": "Recognized",
        "sftplug.types.result": "MovedWeights ParameterCounts RunResult",
        "sftplug.types.tokens": "PARTS ROLE_CODES LongRow LossSums TokenBatch",
        "sftplug.types.trained_parameters": "Horizon TrainedParameter TrainedParameters",
        "sftplug.types.trained_tokens": "TrainedTokens",
        "sftplug.types.trainer": "RunTrainer",
        "sftplug.util.device": "ComputeDtype Device this_device",
        "sftplug.util.notebook": "NotebookBar",
        "sftplug.util.patterns": "Pattern",
        "sftplug.util.redact": "without_secrets",
        "sftplug.util.text": "read_text visible",
    }
    _HOME = {name: module for module, names in _HOMES.items() for name in names.split()}

    def __getattr__(name):
        """Return a name, imported when it is first asked for; one that will be removed, with a warning."""
        if name in _HOME:
            from importlib import import_module

            return globals().setdefault(name, getattr(import_module(_HOME[name]), name))
        from sftplug.plugin.deprecation import old_name

        return old_name(__name__, name)

    def __dir__():
        """List the names that are imported when they are asked for, too."""
        return sorted({*globals(), *_HOME})


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
    "DataInspection",
    "DatasetFormat",
    "DatasetSource",
    "Decoded",
    "Deferred",
    "Device",
    "Dropped",
    "Encoded",
    "Explanation",
    "Exporter",
    "Field",
    "FinishedModel",
    "Head",
    "Horizon",
    "InputPath",
    "Interrupted",
    "LaunchError",
    "Ledger",
    "LengthPolicy",
    "LibrarySource",
    "ListedPlugin",
    "ListedRun",
    "LoadedRecipe",
    "LongRow",
    "Loss",
    "LossSums",
    "Made",
    "MaskError",
    "Masking",
    "Message",
    "Metric",
    "MissingLibraryError",
    "Mixed",
    "ModelBuilder",
    "ModelError",
    "ModelName",
    "ModelPatch",
    "ModelStructure",
    "MomentContext",
    "MovedWeights",
    "NotebookBar",
    "Optimizer",
    "OutputLayer",
    "Packing",
    "ParameterCounts",
    "Pattern",
    "PlanAnswer",
    "PluginError",
    "Policy",
    "PolicyCommand",
    "Prepared",
    "Preview",
    "Problem",
    "Processed",
    "Quantization",
    "Recipe",
    "RecipeError",
    "RecipeSection",
    "Recognized",
    "Reply",
    "Row",
    "RowContext",
    "RowError",
    "RowGroup",
    "RowGroups",
    "RowProcessor",
    "RowTokens",
    "RunDirectory",
    "RunError",
    "RunList",
    "RunResult",
    "RunTrainer",
    "Schedule",
    "ServedModel",
    "SftplugError",
    "StreamProcessor",
    "TemplateError",
    "TemplateStopped",
    "TextFiller",
    "TokenBatch",
    "ToolCall",
    "TrainedParameter",
    "TrainedParameters",
    "TrainedRun",
    "TrainedTokens",
    "TrainingError",
    "add_plugin",
    "check",
    "count_parameters",
    "decode",
    "did_you_mean",
    "encode",
    "encode_prompt",
    "explain",
    "hookimpl",
    "inspect_data",
    "known_state_bytes",
    "load",
    "open_run",
    "plan",
    "prepare",
    "preview",
    "push",
    "read_text",
    "recipes",
    "render_prompt",
    "replay",
    "report",
    "require",
    "restoring",
    "runs",
    "search_plugins",
    "set_options",
    "structure_of",
    "this_device",
    "train",
    "train_in_words",
    "visible",
    "without_secrets",
]
