"""What errors about the folder of a run offer, and those of the commands that read one."""

from filelock import FileLock

from sftplug.storage.lock import LOCK
from ways_out.cases import (
    USER,
    Case,
    after_a_crash,
    as_written,
    both,
    file,
    leave_out,
    mend_rows,
    of_a_finished_run,
    put,
    run_first,
    run_instead,
    with_option,
    without,
)

TRAIN = ("train", "recipe.yaml", "--output", "out")


SAVED = {"train.save_strategy": "steps", "train.save_steps": 1, "train.save_total_limit": 2}
"""A checkpoint a step, and both are kept."""
LOCKS = []


def hold_the_lock(situation, sentence):
    """Write to ``out``, as another run does."""
    (situation.folder / "out").mkdir()
    LOCKS.append(FileLock(situation.folder / "out" / LOCK))
    LOCKS[-1].acquire()


def of_a_merge(situation, sentence):
    """Merge a finished run."""
    situation.command = ["RUN"]
    of_a_finished_run(situation, sentence)
    run_first("merge", situation.command[0], "--output", "merged")(situation, sentence)


CASES = [
    Case(
        "holds a finished run. Choose another {}, or {} to delete it and begin again.",
        {"Choose another --output": with_option("--output", "other"), "--overwrite": with_option("--overwrite")},
        command=TRAIN,
        before=run_first(*TRAIN),
    ),
    Case(
        "To let it go on from its end: more than {} of `train.{}`.",
        {"more than": put("train.max_steps", 3)},
        recipe=SAVED,
        command=TRAIN,
        before=run_first(*TRAIN),
    ),
    Case(
        "{} holds a finished run of another recipe:\n{}\nGo back to its recipe to let it go on, choose another {}, or {} "
        "to delete it.",
        {
            "Go back to its recipe": put("train.learning_rate", 1e-2),
            "choose another --output": with_option("--output", "other"),
            "--overwrite": with_option("--overwrite"),
        },
        recipe=SAVED,
        command=TRAIN,
        before=both(run_first(*TRAIN), put("train.learning_rate", 1e-3), put("train.max_steps", 3)),
    ),
    Case(
        "{} holds a finished run without a checkpoint: its optimizer was not saved, so it cannot go on from its end. {}",
        {"from its weights": both(put("model", "./out"), with_option("--output", "other"))},
        command=TRAIN,
        before=both(run_first(*TRAIN), put("train.max_steps", 3)),
    ),
    Case(
        "the output folder {} is not empty and holds no run: {}. Choose another {}.",
        {"Choose another --output": with_option("--output", "other")},
        command=TRAIN,
        before=file("out/notes.txt", "mine"),
    ),
    Case(
        "the output folder {} cannot be written: {}. Choose another {}.",
        {"Choose another --output": with_option("--output", "other")},
        command=("train", "recipe.yaml", "--output", "taken/out"),
        before=file("taken", "no folder"),
    ),
    Case(
        "there is no run to resume in {}. Leave out {} to begin one.",
        {"Leave out --resume": without("--resume")},
        command=(*TRAIN, "--resume"),
    ),
    Case(
        "--resume continues a run, --overwrite deletes it: choose one.",
        {"choose one": without("--resume")},
        command=(*TRAIN, "--resume", "--overwrite"),
    ),
    Case(
        "{} exists already. Choose another {}.",
        {"Choose another --output": with_option("--output", "other.zip")},
        command=("export", "RUN", "zip", "--output", "taken.zip"),
        before=both(of_a_finished_run, file("taken.zip", "mine")),
    ),
    Case(
        "Set `merged: true`: the adapter becomes part of the weights.",
        {"Set `merged: true`": put("export", [{"vllm": {"merged": True}}])},
        recipe={"export": ["vllm"], "adapter": "lora"},
        command=("check", "recipe.yaml"),
    ),
    Case(
        "{} is not an empty folder. Choose another {}.",
        {"Choose another --output": with_option("--output", "other")},
        command=("prepare", "recipe.yaml", "--output", "out"),
        before=file("out/notes.txt", "mine"),
    ),
    Case(
        "{} holds an unfinished run that saved weights only (`train.save_only_model`): {}. It cannot be resumed. Choose "
        "another {}, or {} to delete it.",
        {"Choose another --output": with_option("--output", "other"), "--overwrite": with_option("--overwrite")},
        recipe={**SAVED, "train.save_only_model": True},
        command=TRAIN,
        before=after_a_crash,
    ),
    Case(
        "{} holds an unfinished run of another recipe:\n{}\nGo back to its recipe to resume it, choose another {}, or {} "
        "to delete it.",
        {
            "Go back to its recipe": put("train.learning_rate", 1e-2),
            "choose another --output": with_option("--output", "other"),
            "--overwrite": with_option("--overwrite"),
        },
        recipe={**SAVED, "train.learning_rate": 1e-2},
        command=TRAIN,
        before=both(after_a_crash, put("train.learning_rate", 1e-3)),
    ),
    Case(
        "Once that is fixed, `sftplug train` resumes it.",
        {"`sftplug train` resumes it": run_first(*TRAIN)},
        recipe={**SAVED, "data.eval_fraction": 0.25},
        command=("eval", "out"),
        before=after_a_crash,
    ),
    Case(
        "another run writes to {}: {}. Choose another {}, or wait for it to end.",
        {
            "Choose another --output": with_option("--output", "other"),
            "wait for it to end": lambda *_: LOCKS.pop().release(),
        },
        command=TRAIN,
        before=hold_the_lock,
    ),
    Case(
        "adapter {} shares out its ranks over {} steps, which the run has made: it cannot be made longer. Choose another "
        "{}, and set `adapter.total_step: {}`.",
        {"Choose another --output": both(with_option("--output", "other"), as_written)},
        recipe={"adapter": {"type": "adalora", "total_step": 8}, "train.max_steps": 8, "train.save_strategy": "epoch"},
        command=TRAIN,
        before=both(run_first(*TRAIN), put("train.max_steps", 12)),
    ),
    Case(
        "adapter {}: `total_step` is {}, and the run takes {} steps: the ranks would not be those that `target_r` asks for. Set "
        "`adapter.total_step: {}`.",
        {"Set `adapter.total_step: {}`": as_written},
        recipe={"adapter": {"type": "adalora", "total_step": 50}, "train.max_steps": 8},
        command=TRAIN,
    ),
    # --- merge, push, eval --------------------------------------------------------------------------------------------
    Case(
        "the base is {}, not quantized: leave out {}.",
        {"leave out --in-place": without("--in-place")},
        recipe={"adapter": "lora"},
        command=("merge", "RUN", "--output", "merged", "--in-place"),
        before=of_a_finished_run,
    ),
    Case(
        "merging into {} weights is not known to be right. Leave out {}.",
        {"Leave out --in-place": without("--in-place")},
        recipe={"adapter": "lora", "quantization": "bitsandbytes_8bit"},
        command=("merge", "RUN", "--output", "merged", "--in-place"),
        before=of_a_finished_run,
    ),
    Case(
        "the base is {}, not quantized: leave out {}.",
        {"leave out --base original": without("--base")},
        recipe={"adapter": "lora"},
        command=("merge", "RUN", "--output", "merged", "--base", "original"),
        before=of_a_finished_run,
    ),
    Case(
        "{} keeps the quantized weights: leave out {}.",
        {"leave out --dtype": without("--dtype")},
        recipe={"adapter": "lora", "quantization": "nf4"},
        command=("merge", "RUN", "--output", "merged", "--in-place", "--dtype", "fp32", "--tolerance", "10"),
        before=of_a_finished_run,
    ),
    Case(
        "{} merges into the quantized weights: leave out {}, or {}.",
        {"leave out --base original": without("--base"), "or --in-place": without("--in-place")},
        recipe={"adapter": "lora", "quantization": "nf4"},
        command=("merge", "RUN", "--output", "merged", "--in-place", "--base", "original", "--tolerance", "10"),
        before=of_a_finished_run,
    ),
    Case(
        "Leave out {}: the adapter was trained on the quantized weights, and fixes their errors",
        {
            "Leave out --base original": without("--base"),
            "allow more with --tolerance": with_option("--tolerance", "10"),
        },
        recipe={"adapter": "lora", "quantization": "nf4"},
        command=("merge", "RUN", "--output", "merged", "--base", "original", "--tolerance", "0.005"),
        before=of_a_finished_run,
    ),
    Case(
        "{} holds no model: give the folder of a finished run, or of `sftplug merge`.",
        {
            "the folder of a finished run": both(run_instead("push", "RUN", "me/first"), of_a_finished_run),
            "or of `sftplug merge`": both(of_a_merge, run_instead("push", "merged", "me/first")),
        },
        recipe={"adapter": "lora"},
        command=("push", "out", "me/first"),
        before=file("out/notes.txt", "no model"),
        ends="cannot be|not logged in|belongs to",
    ),
    # --- preview ------------------------------------------------------------------------------------------------------
    Case(
        "{} cannot be written: {}. Name another file.",
        {"Name another file": with_option("--html", "other.html")},
        command=("preview", "recipe.yaml", "--html", "taken/page.html"),
        before=file("taken", "no folder"),
    ),
    Case(
        "--diff is shown in the terminal: leave out --html, --json and --dropped.",
        {"leave out --html": without("--html")},
        command=("preview", "recipe.yaml", "--diff", "recipe.yaml", "--html", "page.html"),
    ),
    Case(
        "the adapter in {} belongs to a base model in a folder of this machine, so nobody else could load it. Merge it first "
        "(`sftplug merge {} --output DIR`), then push DIR.",
        {"Merge it first": both(of_a_merge, run_instead("push", "merged", "me/first"))},
        recipe={"adapter": "lora"},
        command=("push", "RUN", "me/first"),
        before=of_a_finished_run,
        ends="not logged in",
    ),
    Case(
        "Leave out {}, which rounds the update away",
        {
            "Leave out --in-place": without("--in-place"),
            "allow more with --tolerance": with_option("--tolerance", "10"),
        },
        recipe={"adapter": "lora", "quantization": "nf4"},
        command=("merge", "RUN", "--output", "merged", "--in-place", "--tolerance", "0.01"),
        before=of_a_finished_run,
    ),
    Case(
        "{} Fix the row, or leave the metric out.",
        {
            "Fix the row": mend_rows(*[{"messages": [USER, {"role": "assistant", "content": "[1]"}]}] * 12),
            "leave the metric out": leave_out("evaluation.metrics"),
        },
        recipe={"data.eval_fraction": 0.25, "evaluation.metrics": ["json_equal"], "evaluation.max_new_tokens": 2},
        command=(*TRAIN, "--overwrite"),
    ),
    Case(
        "{} is not a folder: name one that holds runs.",
        {"name one that holds runs": run_instead("runs", ".")},
        command=("runs", "gone"),
    ),
]
