"""What errors about the model's folder and its modules offer, on tiny models of the families that they are about."""

import shutil

import twins

from ways_out.cases import (
    Case,
    Edit,
    at,
    both,
    leave_out,
    put,
    run_first,
    with_option,
)

HELD_OUT = {"messages": [{"role": "user", "content": "Hello?"}, {"role": "assistant", "content": "Hi."}]}


def twin(name: str, folder: str = "model") -> Edit:
    """Let the recipe name a tiny model of a family; it is written once a session."""

    def change(situation, sentence):
        kept = situation.folder.parent / f"twin-{name}"
        if not kept.exists():
            twins.write_twin(name, kept)
        shutil.copytree(kept, situation.folder / folder)
        situation.recipe["model"] = {"name_or_path": f"./{folder}"}

    return change


def lora(**options):
    return {"adapter": {"type": "lora", **options}}


MIXER = both(twin("mamba2"), put("train.use_cpu", True))

CASES = [
    # --- what is no model ---------------------------------------------------------------------------------------------
    Case(
        "model: {} is a file. Name the folder of the model, which holds {}.",
        {"Name the folder of the model": put("model", {"name_or_path": "./model"})},
        before=both(twin("llama"), put("model", {"name_or_path": "./model/model.safetensors"})),
    ),
    Case(
        "it holds folders with models. Name one: {}.",
        {"Name one: {}/models/first": put("model", {"name_or_path": "./models/first"})},
        before=both(twin("llama", "models/first"), put("model", {"name_or_path": "./models"})),
    ),
    Case(
        "To train on from it: `sftplug merge {} --output {}`, then `model: {}` and another --output.",
        {
            "`sftplug merge out --output {}`": both(
                run_first("merge", "out", "--output", "merged"),
                put("model", {"name_or_path": "./merged"}),
                with_option("--output", "other"),
            )
        },
        recipe=lora(),
        command=("train", "recipe.yaml", "--output", "out"),
        before=run_first("train", "recipe.yaml", "--output", "out"),
    ),
    # --- modules ------------------------------------------------------------------------------------------------------
    Case(
        "cannot be used where PEFT adapts a tensor and no layer, as it does with experts: {}. Set `{}: {}`, or leave such "
        "tensors out: `exclude: {}`.",
        {"Set `{}: {}`": at("adapter"), "or leave such tensors out: `exclude: {}`": at("adapter")},
        recipe=lora(dropout=0.05),
        before=twin("qwen3_moe"),
    ),
    Case(
        "in one tensor, which is adapted as a whole. Add '{}' to `targets`, or leave the experts out: `exclude: ['*.experts']`.",
        {
            "Add 'up_proj' to `targets`": put("adapter.targets", ["q_proj", "gate_proj", "up_proj"]),
            "`exclude: ['*.experts']`": at("adapter"),
        },
        recipe=lora(targets=["q_proj", "gate_proj"]),
        before=twin("qwen3_moe_dense"),
    ),
    Case(
        "`{}` leaves out all that target '{}' names. Take it out of one of the two.",
        {"Take it out of one of the two": put("adapter.exclude", [])},
        recipe=lora(targets=["q_proj", "v_proj"], exclude=["*q_proj"]),
    ),
    Case(
        "target '{}' would be ignored by the fused loss. Put it under `modules_to_save`.",
        {
            "Put it under `modules_to_save`": put(
                "adapter", {"type": "lora", "targets": ["q_proj"], "modules_to_save": ["lm_head"]}
            )
        },
        recipe=lora(targets=["q_proj", "lm_head"]),
        before=twin("llama"),
    ),
    Case(
        "target '{}' is in {} alone, which rows of text do not run. Leave it out.",
        {"Leave it out": put("adapter.targets", ["q_proj"])},
        recipe=lora(targets=["q_proj", "fc1"]),
        before=twin("gemma3"),
    ),
    Case(
        "`modules_to_save: {}` is in {} alone, which rows of text do not run. Leave it out.",
        {"Leave it out": leave_out("adapter.modules_to_save")},
        recipe=lora(targets=["q_proj"], modules_to_save=["patch_embedding"]),
        before=twin("gemma3"),
    ),
    Case(
        "`train: {}` matches what rows of text do not run: {}. Name the others: `train: {}`, or narrower patterns.",
        {"Name the others: `train: {}`": at("adapter")},
        recipe={"adapter": {"type": "freeze", "train": ["*"]}},
        before=twin("gemma3"),
    ),
    Case(
        "reads the weight of its {} without calling the layer, so an adapter beside it would not be trained. Leave it out of "
        "`targets`, or set `exclude: {}`.",
        {"Leave it out of `targets`": put("adapter.targets", ["in_proj"]), "set `exclude: {}`": at("adapter")},
        recipe=lora(targets=["in_proj", "out_proj"]),
        before=MIXER,
    ),
]
