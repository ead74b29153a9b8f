"""What errors of optimizers and schedules offer."""

from ways_out.cases import Case, as_written, at, both, file, leave_out, put

PLAIN = """
from typing import ClassVar
from sftplug import Optimizer, hookimpl

class Plain(Optimizer):
    \"\"\"Gradient descent that keeps a count to itself.\"\"\"

    type: str = "plain"
    decays: ClassVar[bool] = False
    resumable: ClassVar[bool] = False

    def optimizer(self, trained, learning_rate):
        from torch.optim import SGD

        return SGD([parameter.value for parameter in trained.parameters], lr=learning_rate)

@hookimpl
def sftplug_optimizers():
    return [Plain]
"""
PLAIN_ONE = {"plugins": ["./plain.py"], "optimizer": "plain"}
TWO = {"strategy": "zero2", "processes": 2}

CASES = [
    Case(
        "train.learning_rate ({}): at 0 no weight moves. Leave it out for what is usual.",
        {"Leave it out for what is usual": leave_out("train.learning_rate")},
        recipe={"train.learning_rate": 0},
        code=0,
    ),
    Case(
        "Updates this small are rounded away, even in 32 bits: raise `train.learning_rate`{}.",
        {"raise `train.learning_rate`": put("train.learning_rate", 1e-5)},
        recipe={"train.learning_rate": 1e-12, "train.max_steps": 6},
        command=("train", "recipe.yaml", "--output", "out"),
    ),
    Case(
        "is not used beside `optimizer: {}`, whose own options say it. Leave out one of the two.",
        {"Leave out one": leave_out("train.optim"), "of the two": leave_out("optimizer")},
        recipe={"optimizer": "adafactor", "train.optim": "sgd"},
    ),
    Case(
        "is not used beside `schedule: {}`, whose own options say it. Leave out one of the two.",
        {"Leave out one": leave_out("train.lr_scheduler_type"), "of the two": leave_out("schedule")},
        recipe={"schedule": "cosine", "train.lr_scheduler_type": "linear"},
    ),
    Case(
        "optimizer '{}' has no weight decay. Leave it out.",
        {"Leave it out": leave_out("train.weight_decay")},
        recipe={**PLAIN_ONE, "train.weight_decay": 0.1},
        before=file("plain.py", PLAIN),
    ),
    Case(
        "Choose another, or set `train.save_only_model: true`.",
        {"Choose another": put("optimizer", "sgd"), "or set `train.save_only_model: true`": as_written},
        recipe={**PLAIN_ONE, "train.save_strategy": "epoch"},
        before=file("plain.py", PLAIN),
    ),
    Case(
        "does not work on the parameters as `launch: {}` shares them out. Choose `launch: {}`.",
        {"Choose `launch: {}`": put("launch.strategy", "ddp")},
        recipe={"optimizer": "adafactor", "launch": TWO},
    ),
    Case(
        "may bring an optimizer of its own, and then `optimizer: {}` would not be used. Leave out one of the two.",
        {"Leave out one": leave_out("train.deepspeed")},
        recipe={"optimizer": "sgd", "train.deepspeed": "ds.json"},
    ),
    Case(
        "may bring a schedule of its own, and then `schedule: {}` would not be used. Leave out one of the two.",
        {"Leave out one": leave_out("train.deepspeed")},
        recipe={"schedule": "linear", "train.deepspeed": "ds.json"},
    ),
    Case(
        "schedule '{}' knows no warmup. Leave it out, or set it to 0.",
        {"Leave it out": leave_out("train.warmup_steps"), "or set it to 0": put("train.warmup_steps", 0)},
        recipe={"schedule": "constant", "train.warmup_steps": 2},
    ),
    Case(
        "needs one of `{}` and `{}`, such as `{}: 0.1`.",
        {"such as `min_lr_rate: 0.1`": at("schedule")},
        recipe={"schedule": {"type": "cosine_with_min_lr"}},
    ),
    Case(
        "Leave `schedule` out, and set `train.lr_scheduler_type: {}`.",
        {"set `train.lr_scheduler_type: {}`": both(leave_out("schedule"), put("data.eval_fraction", 0.2), as_written)},
        recipe={"schedule": "greedy", "train.eval_strategy": None},
    ),
    Case(
        "updates each weight during the backward pass, when gradients are neither clipped nor summed",
        {"such as `adafactor`": put("optimizer", "adafactor")},
        recipe={"optimizer": "lomo"},
    ),
    Case(
        "`dampening` has no effect without `momentum`. Leave it out.",
        {"Leave it out": leave_out("optimizer.dampening")},
        recipe={"optimizer": {"type": "sgd", "dampening": 0.5}},
    ),
    Case(
        "`nesterov` needs a `momentum`, such as 0.9, and no `dampening`.",
        {"a `momentum`, such as 0.9": put("optimizer.momentum", 0.9)},
        recipe={"optimizer": {"type": "sgd", "nesterov": True}},
    ),
    Case(
        "pages from the memory of a GPU to that of the CPU, and this is a CPU. Choose `{}`.",
        {"Choose `adamw_8bit`": put("optimizer", "adamw_8bit")},
        recipe={"optimizer": "paged_adamw_8bit"},
    ),
    Case(
        "Set `adamw_learning_rate: 2e-4`, for one, beside it.",
        {"Set `adamw_learning_rate: 2e-4`": at("optimizer")},
        recipe={"optimizer": {"type": "muon", "adjust": "original"}},
    ),
    Case(
        "is made for a rate that does not fall, and that of {} does. Set `{}: {}`.",
        {"Set `{}: {}`": as_written},
        recipe={"optimizer": "schedule_free_adamw", "schedule": "cosine"},
    ),
]
