"""The one way into a component: what a method returns is checked, secrets are left out, and who is wrong is named.

Nothing else in sftplug calls a method of a component, and the laws of `sftplug.testing` do so here too: what a run
refuses, a plugin's own tests refuse in the same words. What rows themselves must be is checked by `sftplug.data`.
"""

from sftplug.plugin.calls.check import component_problems
from sftplug.plugin.calls.loss import is_nll, token_losses
from sftplug.plugin.calls.model import (
    OWNED_LOAD_KWARGS,
    adaptable,
    build_model,
    bytes_per_parameter,
    dequantized,
    for_device,
    load_kwargs,
    loading_code,
    merge_problems,
    mergeable,
    merged,
    model_problems,
    peft_config,
    prepare_model,
    quantization_for,
    quantized_names,
    train_defaults,
    weight_bytes,
)
from sftplug.plugin.calls.process import MOST_HELD, Outcome, outcomes, processor_fingerprint, row_columns
from sftplug.plugin.calls.rows import (
    conversation_of,
    fingerprint,
    is_remote,
    label,
    loss_weights,
    rows_of,
    shortened,
    stamp,
    template_source,
    trains,
)
from sftplug.plugin.calls.watching import loss_metrics, metric_label, metric_scores, train_options, trainer_callback

__all__ = [
    "MOST_HELD",
    "OWNED_LOAD_KWARGS",
    "Outcome",
    "adaptable",
    "build_model",
    "bytes_per_parameter",
    "component_problems",
    "conversation_of",
    "dequantized",
    "fingerprint",
    "for_device",
    "is_nll",
    "is_remote",
    "label",
    "load_kwargs",
    "loading_code",
    "loss_metrics",
    "loss_weights",
    "merge_problems",
    "mergeable",
    "merged",
    "metric_label",
    "metric_scores",
    "model_problems",
    "outcomes",
    "peft_config",
    "prepare_model",
    "processor_fingerprint",
    "quantization_for",
    "quantized_names",
    "row_columns",
    "rows_of",
    "shortened",
    "stamp",
    "template_source",
    "token_losses",
    "train_defaults",
    "train_options",
    "trainer_callback",
    "trains",
    "weight_bytes",
]
