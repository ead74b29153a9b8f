"""Really run every adapter type of sftplug and of the installed PEFT on a CPU, on each base that matters.

python benchmarks/adapters.py [TYPE …]             # all types without names; about ten minutes on two cores
python benchmarks/adapters.py --resume [TYPE …]    # only whether a run resumes from a checkpoint, bit for bit

Writes ``plugins/sftplug_peft/facts.json``, which the component's check and docs/adapters.md read.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sweep import RESUMED_STEPS, built_in, run_all, try_out, try_to_resume, versions, work, write_record

import sftplug

FACTS = Path(__file__).parents[1] / "plugins" / "sftplug_peft" / "facts.json"
BASES = ("fp32", "bf16", "nf4", "int8")
LIBRARIES = ("peft", "torch", "transformers", "trl", "bitsandbytes")
RATES = (1e-2, 1e-1, 1.0)
"""Learning rates, tried in order until the loss falls: prompts and scales need far more than matrices."""

OPTIONS: dict[str, dict[str, Any]] = {
    "freeze": {"train": ["model.layers.1.*"]},
    # What PEFT demands.
    "adalora": {"total_step": 30},
    "adaption_prompt": {"adapter_len": 4, "adapter_layers": 2},
    "cartridge": {"num_virtual_tokens": 4},
    "cpt": {"cpt_token_ids": [5, 6, 7, 8], "cpt_mask": [1, 1, 1, 1], "cpt_tokens_type_mask": [1, 2, 3, 4]},
    "multitask_prompt_tuning": {"num_virtual_tokens": 4, "num_tasks": 1},
    "p_tuning": {"num_virtual_tokens": 4, "encoder_hidden_size": 16},
    "prefix_tuning": {"num_virtual_tokens": 4},
    "prompt_tuning": {"num_virtual_tokens": 4},
    "trainable_tokens": {"token_indices": [2, 3, 40, 41, 42]},
    "xlora": {"hidden_size": 64, "adapters": {}},
    # Defaults made for larger models than one that is 64 wide.
    "c3a": {"block_size": 32},
    "fourierft": {"n_frequency": 200},
    "vblora": {"vector_length": 32, "num_vectors": 32},
    "waveft": {"n_frequency": 200},
}
"""Options of a run, where a type does not run on the small model without."""
VARIANTS: dict[str, list[dict[str, Any]]] = {
    "adamss": [{"use_asa": True, "init_warmup": 1, "final_warmup": 6, "mask_interval": 1, "asa_target_subspaces": 2}],
    "fourierft": [{"random_loc_seed": 1}],
    "p_tuning": [{"encoder_reparameterization_type": "LSTM"}],
    "peft_lora": [
        {"init_lora_weights": "pissa"},
        {"init_lora_weights": "pissa_niter_4"},
        {"init_lora_weights": "olora"},
        {"init_lora_weights": "orthogonal"},
        {"use_dora": True},
        {"modules_to_save": ["lm_head", "embed_tokens"]},
        {"trainable_token_indices": [2, 3, 40, 41]},
        {"bias": "all"},
        {"lora_dropout": 0.1},
    ],
    "prefix_tuning": [{"prefix_projection": True, "encoder_hidden_size": 16}],
    "randlora": [{"save_projection": False}],
    "vera": [{"save_projection": False}],
}
"""Options that make state of another kind: each is resumed too, on fp32."""
_EARLY = {"tinit": 1, "tfinal": 2, "deltaT": 1}
"""Ranks are shared out from the second step on, so that a checkpoint halfway holds what that needs."""


def jobs(names: list[str]) -> Iterator[dict[str, Any]]:
    """Yield a job for each type and base, and one more for each type that can be told to adapt all linear layers."""
    for name, component in built_in(sftplug.Adapter, names).items():
        for base in BASES:
            yield {"type": name, "base": base, "options": OPTIONS.get(name, {})}
        if "target_modules" in component.model_fields:
            options = {**OPTIONS.get(name, {}), "target_modules": "all-linear"}
            yield {"type": name, "base": "fp32", "options": options, "all_linear": True}


def run(job: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Run one job, at the first learning rate with which the loss falls."""
    if job.get("resume"):
        options = {**job["options"], **({"total_step": RESUMED_STEPS, **_EARLY} if job["type"] == "adalora" else {})}
        sections = {"adapter": {"type": job["type"], **options}, "quantization": job["base"]}
        return try_to_resume({**sections, "train": {"learning_rate": RATES[0]}}, folder)
    answer: dict[str, Any] = {}
    for rate in RATES:
        sections = {
            "adapter": {"type": job["type"], **job["options"]},
            "quantization": job["base"],
            "train": {"learning_rate": rate},
        }
        # Merged weights are rounded to the numbers of the base: only in fp32 can they be equal.
        answer = {**try_out(sections, folder, merge=job["base"] == "fp32"), "learning_rate": rate}
        if answer.get("trains") or not answer.get("loads"):
            break
    return answer


def main() -> None:
    """Run what is asked for, and write the record."""
    parser = argparse.ArgumentParser()
    parser.add_argument("types", nargs="*")
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--worker", action="store_true")
    arguments = parser.parse_args()
    if arguments.worker:
        work(run)
        return
    if arguments.resume:
        resume(arguments.types)
        return
    known = json.loads(FACTS.read_text())["types"] if arguments.types and FACTS.is_file() else {}
    FACTS.unlink(missing_ok=True)  # what it says must not refuse what is measured again
    for job, answer in run_all(__file__, jobs(arguments.types)):
        print(job["type"], job["base"], job.get("all_linear", ""), json.dumps(answer), flush=True)
        entry = known.setdefault(job["type"], {})
        if job["base"] == BASES[0] and not job.get("all_linear"):
            entry.clear()
            entry.update(options=job["options"], bases={})
        if job.get("all_linear"):
            entry["all_linear"] = bool(answer.get("reloads")) and _linear(entry["bases"][BASES[0]])
        else:
            entry["bases"][job["base"]] = answer
    write_record(FACTS, versions=versions(*LIBRARIES), types=dict(sorted(known.items())))


def resume(names: list[str]) -> None:
    """Let every type that trains on a base resume from a checkpoint there; what else is known of it stays."""
    written = FACTS.read_text()
    known = json.loads(written)
    wanted = [
        {"type": name, "base": base, "options": OPTIONS.get(name, {}), "resume": True}
        for name, entry in known["types"].items()
        for base, measured in entry["bases"].items()
        if measured.get("trains") and (not names or name in names)
    ]
    wanted += [
        {
            "type": name,
            "base": BASES[0],
            "options": {**OPTIONS.get(name, {}), **options},
            "resume": True,
            "variant": options,
        }
        for name, variants in VARIANTS.items()
        for options in variants
        if not names or name in names
    ]
    FACTS.unlink()  # what it says must not refuse what is measured again
    try:
        for job, answer in run_all(__file__, wanted):
            print(job["type"], job["base"], job.get("variant", ""), json.dumps(answer), flush=True)
            entry = known["types"][job["type"]]
            _note_resumed(_variant(entry, job["variant"]) if "variant" in job else entry["bases"][job["base"]], answer)
        written = json.dumps({**known, "resumed": versions(*LIBRARIES)}, indent=1, ensure_ascii=False) + "\n"
    finally:
        FACTS.write_text(written)


def _variant(entry: dict[str, Any], options: dict[str, Any]) -> dict[str, Any]:
    """Return the record of a type with other options, emptied."""
    others = [variant for variant in entry.get("variants", []) if variant["options"] != options]
    entry["variants"] = [*others, {"options": options}]
    return entry["variants"][-1]


def _note_resumed(run: dict[str, Any], answer: dict[str, Any]) -> None:
    run.pop("resume_reason", None)
    run["resumes"] = answer.get("resumes", False)
    if not run["resumes"]:
        run["resume_reason"] = answer["reason"]


LINEAR = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
"""The linear layers of the model that is built for the sweep."""


def _linear(run: dict[str, Any]) -> bool:
    """Whether the type, left alone, adapts linear layers."""
    return bool(LINEAR & set(run.get("targets", [])))


if __name__ == "__main__":
    sys.exit(main())
