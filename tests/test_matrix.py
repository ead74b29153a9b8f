"""Really train every combination that is offered, save it, and load it in a process that knows no sftplug."""

import json
import subprocess
import sys

import pytest
import torch
from conftest import TINY

LOADER = """
import json, sys, torch
from peft import AutoPeftModelForCausalLM
from transformers import AutoModelForCausalLM, AutoTokenizer
assert "sftplug" not in sys.modules
for folder, kwargs in json.loads(sys.argv[1]):
    if "quantization" in kwargs:
        from transformers import BitsAndBytesConfig
        options = kwargs.pop("quantization")
        if "bnb_4bit_compute_dtype" in options:
            options["bnb_4bit_compute_dtype"] = getattr(torch, options["bnb_4bit_compute_dtype"])
        kwargs["quantization_config"] = BitsAndBytesConfig(**options)
    kwargs["dtype"] = getattr(torch, kwargs["dtype"])
    kind = AutoModelForCausalLM if kwargs.pop("full", False) else AutoPeftModelForCausalLM
    model = kind.from_pretrained(folder, **kwargs).eval()
    for module in model.modules():
        # The inference-only kernel of some CPUs rounds otherwise than the one that training used.
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    with torch.no_grad():
        logits = model(torch.arange(5, 25)[None]).logits.float()
    torch.save(logits, folder + "/reloaded.pt")
    AutoTokenizer.from_pretrained(folder).apply_chat_template([{"role": "user", "content": "x"}], tokenize=False)
"""
NF4 = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True}
RELOAD = {
    "fp32": {"dtype": "float32"},
    "bf16": {"dtype": "bfloat16"},
    "int8": {"dtype": "bfloat16", "quantization": {"load_in_8bit": True}},
    "nf4": {"dtype": "bfloat16", "quantization": {**NF4, "bnb_4bit_compute_dtype": "bfloat16"}},
}
CASES = [
    *(
        (quantization, "lora", checkpointing)
        for quantization in ("bf16", "int8", "nf4")
        for checkpointing in (False, True)
    ),
    ("nf4", "qlora", False),
    ("fp32", "full", False),
]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Train every case; return case -> (result, logits of the model in memory)."""
    import yaml
    from conftest import rows, write_rows

    import sftplug
    from sftplug.training import train as training

    folder = tmp_path_factory.mktemp("matrix")
    write_rows(folder / "rows.jsonl", rows())
    results = {}
    for quantization, adapter, checkpointing in CASES:
        name = f"{quantization}-{adapter}-{checkpointing}"
        recipe = {
            "model": {"build": TINY},
            "data": {"train": {"path": "rows.jsonl", "format": "messages"}},
            "chat_template": "chatml",
            "quantization": quantization,
            "adapter": adapter,
            "train": {
                "max_steps": 12,
                "per_device_train_batch_size": 8,
                "learning_rate": 1e-2,
                "logging_steps": 1,
                "gradient_checkpointing": checkpointing,
                "save_strategy": "no",
            },
            "output": str(folder / name),
        }
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(recipe))
        kept = {}
        original = training.save
        training.save = lambda trainer, prepared, folder, kept=kept, original=original: (
            kept.update(model=trainer.model),
            original(trainer, prepared, folder),
        )
        try:
            result = sftplug.train(folder / f"{name}.yaml", show=False)
        finally:
            training.save = original
        model = kept["model"].eval()
        with torch.no_grad():
            results[quantization, adapter, checkpointing] = result, model(torch.arange(5, 25)[None]).logits.float()
    cases = [
        (str(result.output), {**RELOAD[case[0]], **({"full": True} if case[1] == "full" else {})})
        for case, (result, _) in results.items()
    ]
    subprocess.run([sys.executable, "-W", "ignore", "-c", LOADER, json.dumps(cases)], check=True, cwd=folder)
    return results


@pytest.mark.parametrize("case", CASES, ids=str)
def test_loss_falls_and_a_fresh_process_gets_the_same_logits(trained, case):
    result, logits = trained[case]
    losses = [entry["loss"] for entry in result.log if "loss" in entry]
    assert len(losses) == 12
    assert losses[-1] < 0.9 * losses[0]
    reloaded = torch.load(result.output / "reloaded.pt")
    difference = float((reloaded - logits).abs().max())
    assert difference <= 1e-5 * max(1.0, float(logits.abs().max()))
    assert (result.size.trainable == result.size.total) == (case[1] == "full")
