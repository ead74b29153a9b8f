"""Really load and train on every quantization of sftplug and of the installed transformers, on a CPU.

python benchmarks/quantizations.py [METHOD …]       # all methods without names; a few minutes on two cores

Each method is run with LoRA, a small model, and the packages that are installed; where one is missing, the reason says
so. Writes ``plugins/sftplug_transformers/facts.json``, which the component's check and docs/quantizations.md read.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sweep import built_in, run_all, try_out, versions, work, write_record

import sftplug

FACTS = Path(__file__).parents[1] / "plugins" / "sftplug_transformers" / "facts.json"
LIBRARIES = ("transformers", "torch", "peft", "trl", "bitsandbytes", "torchao", "optimum-quanto", "hqq", "sinq")
MODEL = {"build": {"type": "tiny", "pretrain_steps": 100, "layers": 2, "hidden_size": 128}}

OPTIONS: dict[str, list[dict[str, Any]]] = {
    "gptq": [{"bits": 4, "dataset": ["The capital of Egypt is Cairo."] * 8}],
    "hqq": [{"nbits": bits} for bits in (8, 4, 2)],
    "quanto": [{"weights": weights} for weights in ("int8", "int4", "int2", "float8")],
    "torchao": [
        {"quant_type": name}
        for name in (
            "Int8WeightOnlyConfig",
            "Int8DynamicActivationInt8WeightConfig",
            "Float8WeightOnlyConfig",
            "Int4WeightOnlyConfig",
            "IntxWeightOnlyConfig",
        )
    ],
}
"""Options of the runs, where a method has several sorts of weights or demands an option."""


def jobs(names: list[str]) -> Iterator[dict[str, Any]]:
    """Yield a job for each method and set of options."""
    for name in built_in(sftplug.Quantization, names):
        for options in OPTIONS.get(name, [{}]):
            yield {"type": name, "options": options}


def run(job: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Run one job."""
    sections = {
        "model": MODEL,
        "adapter": "lora",
        "quantization": {"type": job["type"], **job["options"]},
        "train": {"learning_rate": 1e-2},
    }
    return try_out(sections, folder)


def main() -> None:
    """Run what is asked for, and write the record."""
    parser = argparse.ArgumentParser()
    parser.add_argument("methods", nargs="*")
    parser.add_argument("--worker", action="store_true")
    arguments = parser.parse_args()
    if arguments.worker:
        work(run)
        return
    known = json.loads(FACTS.read_text())["types"] if arguments.methods and FACTS.is_file() else {}
    FACTS.unlink(missing_ok=True)  # what it says must not refuse what is measured again
    fresh: dict[str, Any] = {}
    for job, answer in run_all(__file__, jobs(arguments.methods)):
        print(job["type"], job["options"], json.dumps(answer), flush=True)
        fresh.setdefault(job["type"], {"runs": []})["runs"].append({"options": job["options"], **answer})
    write_record(FACTS, versions=versions(*LIBRARIES), types=dict(sorted({**known, **fresh}.items())))


if __name__ == "__main__":
    sys.exit(main())
