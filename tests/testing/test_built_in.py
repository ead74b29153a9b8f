"""Every component that a plugin's author wrote keeps the laws of its kind.

Those that are read from a library (`offer.library`) keep the laws of every component; which of them can be trained,
their tables say.
"""

import json

import pytest
import torch
from conftest import write_rows

from sftplug import (
    Adapter,
    Callback,
    ChatTemplate,
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
from sftplug.plugin.manager import load_plugins
from sftplug.plugin.registry import build_registry
from sftplug.testing import (
    check_adapter,
    check_callback,
    check_component,
    check_exporter,
    check_format,
    check_head,
    check_length_policy,
    check_loss,
    check_masking,
    check_metric,
    check_model_patch,
    check_optimizer,
    check_policy,
    check_quantization,
    check_recipe_section,
    check_row_processor,
    check_schedule,
    check_source,
    check_template,
)

CALL = {"type": "function", "function": {"name": "look", "arguments": {"at": "sky"}}}
TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}
MESSAGES = [
    {"role": "user", "content": [{"type": "text", "text": "One?", "weight": 0.5}], "train": False},
    {"role": "assistant", "content": None, "tool_calls": [CALL], "reasoning_content": "Look."},
    {"role": "tool", "content": "blue", "tool_call_id": "1", "name": "look"},
    {"role": "assistant", "content": "Blue.", "weight": 2},
]
TURNS = [
    {"from": "human", "value": "One?"},
    {"from": "function_call", "value": json.dumps({"name": "look", "arguments": {"at": "sky"}})},
    {"from": "observation", "value": "blue"},
    {"from": "gpt", "value": "Blue."},
]
ROWS = {
    "text": [{"text": "Once."}],
    "prompt_completion": [
        {"prompt": "1+1=", "completion": "2"},
        {"prompt": MESSAGES[:1], "completion": MESSAGES[1:], "tools": [TOOL]},
    ],
    "messages": [{"messages": MESSAGES, "tools": [TOOL]}, {"messages": json.dumps(MESSAGES), "tools": "[]"}],
    "alpaca": [{"instruction": "Add.", "input": "1 2", "output": "3", "system": "Brief.", "history": [["Hi", "Ho"]]}],
    "alternating": [{"conversations": ["One?", "Two."], "system": "Brief.", "tools": [TOOL]}],
    "transcript": [
        {"text": "USER: One?\n\nASSISTANT: Two. <|endoftext|>", "system": "SYSTEM: Brief.", "tools": [TOOL]}
    ],
    "sharegpt": [{"conversations": TURNS, "system": "Brief.", "tools": json.dumps([TOOL])}],
    "segments": [{"segments": [{"text": "One? ", "label": False}, {"text": "Two.", "label": True}]}],
    "tokenized": [
        {"input_ids": [5, 6, 0], "labels": [-100, 6, -100], "attention_mask": [1, 1, 0]},
        {"input_ids": [5, 6], "loss_mask": [0, 1]},
    ],
    "columns": [{"english": "sky", "german": "Himmel"}],
}
"""Format -> rows that fit it, with everything in them that it reads."""
ASKED = [
    {"question": f"{name}?", "answer": ["Yes.", f"{name}."], "score": n, "least": 0}
    for n, name in enumerate("abcdefgh")
]
TREE = [
    {"message_id": "a", "parent_id": None, "role": "prompter", "text": "One?", "rank": None},
    {"message_id": "b", "parent_id": "a", "role": "assistant", "text": "Two.", "rank": 0},
]
PROCESSED = {
    "decontaminate": {"columns": ("question",)},
    "dedupe": {"near": 0.8},
    "filter": {"column": "score", "at_least": 2, "drop": (3, "x")},
    "message_trees": {"paths": "all"},
    "rename": {"columns": {"question": "answer", "answer": "question"}},
    "replace": {"texts": {"Yes": "No"}},
    "sample": {"n": 3},
    "score_margin": {"chosen": "score", "rejected": "least", "column": "margin", "full": 2},
}
"""Row processor -> options with which it makes something of `ASKED`, or of `TREE`."""
OPTIONS = {
    "vllm": {"merged": True},  # of the laws' base, which is built, it serves no adapter
    "distill": {"teacher": "org/large"},
    "forbid": {"commands": ["push"], "because": "Ask the office."},
    "columns": {"user": "Translate: {english}", "assistant": "german"},
    "roles": {"roles": ["user", "tool", "assistant"]},
    "regex": {"pattern": "[0-9]+"},
    "freeze": {"train": ["*.self_attn.*"]},
    "random": {"config": {"model_type": "llama", "hidden_size": 64}},
    "samples": {"prompts": ["One?"], "every": "2 steps", "max_new_tokens": 2},
}
"""Component -> the options that it cannot do without."""
LIBRARY_OPTIONS = {
    "gptq": {"bits": 4},
    "torchao": {"quant_type": "Int8WeightOnlyConfig"},
    "peft_lora": {"r": 4},
    "warmup_stable_decay": {"num_decay_steps": 3},
}
has_muon = pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="torch has Muon from 2.9 on")
OFFERS = [
    pytest.param(kind, name, offer.component, id=f"{kind.__name__}-{name}", marks=[has_muon] * (name == "muon"))
    for kind, offers in build_registry(load_plugins()).offers.items()
    for name, offer in offers.items()
    if offer.library is None
]


def files(folder):
    write_rows(folder / "rows.jsonl", [{"text": "one"}, {"text": "two"}])
    (folder / "own.jinja").write_text(
        "{% for m in messages %}{{ m.role }}: {{ m.content }}{{ eos_token }}\n{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}"
    )
    return {
        (DatasetSource, "file"): {"path": str(folder / "rows.jsonl")},
        (DatasetSource, "hub"): {"hub": str(folder)},
        (ChatTemplate, "file"): {"path": str(folder / "own.jinja")},
    }


@pytest.mark.parametrize(("kind", "name", "component"), OFFERS)
def test_it_keeps_the_laws_of_its_kind(kind, name, component, tmp_path):
    options = {**OPTIONS.get(name, {}), **files(tmp_path).get((kind, name), {})}
    if kind is DatasetFormat:
        check_format(component, ROWS[name], **options)
    elif kind is RowProcessor:
        rows = TREE if name == "message_trees" else ASKED
        check_row_processor(component, rows, rows[:2], **PROCESSED[name])
    elif kind is ChatTemplate:
        check_template(component, with_template() if name == "tokenizer" else None, **options)
    else:
        CHECKS[kind](component, **options)


READ = [
    (kind, name, offer)
    for kind, offers in build_registry(load_plugins()).offers.items()
    for name, offer in offers.items()
    if offer.library is not None
]


def test_what_is_read_from_a_library_keeps_the_laws_of_every_component():
    assert {kind for kind, _, _ in READ} == {Adapter, Optimizer, Quantization, Schedule}
    assert len(READ) > 60
    for _, name, offer in READ:
        check_component(offer.component, **LIBRARY_OPTIONS.get(name, {}))


def with_template():
    from sftplug.testing.templates import tiny_tokenizer

    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    return tokenizer


CHECKS = {
    Adapter: check_adapter,
    Callback: check_callback,
    DatasetSource: check_source,
    LengthPolicy: check_length_policy,
    Exporter: check_exporter,
    Head: check_head,
    Loss: check_loss,
    Masking: check_masking,
    Metric: check_metric,
    ModelBuilder: check_component,
    ModelPatch: check_model_patch,
    Optimizer: check_optimizer,
    Policy: check_policy,
    Quantization: check_quantization,
    RecipeSection: check_recipe_section,
    Schedule: check_schedule,
}
