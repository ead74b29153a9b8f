"""The pages of what was really run: tables from the records that the sweeps in ``benchmarks/`` write."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
STAGES = ("loads", "trains", "reloads")

ADAPTERS = """# Adapters

Every adapter type of the installed [PEFT](https://huggingface.co/docs/peft) is offered, under PEFT's own name, with
PEFT's own options; PEFT's `lora` is `peft_lora`, because `lora` is sftplug's. Types, options, defaults and descriptions
are read from PEFT's source, so a newer PEFT brings its new types along. `sftplug schema` and `sftplug plugins` know
them all.

```yaml
adapter: {type: vera, r: 128, target_modules: all-linear}
```

An option that PEFT does not have, or a value of another type, is an error at once. What PEFT itself refuses (a target
that matches no module, options that exclude each other) is said by `sftplug check`, on the model without weights.

`target_modules` left out means PEFT's list for the family of the model. For a family that PEFT has no list for, the
types marked under *all-linear* adapt all linear layers; the others must be told.

## What `lora` adapts

`targets: all-linear`, the default, is every linear layer of the language model and every expert. Left out are the
head, routers, and layers whose weight the model reads without calling them. The head takes no adapter of any type: the
loss multiplies by its weight and calls no layer; `modules_to_save: [lm_head]` trains it whole. `check`, `plan` and
`train` show what is done with each part of the model, and what it is held in:

```text
  part of the model   modules   in training        held in    of the weights
 ────────────────────────────────────────────────────────────────────────────
  attention           8         adapted, rank 16   nf4        11.9%
  experts             4         adapted, rank 16   bfloat16   23.9%
  router              2         frozen             bfloat16   0.2%
  embeddings          1         frozen             bfloat16   31.9%
  head                1         frozen             bfloat16   31.9%
  norms               9         frozen             bfloat16   0.2%
```

A name in `targets` or `modules_to_save` that reaches nothing, a pattern of `exclude` that matches nothing which could
be adapted, or leaves out nothing that `targets` names, and an option that changes nothing on the model at hand
(`bias: all` where it has no biases, `init` and `dropout` on embeddings alone) are refused with the reason. A pattern
takes along what is in a module that it matches: `*.self_attn` leaves out its four projections.

**Images, sound and text.** Of a model such as Gemma 3, rows of text run the language model alone. `full` trains that
and leaves vision tower and projector as they are; `lora` adapts it, whatever names `targets` has in common with the
tower; `freeze` and PEFT's own types are refused where they would train the rest, with the pattern that leaves it out.
Merged and whole models keep their towers, and the files of the processor of their base. Qwen2.5-VL, Qwen3-VL, LLaVA,
Llama 4 and others, which `AutoModelForImageTextToText` loads, are trained in the same way; of Llama 3.2 Vision the
layers that look at the image stay as they are too. Models with an encoder are refused.

**State spaces.** `out_proj` of Mamba 2, Bamba, Falcon-H1, Zamba2, Nemotron-H or Granite 4, and `x_proj` and `dt_proj`
of Mamba, are read as weights: named in `targets`, they are refused.

**Mixtures of experts.** The experts of a block are one tensor for each projection: `experts.gate_up_proj` and
`experts.down_proj` in Qwen3-MoE, Mixtral, DeepSeek-V3, gpt-oss, OLMoE, GLM-4-MoE and others. Such tensors are found by
looking at the model, not by its name, and PEFT adapts them as `target_parameters`.

* Each expert gets an update of rank `r`, with the scale of all others.
* The usual names work: `gate_proj` and `up_proj` together mean the tensor that holds both, `down_proj` its own; `w1`,
  `w3` and `w2` likewise; so does the tensor's own name. One half alone is refused. Two projections that are named have
  an update of rank `r` each, as with PEFT: `r: 16` and the usual names give `gate_up_proj` rank 32, which is said.
* Dense layers and shared experts of the same names are adapted beside the experts. (PEFT 0.21 forgets them in these
  families; on a quantized base it cannot be told otherwise, and `without adapter` counts them.)
* The router is left alone unless `targets` names it (`gate`, `router`), and so is the gate of a shared expert. With
  PEFT's own types, such as `peft_lora`, PEFT chooses; that it trains a router is said.
* `exclude: ["*.experts"]` leaves the experts out; a pattern may also name one of their tensors, or the router.
* `dropout`, `dora` and `init: pissa | olora | orthogonal` need a layer, and are refused with experts.
* Under `qlora` the experts stay in 16 bits, which is nearly all of such a model. `check`, `plan` and `train` say how
  many bytes that is. transformers 5.23 quantizes linear layers alone. bitsandbytes 0.50 can quantize such a tensor once
  it is there (`bitsandbytes.nn.parametrize`), and the logits are those of the rounded weights; but PEFT 0.21 then finds
  nothing of its name to adapt, and where its update was there before, adds it once more in each forward pass and
  leaves it out of a merge. A test holds this against the installed libraries.

Loaded with plain PEFT, an adapter of the usual names makes PEFT warn that the `rank_pattern` keys of `gate_up_proj`
"did not match any targeted module and were ignored": it looks among modules only, and does use them.

## What was run

`python benchmarks/adapters.py` runs every type through `sftplug train`'s own code on a small Llama: load, train 30
steps (the loss on one batch must fall by 2 %), save, reload in the same numbers (equal logits), and in fp32 merge
(equal logits). `--resume` trains 8 steps, and goes on once more from a checkpoint halfway with everything made again:
losses, gradient norms and saved weights must be the same, bit for bit, on every base on which the type trains.
`sftplug check` refuses what failed for a reason that lies in the type, with that reason, for the version of PEFT that
was measured and for no other. It does not refuse what depends on the machine, on a missing package, on tied embeddings
or on the learning rate. `adamss` was run with scikit-learn 1.9.1, which it needs.
"""

RATES = """
## Rates

What each type trains with where the recipe says no `train.learning_rate`, with Adam, decaying linearly after a warmup
over 3 % of the updates. The fewer numbers a type trains, the further each of them has to go. "PEFT's comparison" is
`method_comparison/MetaMathQA` in PEFT's repository (Llama-3.2-3B, 5000 steps of 4 rows), as of August 2026.
"""

ADAPTER_NOTES = """
## What trains otherwise than its paper says

* `adalora`: ranks are shared out anew after each update, by PEFT's `update_and_allocate` (so too with any adapter type
  that has this method: `adamss` with `use_asa`); `total_step` must be the run's number of steps. What has been seen of
  the gradients is kept in each checkpoint. Where a module is left with no rank at all, PEFT warns when it saves. The
  orthogonality loss is not added, for TRL computes the loss from log-probabilities.
* `shadow`: its auxiliary loss is not added for the same reason, and the parameters that only that loss trains get no
  gradient, which stops the run.
* `poly` and `multitask_prompt_tuning` need a task id with every row.
* `peft_lora` with `init_lora_weights: eva`, `corda` or `lora_ga` needs a pass over data that PEFT leaves to the caller.
  `loftq` needs a GPU.
* `osf` trains the base weights themselves, within a subspace.
"""

QUANTIZATIONS = """# Quantizations

Every quantization method of the installed [transformers](https://huggingface.co/docs/transformers) is offered, under
transformers' own name, with the options of its configuration class, and `compute_dtype` for what is not quantized.
Methods, options, defaults and descriptions are read from transformers' source, so a newer one brings its new methods.

```yaml
quantization: {type: quanto, weights: int4}
quantization: {torchao: Int8WeightOnlyConfig}                   # a configuration of torchao, bare or with options:
quantization: {torchao: {quant_type: {Int8WeightOnlyConfig: {group_size: 32}}}}
```

sftplug's own `nf4`, `fp4` and `int8` are bitsandbytes with one thing fixed (training after an evaluation on some
CPUs), and are to be preferred to `bitsandbytes_4bit` and `bitsandbytes_8bit`.

A method that reads only *checkpoints that were quantized with it before* cannot quantize while loading; `sftplug check`
says so where the model is a folder or is built on the spot, and refuses methods on which transformers trains nothing.

## What was run

`python benchmarks/quantizations.py` trains LoRA on each through `sftplug train`'s own code, on a CPU: load, train 30
steps (the loss on one batch must fall by 2 %), save, reload (equal logits), merge. The number under *merges* is by how
much the logits of the merged model differ, relative to the largest: rounding to few bits cannot be exact, but above 0.2
the merge is of no use. A reason that begins with `transformers` and its version is sftplug's own refusal, read from
transformers' source: the method was not tried. quanto compiles a kernel for `int4` and `int2`, which did not end in
time on this machine.
"""


def adapters_page() -> str:
    """Return the page of adapter types."""
    record = _record("sftplug_peft")
    types: Mapping[str, Any] = record["types"]
    notes: dict[str, int] = {}
    rows = [_adapter_row(name, entry, notes) for name, entry in types.items()]
    bases = ("fp32", "bf16", "nf4", "int8")
    runs = [entry["bases"] for entry in types.values()]
    counts = {
        "types": len(types),
        "trained and reloaded on some base": _count(any(map(_works, run.values())) for run in runs),
        **{f"… on {base}": _count(_works(run[base]) for run in runs) for base in bases},
        "merged in fp32": _count(run["fp32"].get("merges") for run in runs),
        "resumed from a checkpoint, bit for bit, on every base on which they train": _count(
            map(_resumes_everywhere, types.values())
        ),
    }
    head = ["type", *bases, "merges", "resumes", "all-linear", "options of the run"]
    table = [*_table(head, rows), *_reasons(notes), *_variants(types)]
    parts = [ADAPTERS, _ran(record), *_counts(counts), *table, *_rates(), ADAPTER_NOTES]
    return "\n".join(parts)


def _rates() -> list[str]:
    """Return the section on learning rates: a row a family."""
    from sftplug_peft.rates import FAMILIES, LIKE_LORA

    rest = ["all others: matrices beside a frozen base", f"{LIKE_LORA:g}", "every other type", "as `lora`"]
    rows = [
        [family.what, f"{family.rate:g}", ", ".join(f"`{name}`" for name in sorted(family.types)), family.source]
        for family in FAMILIES
    ]
    return [RATES, *_table(["what is trained", "rate", "types", "source"], [*rows, rest])]


def _adapter_row(name: str, entry: Mapping[str, Any], notes: dict[str, int]) -> list[str]:
    runs = entry["bases"]
    options = _options(entry)
    return [
        f"`{name}`",
        *(_cell(runs[base], notes) for base in ("fp32", "bf16", "nf4", "int8")),
        _merge_cell(runs["fp32"], notes),
        _resume_cell(runs, notes),
        "yes" if entry.get("all_linear") else "",
        f"`{options}`" if options else "",
    ]


def _merge_cell(run: Mapping[str, Any], notes: dict[str, int]) -> str:
    if "merges" not in run:
        return ""
    return "yes" if run["merges"] else f"no {_note(run, notes)}"


def _resume_cell(runs: Mapping[str, Any], notes: dict[str, int]) -> str:
    """Return whether a run that went on was the same, bit for bit, on every base on which the type trains."""
    tried = {base: run for base, run in runs.items() if "resumes" in run}
    refused = {base: {"reason": run["resume_reason"]} for base, run in tried.items() if not run["resumes"]}
    if refused:
        return ", ".join(f"{base}: no {_note(run, notes)}" for base, run in refused.items())
    return "identical" if tried else ""


def _resumes_everywhere(entry: Mapping[str, Any]) -> bool:
    told = [run.get("resumes") for run in entry["bases"].values() if run.get("trains")]
    return bool(told) and all(told)


def _variants(types: Mapping[str, Any]) -> list[str]:
    """Return what became of options that make state of another kind."""
    rows = [
        [
            f"`{name}`",
            f"`{_options(variant)}`",
            "identical" if variant["resumes"] else f"no: {variant['resume_reason']}",
        ]
        for name, entry in types.items()
        for variant in entry.get("variants", [])
    ]
    said = "Options that make state of another kind, on fp32, and whether a run went on as it would have:\n"
    return [said, *_table(["type", "options", "resumes"], rows)] if rows else []


def _options(entry: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}: {value}" for key, value in entry["options"].items())


def quantizations_page() -> str:
    """Return the page of quantization methods."""
    record = _record("sftplug_transformers")
    notes: dict[str, int] = {}
    types: Mapping[str, Any] = record["types"]
    rows = [_quantization_row(name, run, notes) for name, entry in types.items() for run in entry["runs"]]
    done = [entry["runs"] for entry in types.values()]
    counts = {
        "methods": len(types),
        **{
            f"… of which some sort {stage}": _count(any(r.get(stage) for r in runs) for runs in done)
            for stage in STAGES
        },
    }
    head = ["method", "options", *STAGES, "merges", ""]
    return "\n".join([QUANTIZATIONS, _ran(record), *_counts(counts), *_table(head, rows), *_reasons(notes)])


def _quantization_row(name: str, run: Mapping[str, Any], notes: dict[str, int]) -> list[str]:
    options = ", ".join(f"{key}: {value}" for key, value in run["options"].items() if key != "dataset")
    difference = run.get("merges_difference")
    failed = next((stage for stage in STAGES if run.get(stage) is False), None)
    return [
        f"`{name}`",
        f"`{options}`" if options else "",
        *({True: "yes", False: "no"}.get(run.get(stage), "") for stage in STAGES),
        "" if difference is None else f"{difference:.1g}",
        _note(run, notes) if failed or (run.get("merges") is False and difference is None) else "",
    ]


# --- parts ------------------------------------------------------------------------------------------------------------


def _record(plugin: str) -> dict[str, Any]:
    return json.loads((ROOT / "plugins" / plugin / "facts.json").read_text(encoding="utf-8"))


def _ran(record: Mapping[str, Any]) -> str:
    libraries = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    return f"Run on {record['date']} ({record['machine']}) with {libraries}.\n"


def _works(run: Mapping[str, Any]) -> bool:
    return all(run.get(stage) for stage in STAGES)


def _count(items: Iterable[Any]) -> int:
    return sum(map(bool, items))


def _cell(run: Mapping[str, Any], notes: dict[str, int]) -> str:
    failed = next((stage for stage in STAGES if run.get(stage) is False), None)
    says = {"loads": "does not load", "trains": "does not train", "reloads": "does not reload"}
    return f"{says[failed]} {_note(run, notes)}" if failed else "yes"


def _note(run: Mapping[str, Any], notes: dict[str, int]) -> str:
    reason = run["reason"] + (" \\*" if run.get("depends") else "")
    return f"({notes.setdefault(reason, len(notes) + 1)})"


def _table(head: list[str], rows: Iterable[list[str]]) -> list[str]:
    lines = [head, ["---"] * len(head), *rows]
    return [*(f"| {' | '.join(line)} |" for line in lines), ""]


def _counts(counts: Mapping[str, int]) -> list[str]:
    return _table(["", "number"], ([what, str(number)] for what, number in counts.items()))


def _counts(counts: Mapping[str, int]) -> list[str]:
    return _table(["", "number"], ([what, str(number)] for what, number in counts.items()))


def _reasons(notes: Mapping[str, int]) -> list[str]:
    lines = [f"{number}. {reason.replace('<', '&lt;')}" for reason, number in notes.items()]
    head = "The reasons, in the libraries' words; what depends on the machine, on packages or on options ends in \\*:"
    return [head, "", *lines, ""]
