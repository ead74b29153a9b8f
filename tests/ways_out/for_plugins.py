"""What errors about components offer that their author's method returns: plugins that are written for the purpose."""

from pathlib import Path

from ways_out.cases import Case, both, file, leave_out, put, run_instead

SCALE = (Path(__file__).parents[1] / "third_party" / "acme_scale.py").read_text()
CARDLESS = SCALE.replace("return LOADING", 'return ""')
IDLE = SCALE.replace(
    "nn.Parameter(module.weight.new_ones(module.out_features).float())",
    "module.weight.new_ones(module.out_features).float()",
).replace(
    "nn.Parameter(module.weight.new_zeros(module.out_features).float())",
    "module.weight.new_zeros(module.out_features).float()",
)
BASE_TOO = SCALE.replace("model.requires_grad_(False).model", "model.model")
CHANGED = """import sftplug

class Changed(sftplug.Quantization):
    type: str = "changed"
    bits = 32
    def load_kwargs(self):
        return {"dtype": sftplug.require("torch", needed_by="changed").float32}
    def prepare_model(self, model):
        model.model.norm.weight.data *= 2

@sftplug.hookimpl
def sftplug_quantizations():
    return [Changed]
"""
HOOK = """import sftplug

@sftplug.hookimpl
def sftplug_recipe_loaded(recipe):
    {}
"""
MEANS = """import sftplug

class Rate(sftplug.Callback):
    type: str = "rate"
    def trainer_callback(self):
        from transformers import TrainerCallback
        return TrainerCallback()
    def train_options(self, recipe):
        return {"learning_rate": 0.02}

@sftplug.hookimpl
def sftplug_callbacks():
    return [Rate]
"""
NO_CHANGE = file("mine.py", HOOK.format("pass"))


def scale(text=SCALE):
    """Let the recipe name an adapter that is no type of PEFT."""
    return both(file("acme_scale.py", text), put("plugins", ["./acme_scale.py"]), put("adapter", "acme_scale"))


CASES = [
    Case(
        "Write the value into the recipe or into one that it `extends`, or let a callback return it from `train_options`",
        {
            "Write the value into the recipe": both(NO_CHANGE, put("train.learning_rate", 0.02)),
            "into one that it `extends`": both(
                NO_CHANGE,
                file("base.yaml", '{"train": {"learning_rate": 0.02}}'),
                put("extends", "./base.yaml"),
                leave_out("train.learning_rate"),
            ),
            "let a callback return it from `train_options`": both(
                file("mine.py", MEANS), put("callbacks", ["rate"]), leave_out("train.learning_rate")
            ),
        },
        recipe={"plugins": ["./mine.py"], "adapter": "lora"},
        before=file("mine.py", HOOK.format("recipe.train['learning_rate'] = 0.02")),
    ),
    Case(
        "{} trains nothing: no parameter of the model is left to be trained. Choose another adapter, or other options of it.",
        {"Choose another adapter": put("adapter", "lora")},
        before=scale(IDLE),
    ),
    Case(
        "and says that it does not (`trains_base`). Let its `prepare_model` freeze them, or set `trains_base = True`.",
        {
            "Let its `prepare_model` freeze them": scale(),
            "set `trains_base = True`": scale(BASE_TOO.replace("    type:", "    trains_base = True\n    type:")),
        },
        before=scale(BASE_TOO),
    ),
    Case(
        "Let that return the Python that does to the base `model` what its `load` does.",
        {"Let that return the Python": scale()},
        before=scale(CARDLESS),
    ),
    Case(
        "{} is no type of PEFT, and the trainer trains nothing else on {} weights. Choose `quantization: bf16` or `fp32`, "
        "or an adapter such as `lora`.",
        {
            "`quantization: bf16`": put("quantization", "bf16"),
            "or `fp32`": put("quantization", "fp32"),
            "an adapter such as `lora`": put("adapter", "lora"),
        },
        recipe={"quantization": "nf4"},
        before=scale(),
    ),
    Case(
        "which `{}` splits. Choose `launch: ddp`, or an adapter such as `lora`.",
        {
            "`launch: ddp`": put("launch", {"strategy": "ddp", "processes": 2}),
            "an adapter such as `lora`": put("adapter", "lora"),
        },
        recipe={"launch": {"strategy": "fsdp2", "processes": 2}},
        before=scale(),
    ),
    Case(
        "only sftplug loads the result as it is, and what `sftplug merge` makes of it.",
        {"what `sftplug merge` makes of it": run_instead("merge", "out", "--output", "merged")},
        recipe={"quantization": "changed", "plugins": ["./changed.py"], "adapter": "lora"},
        command=("train", "recipe.yaml", "--output", "out"),
        before=file("changed.py", CHANGED),
        code=0,
    ),
]
