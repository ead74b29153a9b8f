"""What errors about the model's folder and its modules offer, on tiny models of the families that they are about."""

import shutil
from pathlib import Path

import twins

from ways_out.cases import (
    BASE,
    Case,
    Edit,
    a_model,
    as_written,
    at,
    both,
    json_in,
    leave_out,
    put,
    run_first,
    with_option,
)

PART = "shard-00001-model-00001.safetensors"


def twin(name: str, folder: str = "model") -> Edit:
    """Let the recipe name a tiny model of a family; it is written once a session."""

    def change(situation, sentence):
        kept = situation.folder.parent / f"twin-{name}"
        if not kept.exists():
            twins.write_twin(name, kept)
        shutil.copytree(kept, situation.folder / folder)
        situation.recipe["model"] = {"name_or_path": f"./{folder}"}

    return change


def teachers(situation, sentence):
    """Lay two models beside the model: one as it is, and one whose tokenizer has a token more."""
    from transformers import AutoTokenizer

    for name in ("large", "stranger"):
        shutil.copytree("model", name)
    tokenizer = AutoTokenizer.from_pretrained("stranger")
    tokenizer.add_tokens(["<table>"])
    tokenizer.save_pretrained("stranger")


def lora(**options):
    return {"adapter": {"type": "lora", **options}}


MIXER = both(twin("mamba2"), put("train.use_cpu", True))


def before_from(*, run=True, **options):
    """Train a LoRA with `options` first, then name it as the model of the recipe; without `run`, as plain PEFT has it."""

    def edit(situation, sentence):
        own = situation.recipe["adapter"]
        situation.recipe["adapter"] = {"type": "lora", **options}
        run_first("train", "recipe.yaml", "--output", "out")(situation, sentence)
        situation.recipe.update(adapter=own, model={"adapter": "./out"})
        if not run:
            Path("out/run.json").unlink()

    return edit


TRAIN = ("train", "recipe.yaml", "--output", "other")

CASES = [
    # --- an adapter that is trained on -----------------------------------------------------------------------------------
    Case(
        "of the adapter in {}, {}. To train on, set {}.",
        {
            "To train on, set {}": as_written,
            "`model.merge_adapter: true`": put("model.merge_adapter", True),
        },
        recipe=lora(r=4),
        command=TRAIN,
        before=before_from(r=8),
    ),
    Case(
        "To train on its adapter: `model: {}`, and another {}",
        {"To train on its adapter: `model: {}`": both(put("model", "./out"), with_option("--output", "other"))},
        recipe=lora(),
        command=("train", "recipe.yaml", "--output", "out"),
        before=run_first("train", "recipe.yaml", "--output", "out"),
    ),
    Case(
        "{} is an adapter of the type {}, and '{}' is another. Set `adapter: {}`.",
        {"Set `adapter: {}`": put("adapter", {"type": "lora"})},
        recipe={"adapter": {"type": "full"}},
        command=TRAIN,
        before=before_from(),
    ),
    Case(
        "model.adapter: the adapter in {} adapts other modules than the recipe's: it {} {}, one of {} tensors. Name the modules "
        "with which it was trained, as its adapter_config.json lists them (for `lora`: `adapter.targets`).",
        {"Name the modules with which it was trained": put("adapter.targets", ["q_proj"])},
        recipe=lora(),
        command=TRAIN,
        before=before_from(run=False, targets=["q_proj"]),
    ),
    Case(
        "{} names no base. Name it: `model.name_or_path`.",
        {"Name it: `model.name_or_path`": both(twin("llama"), put("model.adapter", "./out"))},
        recipe=lora(),
        command=("check", "recipe.yaml"),
        before=both(
            run_first("train", "recipe.yaml", "--output", "out"),
            lambda *_: json_in("adapter_config.json", base_model_name_or_path=None)(Path("out")),
            put("model", {"adapter": "./out"}),
        ),
    ),
    Case(
        "says what becomes of `model.adapter`, and there is none. Leave it out.",
        {"Leave it out": leave_out("model.merge_adapter")},
        recipe={"model.merge_adapter": True},
    ),
    Case(
        "names its base itself. Leave `model.build` out.",
        {"Leave `model.build` out": leave_out("model.build")},
        recipe=lora(),
        command=TRAIN,
        before=both(run_first("train", "recipe.yaml", "--output", "out"), put("model.adapter", "./out")),
    ),
    # --- what is not a model ---------------------------------------------------------------------------------------------
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
        "{}; with `model.merge_adapter: true` that becomes part of the weights, and a new one is trained.",
        {
            "with `model.merge_adapter: true`": both(
                put("model", {"name_or_path": "./out", "merge_adapter": True}), with_option("--output", "other")
            ),
        },
        recipe=lora(),
        command=("train", "recipe.yaml", "--output", "out"),
        before=run_first("train", "recipe.yaml", "--output", "out"),
    ),
    Case(
        "Choose a teacher with the tokenizer of the model, such as a larger model of its family, or another loss.",
        {
            "such as a larger model of its family": put("loss", {"distill": "./large"}),
            "or another loss": put("loss", "focal"),
        },
        recipe={"loss": {"distill": "./stranger"}},
        before=both(twin("llama"), teachers),
    ),
    Case(
        "is an adapter, and a teacher is a whole model: `sftplug merge {} --output {}`, then name {} as the teacher.",
        {
            "`sftplug merge {}out --output {}`": both(
                run_first("merge", "out", "--output", "out-merged"),
                put("loss", {"type": "distill", "teacher": "./out-merged"}),
            )
        },
        recipe=lora(),
        before=both(run_first("train", "recipe.yaml", "--output", "out"), put("loss", {"distill": "./out"})),
    ),
    Case(
        "does not know. It would take them as they stand. Name the model that it was made from",
        {"Name the model that it was made from": put("model", BASE["model"])},
        before=a_model(json_in("config.json", quantization_config={"quant_method": "own"})),
    ),
    Case(
        "transformers would load it in place of the model's other weights. Delete it, or save the model whole.",
        {"Delete it": lambda *_: Path("model", PART).unlink()},
        before=a_model(lambda folder: shutil.copy(folder / "model.safetensors", folder / PART)),
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
        "Leave it out: the embeddings are adapted alone, and `sftplug merge` gives the head weights of its own.",
        {"Leave it out": leave_out("adapter.ensure_weight_tying")},
        recipe={
            "adapter": {"type": "peft_lora", "target_modules": ["q_proj", "embed_tokens"], "ensure_weight_tying": True}
        },
    ),
    Case(
        "an adapter on the head '{}' would be ignored by the fused loss. Take it out of `{}`.",
        {"Take it out of `{}`": put("adapter.target_modules", ["q_proj"])},
        recipe={"adapter": {"type": "loha", "target_modules": ["q_proj", "lm_head"]}},
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
        "`targets`.",
        {"Leave it out of `targets`": put("adapter.targets", ["in_proj"])},
        recipe=lora(targets=["in_proj", "out_proj"]),
        before=MIXER,
    ),
    # --- options of an adapter that change nothing --------------------------------------------------------------------
    Case(
        "`exclude: {}` matches nothing that could be adapted. Take it out.",
        {"Take it out": leave_out("adapter.exclude")},
        recipe=lora(exclude=["*norm*"]),
    ),
    Case(
        "`exclude: {}` leaves out nothing that `targets` names, such as {}. Take it out.",
        {"Take it out": leave_out("adapter.exclude")},
        recipe=lora(targets=["q_proj"], exclude=["*.v_proj"]),
    ),
    Case(
        "`exclude` leaves out all that `modules_to_save: {}` names. Take it out of one of the two.",
        {"Take it out of one of the two": leave_out("adapter.exclude")},
        recipe=lora(modules_to_save=["embed_tokens"], exclude=["*.embed_tokens"]),
    ),
    Case(
        "`modules_to_save: {}` has no weights that could be trained. Leave it out.",
        {"Leave it out": leave_out("adapter.modules_to_save")},
        recipe=lora(modules_to_save=["act_fn"]),
    ),
    Case(
        "`bias: {}` has no effect: {}. Leave it out.",
        {"Leave it out": leave_out("adapter.bias")},
        recipe=lora(bias="all"),
    ),
    Case(
        "which rows of text do not run. Leave it out, or say `bias: lora_only`, which trains those of adapted layers.",
        {"Leave it out": leave_out("adapter.bias"), "or say `bias: lora_only`": at("adapter")},
        recipe=lora(bias="all"),
        before=twin("qwen2_5_vl"),
    ),
    Case(
        "`{}: {}` has no effect on embeddings, and only {} is adapted. Leave it out.",
        {"Leave it out": leave_out("adapter.dropout")},
        recipe=lora(targets=["embed_tokens"], dropout=0.1),
        before=twin("llama"),
    ),
    Case(
        "`{}: {}` changes nothing on this model.{} Take it out.",
        {"Take it out": leave_out("adapter.exclude_modules")},
        recipe={"adapter": {"type": "peft_lora", "target_modules": ["q_proj"], "exclude_modules": ["v_proj"]}},
    ),
    Case(
        "`init: orthogonal` needs an even rank, and `r` is {}. Set `r: {}`, or another `init`.",
        {"Set `r: {}`": at("adapter"), "or another `init`": put("adapter.init", "default")},
        recipe=lora(init="orthogonal", r=3),
    ),
    Case(
        "`init: olora` takes {} for a linear layer, and it is a Conv1D, whose weight lies the other way round. Set `init: "
        "default`.",
        {"Set `init: default`": at("adapter")},
        recipe=lora(init="olora"),
        before=twin("gpt2"),
    ),
]
