"""The pages of "How do I …?": what they show is what the commands do, and their code runs as it stands."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import rows, write_rows
from twins import make_model

import sftplug
from sftplug.testing import check_masking

DOCS = Path(__file__).parents[1] / "docs"
PAGES = sorted({*DOCS.glob("how-*.md")} - {DOCS / "how-do-i.md", DOCS / "how-a-run-goes.md"})
SHOWN = sorted(folder.name for folder in (DOCS / "how").iterdir() if (folder / "recipe.yaml").is_file())


@pytest.fixture
def how(monkeypatch):
    """The commands that the pages run."""
    monkeypatch.syspath_prepend(DOCS)
    import transcript

    return transcript.HOW


@pytest.fixture
def folder_of(monkeypatch, tmp_path):
    """Return a function that makes a copy of a page's folder the working folder."""

    def go(name):
        shutil.copytree(DOCS / "how" / name, tmp_path / name)
        monkeypatch.chdir(tmp_path / name)
        monkeypatch.setenv("COLUMNS", "100")

    return go


def trained(text):
    """Return what a preview marks as trained."""
    return re.findall(r"⟦(.*?)⟧", text, re.DOTALL)


def test_every_page_is_in_the_table_and_every_folder_has_a_page(how):
    table = (DOCS / "how-do-i.md").read_text()
    assert len(PAGES) >= 7
    assert all(f"({page.name})" in table for page in PAGES)
    assert {f"how-{name}" for name in SHOWN} == set(how)


@pytest.mark.parametrize("name", SHOWN)
def test_a_page_shows_its_recipe_and_what_its_commands_print(name, how, command, folder_of):
    page, kept = (DOCS / f"how-{name}.md").read_text(), (DOCS / "transcripts" / f"how-{name}.txt").read_text()
    included = re.findall(r"```\{literalinclude\} (\S+)", page)
    assert {f"how/{name}/recipe.yaml", f"transcripts/how-{name}.txt"} <= set(included)
    assert all((DOCS / file).is_file() for file in included)
    assert re.findall(r"^\$ (.*)$", kept, re.MULTILINE) == list(how[f"how-{name}"])
    folder_of(name)
    printed = ""
    for line in how[f"how-{name}"]:
        _, *words = (word.strip("'") for word in re.findall(r"'[^']*'|\S+", line))
        done = command(*words)
        assert done.exit_code == 0, done.exception or done.output
        printed += done.output
    assert trained(kept)
    assert trained(printed) == trained(kept)


@pytest.mark.parametrize(
    ("name", "masking", "expected"),
    [
        ("multi-turn", "last_assistant", ["21.<|im_end|>", "No: a cherry.<|im_end|>"]),
        ("multi-turn", "{turns: 1}", ["21.<|im_end|>", "No: a cherry.<|im_end|>"]),
        ("tools", "[assistant, {tool_calls: 0}]", ["<|im_end|>", "Yes, 24 degrees.<|im_end|>"]),
    ],
)
def test_other_maskings_that_the_pages_name_do_what_they_say(name, masking, expected, command, folder_of):
    folder_of(name)
    keep = (
        [] if name == "tools" else ["data.on_unread_column=report"]
    )  # a row's `train: false`, which nothing reads then
    done = command("preview", "recipe.yaml", "-n", 2, f"masking={masking}", *keep)
    assert [text.splitlines()[-1] for text in trained(done.output)][-len(expected) :] == expected


# --- a loss of my own -------------------------------------------------------------------------------------------------


def test_the_beginning_of_each_reply_counts_more(monkeypatch):
    monkeypatch.syspath_prepend(DOCS / "how" / "loss")
    from early import Early

    check_masking(Early, every=3)


# --- SLURM ------------------------------------------------------------------------------------------------------------

INTERRUPT = """
import signal
from pathlib import Path
from typing import Literal

import sftplug


class Interrupt(sftplug.Callback):
    \"\"\"Time is up after the second step, once.\"\"\"

    type: Literal["interrupt"] = "interrupt"

    def trainer_callback(self):
        from transformers import TrainerCallback

        class Send(TrainerCallback):
            def on_step_begin(self, args, state, control, **kwargs):
                if state.global_step == 2 and not Path("sent").exists():
                    Path("sent").touch()
                    signal.raise_signal(signal.SIGTERM)

        return Send()


@sftplug.hookimpl
def sftplug_callbacks():
    return [Interrupt]
"""


def submit(folder, *arguments):
    """Run the job's script with programs that stand for SLURM's; return the exit code and what was queued again."""
    programs = {
        "srun": 'exec "$@"',
        "scontrol": f'echo "$@" >>{folder}/queued',
        "sftplug": f'exec {sys.executable} -m sftplug "$@"',
    }
    (folder / "bin").mkdir(exist_ok=True)
    for name, text in programs.items():
        (folder / "bin" / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / "bin" / name).chmod(0o755)
    path = f"{folder / 'bin'}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", str(DOCS / "how" / "slurm" / "train.sbatch"), *arguments],
        cwd=folder,
        env={**os.environ, "PATH": path, "SLURM_JOB_ID": "7", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    queued = folder / "queued"
    return done, queued.read_text() if queued.exists() else ""


@pytest.mark.slow
def test_a_job_whose_time_is_up_is_queued_again_and_resumes(recipe_file, tmp_path):
    (tmp_path / "interrupt.py").write_text(INTERRUPT)
    recipe_file(plugins=["./interrupt.py"], callbacks=["interrupt"])
    first, queued = submit(tmp_path, "recipe.yaml", "--output", "out")
    assert (first.returncode, queued) == (0, "requeue 7\n"), first.stderr
    assert sftplug.RunDirectory.open(tmp_path / "out").state().state == "interrupted"
    second, queued = submit(tmp_path, "recipe.yaml", "--output", "out")
    assert (second.returncode, queued) == (0, "requeue 7\n"), second.stderr
    run = sftplug.RunDirectory.open(tmp_path / "out")
    assert (run.state().state, run.state().attempts[-1]["from_step"]) == ("finished", 3)
    third, queued = submit(tmp_path, "missing.yaml")
    assert (third.returncode, queued) == (2, "requeue 7\n")


# --- code of the pages ------------------------------------------------------------------------------------------------


def code(page, name):
    """Return the code that a page shows under `name`."""
    return (DOCS / page).read_text().split(f"<!-- {name} -->\n```python\n")[1].split("```")[0]


def test_a_merged_model_loads_as_the_page_says(lora_run, command, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    done = command("merge", lora_run, "--output", "merged")
    assert done.exit_code == 0, done.exception or done.output
    capsys.readouterr()
    exec(compile(code("how-serve.md", "transformers"), "how-serve.md", "exec"), {})
    assert capsys.readouterr().out.strip()


@pytest.mark.filterwarnings("ignore:`gradient_checkpointing`:FutureWarning")
def test_plain_trl_trains_on_the_labels_as_the_page_says(monkeypatch, tmp_path):
    """As it stands, but for the model, which is small, and for how long it trains."""
    from sftplug_tiny.builder import build_tokenizer

    tokenizer = build_tokenizer(1024)
    folder = Path(sftplug.__file__).parents[1] / "plugins" / "sftplug_templates"
    tokenizer.chat_template = (folder / "chatml.jinja").read_text()
    tokenizer.save_pretrained(tmp_path / "model")
    make_model("llama", len(tokenizer)).save_pretrained(tmp_path / "model")
    write_rows(tmp_path / "rows.jsonl", rows(8))
    monkeypatch.chdir(tmp_path)
    text = code("how-encode.md", "trl").replace("Qwen/Qwen3-0.6B", "model")
    text = text.replace("max_length=None)", 'max_length=None, report_to="none", use_cpu=True, max_steps=1, bf16=False)')
    scope = {}
    exec(compile(text, "how-encode.md", "exec"), scope)
    batch = next(iter(scope["trainer"].get_eval_dataloader(scope["data"])))
    wanted = [sftplug.encode(tokenizer, row["messages"]).labels for row in scope["rows"]]
    for labels, one in zip(batch["labels"].tolist(), wanted, strict=False):
        assert labels[: len(one)] == one
        assert np.any(np.array(one) == -100)
    assert scope["trainer"].state.global_step == 1
