"""What errors of recipes offer: the sections, the trainer's options, the components."""

from conftest import rows

from ways_out.cases import (
    Case,
    a_model,
    as_written,
    both,
    file,
    json_in,
    leave_out,
    put,
    run_instead,
    with_option,
)

TRAIN = {"path": "rows.jsonl", "format": "messages"}
HELD_OUT = put("data.eval", [{"path": "rows.jsonl", "format": "messages"}])
WORD = {"type": "regex", "pattern": "yes"}
NAMED = "type: Literal['train_more'] = 'train_more'"
TRAIN_MORE = f"""
from typing import Literal
from transformers import TrainerCallback
from sftplug import Callback, hookimpl

class TrainMore(Callback):
    \"\"\"Train for more epochs.\"\"\"

    {NAMED}
    epochs: int = 2

    def train_options(self, recipe):
        return {{"num_train_epochs": self.epochs}}

    def trainer_callback(self):
        return TrainerCallback()

@hookimpl
def sftplug_callbacks():
    return [TrainMore]
"""
READ_ONLY = """
from sftplug import Quantization, hookimpl

class ReadOnly(Quantization):
    \"\"\"Weights for inference.\"\"\"

    type: str = "readonly"
    bits = 32

    @property
    def adaptable(self):
        return False

    def load_kwargs(self):
        return {"dtype": "float32"}

@hookimpl
def sftplug_quantizations():
    return [ReadOnly]
"""

DOUBLED = """
from typing import ClassVar
from sftplug import ModelPatch, hookimpl

class Doubled(ModelPatch):
    \"\"\"Twice the logits.\"\"\"

    type: str = "doubled"
    changes_logits: ClassVar[bool] = True

    def after_loading(self, model):
        model.get_output_embeddings().register_forward_hook(lambda _, __, x: 2 * x)

    def loading_code(self):
        return "model.get_output_embeddings().register_forward_hook(lambda _, __, x: 2 * x)"

@hookimpl
def sftplug_model_patches():
    return [Doubled]
"""

CASES = [
    # --- the file -----------------------------------------------------------------------------------------------------
    Case(
        " Did you mean '{}'?",
        {"Did you mean 'learning_rate'?": both(leave_out("train.learning_rte"), put("train.learning_rate", 1e-3))},
        recipe={"train.learning_rte": 1e-3},
    ),
    Case(
        "and no shipped recipe '{}'.{} `sftplug recipes` lists them.",
        {
            "`sftplug recipes` lists them": run_instead("recipes"),
            "Did you mean 'recipe.yaml'": run_instead("check", "recipe.yaml"),
        },
        command=("check", "recpe.yaml"),
    ),
    Case(
        "is empty. Leave the key out, or give it a value.",
        {"Leave the key out": leave_out("adapter"), "give it a value": put("adapter", "full")},
        before=lambda situation, _: situation.recipe.update(adapter=None),
    ),
    Case(
        "`{}` is a list: say which is meant. There are {}.",
        {
            "say which is meant. There are `data.train[0]`": run_instead(
                "check", "recipe.yaml", "data.train[0].first=12"
            )
        },
        command=("check", "recipe.yaml", "data.train.7.first=12"),
        before=put("data.train", [TRAIN]),
    ),
    Case(
        "train.{}: must be at least {}, not {}.",
        {"must be at least 1": put("train.per_device_train_batch_size", 1)},
        recipe={"train.per_device_train_batch_size": 0},
    ),
    Case(
        "train.seed: must be at least 0, not {}.",
        {"must be at least 0": put("train.seed", 0)},
        recipe={"train.seed": -1},
    ),
    Case(
        "train.seed: must be at most 4294967295, not {}.",
        {"must be at most 4294967295": put("train.seed", 4294967295)},
        recipe={"train.seed": 4294967296},
    ),
    Case(
        "train.max_steps: must be at least 1, or -1 to go by `train.num_train_epochs`, not {}.",
        {"must be at least 1": put("train.max_steps", 1), "-1 to go by": put("train.max_steps", -1)},
        recipe={"train.max_steps": 0},
    ),
    Case(
        "train.num_train_epochs: must be more than 0, not {}: nothing would be trained.",
        {"must be more than 0": put("train.num_train_epochs", 0.5)},
        recipe={"train.num_train_epochs": 0, "train.max_steps": -1},
    ),
    # --- rows that are held out ---------------------------------------------------------------------------------------
    Case(
        "evaluation.metrics: no rows are held out to answer: set `data.eval_fraction` or `data.eval`.",
        {"set `data.eval_fraction`": put("data.eval_fraction", 0.25), "or `data.eval`": HELD_OUT},
        recipe={"evaluation.metrics": ["exact_match"]},
    ),
    Case(
        "{} evaluates, and no rows are held out: set `data.eval_fraction`.",
        {"set `data.eval_fraction`": put("data.eval_fraction", 0.25)},
        recipe={"train.eval_strategy": "epoch"},
    ),
    Case(
        "needs held-out rows to watch. Name some in `data.eval`, or set `data.eval_fraction`.",
        {"Name some in `data.eval`": HELD_OUT, "set `data.eval_fraction`": put("data.eval_fraction", 0.25)},
        recipe={"callbacks": ["early_stopping"], "train.save_strategy": None, "train.eval_strategy": None},
    ),
    Case(
        "needs evaluations, and `train.eval_strategy` is `no`. Leave it out, or say `steps` or `epoch`.",
        {
            "Leave it out": leave_out("train.eval_strategy"),
            "say `steps`": put("train.eval_strategy", "steps"),
            "or `epoch`": put("train.eval_strategy", "epoch"),
        },
        recipe={
            "callbacks": ["early_stopping"],
            "train.save_strategy": None,
            "train.eval_strategy": "no",
            "data.eval_fraction": 0.25,
        },
    ),
    Case(
        "watches `{}`, which no callback of the recipe measures. Add `loss_by`, for one.",
        {"Add `loss_by`": put("callbacks", [{"type": "early_stopping", "metric": "loss/content"}, "loss_by"])},
        recipe={
            "callbacks": [{"type": "early_stopping", "metric": "loss/content"}],
            "train.save_strategy": None,
            "train.eval_strategy": None,
            "data.eval_fraction": 0.25,
        },
    ),
    Case(
        "Leave it out, or set `restore_best: false`.",
        {
            "Leave it out": leave_out("train.save_strategy"),
            "set `restore_best: false`": put("callbacks", [{"type": "early_stopping", "restore_best": False}]),
        },
        recipe={"callbacks": ["early_stopping"], "train.eval_strategy": None, "data.eval_fraction": 0.25},
    ),
    # --- masking ------------------------------------------------------------------------------------------------------
    Case(
        "{}: list one that selects tokens too, such as `assistant`, or `all` for every token.",
        {
            "such as `assistant`": put("masking", [{"tool_calls": 0.5}, "assistant"]),
            "or `all`": put("masking", [{"tool_calls": 0.5}, "all"]),
        },
        recipe={"masking": [{"tool_calls": 0.5}]},
    ),
    Case(
        "`+` unites strategies that select tokens, and `{}` weighs them: list it beside them.",
        {"list it beside them": put("masking", ["assistant", "message_weights"])},
        recipe={"masking": "assistant + message_weights"},
    ),
    Case(
        "no masking strategy reads it: add `message_weights` to them.",
        {"add `message_weights` to them": put("masking", ["assistant", "message_weights"])},
        recipe={"data.train.row_weight": "worth"},
        rows=[{**row, "worth": 1.0} for row in rows()],
    ),
    # --- mixing -------------------------------------------------------------------------------------------------------
    Case(
        "has no `share`, and other sources have one: give all of them one, or none.",
        {
            "give all of them one": put("data.train.1.share", 1),
            "or none": leave_out("data.train.0.share"),
        },
        recipe={"data.train": [{**TRAIN, "share": 1}, dict(TRAIN)]},
    ),
    # --- the model and its numbers ------------------------------------------------------------------------------------
    Case(
        "'{}' trains the base weights, which cannot be trained as {}. Choose `quantization: bf16` or `fp32`, or an "
        "adapter such as `lora`.",
        {
            "Choose `quantization: bf16`": as_written,
            "or `fp32`": put("quantization", "fp32"),
            "an adapter such as `lora`": put("adapter", "lora"),
        },
        recipe={"quantization": "int8"},
    ),
    Case(
        "Choose an adapter beside them, such as `adapter: lora`.",
        {"such as `adapter: lora`": as_written},
        recipe={"loss": "kl_to_base"},
    ),
    Case(
        "`{}` takes no bare value. Name its options, each with a value, as in `{}: {option: value}`.",
        {"Name its options": put("policies", [{"forbid": {"commands": ["push"]}}])},
        recipe={"policies": [{"forbid": "push"}]},
    ),
    Case(
        "with these options asks for them. Choose `head: chunked` or `head: full`.",
        {
            "Choose `head: chunked`": put("loss.head", "chunked"),
            "or `head: full`": put("loss.head", "full"),
        },
        recipe={"loss": {"type": "cross_entropy", "z_loss": 0.1, "head": "fused"}},
    ),
    Case(
        "passes by what the patch '{}' does to the logits. Choose `head: full`.",
        {"Choose `head: full`": put("loss.head", "full")},
        recipe={
            "plugins": ["./doubled.py"],
            "patches": "doubled",
            "loss": {"type": "cross_entropy", "head": "chunked"},
        },
        before=file("doubled.py", DOUBLED),
    ),
    Case(
        "needs the whole output layer in each process, and `{}` splits it. Choose `launch: ddp`, or leave the head out.",
        {"Choose `launch: ddp`": put("launch.strategy", "ddp"), "or leave the head out": leave_out("loss.head")},
        recipe={
            "loss": {"type": "cross_entropy", "head": "chunked"},
            "launch": {"strategy": "zero2", "processes": 2},
        },
    ),
    Case(
        "where `{}` splits the model. Choose `launch: ddp`.",
        {"Choose `launch: ddp`": put("launch.strategy", "ddp")},
        recipe={"loss": "kl_to_base", "adapter": "lora", "launch": {"strategy": "zero2", "processes": 2}},
    ),
    Case(
        "no adapter can be trained on {} weights, and '{}' is one. Choose another quantization, such as `nf4` or `bf16`.",
        {"such as `nf4`": put("quantization", "nf4"), "or `bf16`": put("quantization", "bf16")},
        recipe={"plugins": ["./readonly.py"], "quantization": "readonly", "adapter": "lora"},
        before=file("readonly.py", READ_ONLY),
    ),
    Case(
        "'qlora' needs a 4-bit base, and the recipe's is {}. Leave `quantization` out, choose `nf4` or `fp4`, or use the "
        "adapter `lora`.",
        {
            "Leave `quantization` out": leave_out("quantization"),
            "choose `nf4`": put("quantization", "nf4"),
            "or `fp4`": put("quantization", "fp4"),
            "use the adapter `lora`": put("adapter", "lora"),
        },
        recipe={"adapter": "qlora"},
    ),
    Case(
        "`init: {}` computes with the weights, which are {}. Use `default`.",
        {"Use `default`": put("adapter.init", "default")},
        recipe={"adapter": {"type": "lora", "init": "pissa"}, "quantization": "nf4"},
    ),
    Case(
        "`{}` has no effect: {}. Leave it out.",
        {"Leave it out": leave_out("adapter.orth_reg_weight")},
        recipe={"adapter": {"type": "adalora", "orth_reg_weight": 0.1, "total_step": 2}},
    ),
    Case(
        "does not train the rows of the new tokens, which would stay the mean of the others. Use `lora`, `qlora` or `full`, "
        "or let `freeze` train the embeddings.",
        {
            "Use `lora`": put("adapter", "lora"),
            "`qlora`": both(put("adapter", "qlora"), leave_out("quantization")),
            "or `full`": put("adapter", "full"),
            "let `freeze` train the embeddings": put("adapter.train", ["*embed_tokens*"]),
        },
        recipe={"model.add_tokens": ["<new>"], "adapter": {"type": "freeze", "train": ["*norm*"]}},
    ),
    Case(
        "model.add_tokens: the tokenizer has {} already, with the id {}. Leave it out.",
        {"Leave it out": leave_out("model.add_tokens")},
        recipe={"model.add_tokens": ["<|im_end|>"]},
    ),
    Case(
        "runs code that comes with the model: pin `model.revision` to a commit, 40 hexadecimal digits.{}",
        {"pin `model.revision` to a commit, 40 hexadecimal digits": put("model.revision", "0" * 40)},
        recipe={"model": {"name_or_path": "someone/model", "trust_remote_code": True}},
        command=("explain", "recipe.yaml"),
    ),
    # --- callbacks and metrics ----------------------------------------------------------------------------------------
    Case(
        "two of them call their results '{}': leave out one{}.",
        {
            "leave out one": put("evaluation.metrics", [WORD]),
            "or give one another `name`": put("evaluation.metrics", [WORD, {**WORD, "name": "again"}]),
        },
        recipe={"evaluation.metrics": [WORD, {**WORD, "pattern": "no"}], "data.eval_fraction": 0.25},
    ),
    Case(
        "two of them call their results '{}': leave out one{}.",
        {"leave out one.": put("evaluation.metrics", ["exact_match"])},
        recipe={"evaluation.metrics": ["exact_match", "exact_match"], "data.eval_fraction": 0.25},
    ),
    Case(
        "{} The run may learn nothing that shows: set `train.learning_rate: {}`.",
        {"set `train.learning_rate: {}`": as_written},
        recipe={"adapter": "lora", "train.learning_rate": 1e-6},
        code=0,
    ),
    Case(
        "it tries the same characters in too many ways. Let no repetition stand in another, and no two branches match the "
        "same: `a+$` for `(a|aa)+$`.",
        {"`a+$` for `(a|aa)+$`": put("masking", ["assistant", {"regex": "a+$"}])},
        recipe={"masking": ["assistant", {"regex": "(a|aa)+$"}], "data.max_length": 1024},
        rows=[{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "a" * 300 + "!"}]}],
    ),
    # --- templates ----------------------------------------------------------------------------------------------------
    Case(
        "`{}` is what the rows give the template. Leave it out.",
        {"Leave it out": leave_out("data.train.template_kwargs")},
        recipe={"data.train.template_kwargs": {"messages": []}},
    ),
    # --- several processes --------------------------------------------------------------------------------------------
    Case(
        "processes: there is no accelerator to count here: say how many processes are to run on the CPU.",
        {"say how many processes are to run": put("launch", {"strategy": "ddp", "processes": 2})},
        recipe={"launch": "ddp", "train.use_cpu": True},
    ),
    Case(
        "main_process_ip: with several nodes, give the address of the main one: all meet there.",
        {"give the address of the main one": put("launch.main_process_ip", "127.0.0.1")},
        recipe={"launch": {"processes": 2, "nodes": 2, "node_rank": 0}, "train.use_cpu": True},
    ),
    Case(
        "node_rank: with several nodes, say which this is, from 0; SLURM is not here to say so.",
        {"say which this is, from 0": put("launch.node_rank", 0)},
        recipe={"launch": {"processes": 2, "nodes": 2, "main_process_ip": "127.0.0.1"}, "train.use_cpu": True},
    ),
    Case(
        "main_process_port: with several nodes, all must know the same port: give one.",
        {"give one": put("launch.main_process_port", 29500)},
        recipe={
            "launch": {
                "processes": 2,
                "nodes": 2,
                "node_rank": 0,
                "main_process_ip": "127.0.0.1",
                "main_process_port": 0,
            },
            "train.use_cpu": True,
        },
    ),
    Case(
        "strategy: `train.{}` decides the same: leave one of the two out.",
        {"leave one of the two out": leave_out("train.fsdp")},
        recipe={"launch": {"strategy": "ddp", "processes": 2}, "train.use_cpu": True, "train.fsdp": "full_shard"},
    ),
    Case(
        "strategy: fsdp2 cannot split {} weights, whose scales lie beside them. Use ddp or zero2.",
        {"Use ddp": put("launch.strategy", "ddp"), "or zero2": put("launch.strategy", "zero2")},
        recipe={
            "launch": {"strategy": "fsdp2", "processes": 2},
            "train.use_cpu": True,
            "adapter": "lora",
            "quantization": "int8",
        },
    ),
    Case(
        "strategy: fsdp2 holds what is trained in pieces, on which `train.optim: {}` fails at once.",
        {
            "Use ddp": put("launch.strategy", "ddp"),
            "set `train.optim: adamw_torch`": put("train.optim", "adamw_torch"),
        },
        recipe={
            "launch": {"strategy": "fsdp2", "processes": 2},
            "train.use_cpu": True,
            "train.save_strategy": "no",
            "train.optim": "adafactor",
            "adapter": "full",
        },
    ),
    Case(
        "strategy: fsdp2 splits {} weights only if quantization.storage_dtype ({}) equals quantization.compute_dtype ({}). "
        "Set both to {}, or use ddp or zero2.",
        {
            "Set both to bfloat16": put(
                "quantization", {"type": "nf4", "storage_dtype": "bfloat16", "compute_dtype": "bfloat16"}
            ),
            "use ddp": put("launch.strategy", "ddp"),
            "or zero2": put("launch.strategy", "zero2"),
        },
        recipe={
            "launch": {"strategy": "fsdp2", "processes": 2},
            "train.use_cpu": True,
            "adapter": "lora",
            "quantization": {"type": "nf4", "compute_dtype": "bfloat16"},
        },
    ),
    Case(
        "strategy: on CPUs, fsdp2 splits the weights when they are loaded, and no tokens can be added. Use ddp.",
        {"Use ddp": put("launch.strategy", "ddp")},
        recipe={
            "launch": {"strategy": "fsdp2", "processes": 2},
            "train.use_cpu": True,
            "model.add_tokens": ["<new>"],
        },
    ),
    Case(
        "strategy: on CPUs, fsdp2 cannot keep the optimizer of split weights in a checkpoint, so no run could be resumed. "
        "Set `train.save_only_model: true`, or `train.save_strategy: no` and no other `train.save_*`.",
        {
            "`train.save_only_model: true`": put("train.save_only_model", True),
            "`train.save_strategy: no`": put("train.save_strategy", "no"),
        },
        recipe={
            "launch": {"strategy": "fsdp2", "processes": 2},
            "train.use_cpu": True,
            "train.save_strategy": "epoch",
        },
    ),
    Case(
        "strategy: zero3 splits weights between processes, and {} weights are packed, with scales beside them that it does "
        "not split. Use zero2 or ddp.",
        {"Use zero2": put("launch.strategy", "zero2"), "or ddp": put("launch.strategy", "ddp")},
        recipe={
            "launch": {"strategy": "zero3", "processes": 2},
            "train.use_cpu": True,
            "adapter": "qlora",
            "quantization": None,
        },
    ),
    # --- commands -----------------------------------------------------------------------------------------------------
    Case(
        "is not an amount of memory. Write it as 24GB, 22.5GiB or 512MB.",
        {
            "Write it as 24GB": with_option("--memory", "24GB"),
            "22.5GiB": with_option("--memory", "22.5GiB"),
            "or 512MB": with_option("--memory", "2512MB"),
        },
        command=("plan", "recipe.yaml", "--memory", "much"),
    ),
    Case(
        "no plugin and no component is named '{}'.{} `sftplug plugins` lists them.",
        {
            "`sftplug plugins` lists them": run_instead("plugins"),
            "Did you mean 'lora'": run_instead("plugins", "show", "lora"),
        },
        command=("plugins", "show", "loraa"),
    ),
    Case(
        "{} exists already. Choose another folder.",
        {"Choose another folder": run_instead("recipes", "copy", "lessons/2_sft", "elsewhere")},
        command=("recipes", "copy", "lessons/2_sft", "taken"),
        before=file("taken/2_sft.yaml", "mine"),
    ),
    Case(
        "the length of the rows is unknown: they were not read, and `data.max_length` is null. Set it.",
        {"Set it": put("data.max_length", 128)},
        recipe={"data.train": {"path": "http://127.0.0.1:9/rows.jsonl", "format": "messages"}},
        before=lambda situation, _: situation.recipe["data"].update(max_length=None),
        command=("plan", "recipe.yaml"),
    ),
    # --- plugins ------------------------------------------------------------------------------------------------------
    Case(
        "two plugin files are named '{}', or one is listed twice: {}. Rename one.",
        {
            "Rename one": both(
                file("other.py", READ_ONLY.replace("readonly", "other")),
                put("plugins", ["./readonly.py", "./other.py"]),
            )
        },
        recipe={"plugins": ["./readonly.py", "./readonly.py"]},
        before=file("readonly.py", READ_ONLY),
    ),
    Case(
        "plugin file {} has the name of an installed plugin, {}. Rename the file, or take it out of",
        {
            "Rename the file": both(file("mine.py", READ_ONLY), put("plugins", ["./mine.py"])),
            "take it out of `plugins:`": put("plugins", []),
        },
        recipe={"plugins": ["./adapters.py"]},
        before=file("adapters.py", READ_ONLY),
    ),
    Case(
        "Leave one out with {}, or rename",
        {
            "Leave one out with --no-plugin one": with_option("--no-plugin", "one"),
            "rename one component": file("two.py", TRAIN_MORE.replace("train_more", "train_yet_more")),
        },
        recipe={"plugins": ["./one.py", "./two.py"], "callbacks": ["train_more"]},
        before=both(file("one.py", TRAIN_MORE), file("two.py", TRAIN_MORE)),
    ),
    Case(
        "{} ({}). Set it in the recipe until it is fixed.",
        {"Set it in the recipe": put("callbacks", [{"type": "train_more", "epochs": 2}])},
        recipe={"plugins": ["./one.py"], "callbacks": ["train_more"]},
        before=file("one.py", TRAIN_MORE.replace("int = 2", "int = 'two'")),
    ),
    Case(
        "has no name: give it `type: Literal['name'] = 'name'`",
        {
            "give it `type: Literal['name'] = 'name'`": file(
                "one.py", TRAIN_MORE.replace(NAMED, "type: Literal['name'] = 'name'")
            )
        },
        recipe={"plugins": ["./one.py"]},
        before=file("one.py", TRAIN_MORE.replace(NAMED, "more: str = 'yes'")),
    ),
    Case(
        "is named {}: use letters, digits, `_` and `-`",
        {"use letters, digits, `_` and `-`": file("one.py", TRAIN_MORE.replace(NAMED, "type: str = 'train_more-2'"))},
        recipe={"plugins": ["./one.py"]},
        before=file("one.py", TRAIN_MORE.replace(NAMED, "type: str = 'train more'")),
    ),
    Case(
        "{} means `train.{}: {}`, and {} means {}. Leave out one of them, or say in the recipe what `train.{}` is.",
        {
            "Leave out one of them": put("callbacks", ["train_more"]),
            "say in the recipe what `train.num_train_epochs` is": put("train.num_train_epochs", 3),
        },
        recipe={"plugins": ["./one.py"], "callbacks": ["train_more", {"type": "train_more", "epochs": 5}]},
        before=file("one.py", TRAIN_MORE),
    ),
    # --- what the machine cannot do -----------------------------------------------------------------------------------
    Case(
        "train.fp16: CPUs do not train in fp16. Leave it out, or set `train.bf16`.",
        {
            "Leave it out": leave_out("train.fp16"),
            "set `train.bf16`": both(leave_out("train.fp16"), put("train.bf16", True)),
        },
        recipe={"train.fp16": True, "train.use_cpu": True},
    ),
    Case(
        "transformers {}: {} reads checkpoints that were quantized with it before, and {}. Choose such a checkpoint, or a "
        "method that quantizes while loading.",
        {"or a method that quantizes while loading": put("quantization", "bitsandbytes_4bit")},
        recipe={"quantization": "awq", "adapter": "lora"},
    ),
    Case(
        "`model.code_revision` pins code in another repository, and {} has none. Leave it out.",
        {"Leave it out": leave_out("model.code_revision")},
        before=both(
            a_model(lambda folder: None), put("model.trust_remote_code", True), put("model.code_revision", "0" * 40)
        ),
    ),
    Case(
        "it needs Python code that comes with it, which is not run unless the recipe says so. Read it there, then set "
        "`model.trust_remote_code: true`{}.",
        {"then set `model.trust_remote_code: true`": put("model.trust_remote_code", True)},
        before=a_model(json_in("config.json", model_type="own", auto_map={"AutoConfig": "own_code.Own"})),
        ends="own_code.py",
    ),
    Case(
        "Read it, and set `model.code_revision` to the commit that you have read, 40 hexadecimal digits.",
        {"set `model.code_revision` to the commit that you have read": put("model.code_revision", "0" * 40)},
        before=both(
            a_model(json_in("config.json", auto_map={"AutoModelForCausalLM": "other/repo--modeling.Own"})),
            put("model.trust_remote_code", True),
        ),
        ends="couldn't connect",
    ),
]
