"""A finished model as a folder or a file: with the training, from the command line and from Python."""

import errno
import json
import re
import shlex
import zipfile

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import sftplug
from sftplug import Exporter, ModelError, PluginError, RecipeError, RunError

RECORD = {"run.json", "recipe.yaml", "ledger.json", "metrics.jsonl", "environment.json", "training_args.bin"}


def test_the_model_is_written_without_the_record_of_its_run(lora_run, command, tmp_path):
    result = command("export", lora_run, "folder", "--output", tmp_path / "copy")
    assert result.exit_code == 0, result.exception
    assert result.output == f"exported: {tmp_path / 'copy'}\n"
    names = {path.name for path in (tmp_path / "copy").iterdir()}
    assert names >= {"adapter_config.json", "adapter_model.safetensors", "tokenizer.json", "README.md"}
    assert not names & RECORD
    for name in names:
        assert (tmp_path / "copy" / name).read_bytes() == (lora_run / name).read_bytes()


def test_without_a_name_the_exporters_are_listed(lora_run, command, tmp_path):
    listed = command("export", lora_run)
    assert listed.exit_code == 0, listed.exception
    assert re.search(r"^folder +Copy .+ exporters$", listed.output, re.M), listed.output
    offered = json.loads(command("export", lora_run, "--json").output)
    assert offered == {**dict.fromkeys(["folder", "vllm", "zip"], "exporters"), "gguf": "gguf", "ollama": "gguf"}


def test_a_merged_archive_answers_as_the_adapter_does_where_there_is_no_peft(lora_run, command, tmp_path):
    from peft import AutoPeftModelForCausalLM

    for name in ("one.zip", "two.zip"):
        result = command("export", lora_run, "zip", "merged=true", "--output", tmp_path / name, "--json")
        assert json.loads(result.output) == {"exporter": "zip", "output": str(tmp_path / name), "compared": []}
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "two.zip").read_bytes()
    with zipfile.ZipFile(tmp_path / "one.zip") as archive:
        assert archive.testzip() is None
        archive.extractall(tmp_path / "model")
    assert not {path.name for path in (tmp_path / "model").iterdir()} & (RECORD | {"adapter_config.json"})
    ids = AutoTokenizer.from_pretrained(tmp_path / "model")("Question 3: red or gold?", return_tensors="pt").input_ids
    with torch.no_grad():
        merged = AutoModelForCausalLM.from_pretrained(tmp_path / "model", dtype=torch.float32)(ids).logits
        adapted = AutoPeftModelForCausalLM.from_pretrained(lora_run, dtype=torch.float32)(ids).logits
    assert torch.allclose(merged, adapted, atol=1e-3)


def test_what_a_recipe_lists_is_written_when_training_is_over(recipe_file, run, tmp_path):
    forms = ["folder", {"type": "zip", "compression": "deflated"}]
    output = run(recipe_file(train={"max_steps": 2}, export=forms)).output
    assert {path.name for path in (output / "exports").iterdir()} == {"folder", "zip.zip"}
    known = json.loads((output / "written.json").read_text())["files"]
    assert {"exports/zip.zip", "exports/folder/README.md"} <= set(known)
    with pytest.raises(RunError, match=r"zip.zip exists already. Choose another `output`."):
        sftplug.open_run(output).export("zip")


def test_python_exports_by_name_and_by_an_object_of_a_cell(lora_run, tmp_path):
    class Sizes(Exporter):
        type: str = "sizes"
        suffix = ".txt"

        def export(self, model, target):
            target.write_text("\n".join(f"{name} {(model.folder / name).stat().st_size}" for name in model.files))

    run = sftplug.open_run(lora_run)
    assert run.export("zip", tmp_path / "a.zip", compression="deflated") == tmp_path / "a.zip"
    with pytest.raises(ValueError, match="compression: options go with a name"):
        run.export(Sizes(), tmp_path / "b.txt", compression="deflated")
    sizes = run.export(Sizes(), tmp_path / "sizes.txt").read_text()
    assert f"README.md {(lora_run / 'README.md').stat().st_size}" in sizes


@pytest.mark.parametrize(
    ("arguments", "kind", "text"),
    [
        (["zipp"], RecipeError, r"'zipp' is not installed. Did you mean 'zip'\?"),
        (["zip", "compresion=stored"], RecipeError, r"export\[0\]\.compresion .*Did you mean 'compression'\?"),
        (["zip", "stored"], RecipeError, r"stored: an option is written as OPTION=VALUE\."),
        (["zip", "--output", "there.zip"], RunError, r"there.zip exists already"),
        (["folder", "--output", "full"], RunError, r"full is not an empty folder"),
    ],
)
def test_what_cannot_be_exported_leaves_nothing_behind(arguments, kind, text, request, tmp_path):
    lora_run, command = request.getfixturevalue("lora_run"), request.getfixturevalue("command")
    request.getfixturevalue("monkeypatch").chdir(tmp_path)
    (tmp_path / "there.zip").write_text("mine")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    error = command("export", lora_run, *arguments).exception
    assert type(error) is kind
    assert re.search(text, str(error))
    assert sorted(tmp_path.rglob("*")) == before


class Failing(Exporter):
    """It stops halfway, finds the disk full, writes nothing, or asks for what it has not said."""

    type: str = "failing"
    how: str = "stops"
    suffix = ".bin"

    def export(self, model, target):
        if self.how == "stops":
            target.write_text("half")
            raise OSError("no more ink")
        if self.how == "fills":
            target.write_text("half")
            raise OSError(errno.ENOSPC, "No space left on device")
        if self.how == "asks":
            model.merged()


@pytest.mark.parametrize(
    ("how", "text"),
    [
        ("stops", "OSError: no more ink"),
        ("writes nothing", "must write the file that it is given"),
        ("asks", "asks for the merged model, and `needs_merged` is False"),
    ],
)
def test_an_exporter_that_fails_is_named_and_keeps_nothing(lora_run, tmp_path, how, text):
    with pytest.raises(PluginError, match=text) as caught:
        sftplug.open_run(lora_run).export(Failing(how=how), tmp_path / "out.bin")
    assert "exporter 'failing'" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_no_fault_of_the_exporter_and_keeps_nothing(lora_run, tmp_path):
    with pytest.raises(RunError, match=r"out\.bin cannot be written: the disk is full \([\d,]+ bytes are free\)"):
        sftplug.open_run(lora_run).export(Failing(how="fills"), tmp_path / "out.bin")
    assert not list(tmp_path.iterdir())
    assert str(tmp_path / "out.bin") not in sftplug.open_run(lora_run).directory.exports()


def test_check_says_what_cannot_be_merged_before_anything_is_trained(recipe_file, command):
    adapter = {"type": "prompt_tuning", "num_virtual_tokens": 4}
    file = recipe_file(adapter=adapter, export={"zip": {"merged": True}})
    told = str(command("check", file).exception)
    assert "export: zip needs a merged model: 'prompt_tuning' trains a prompt" in told
    assert command("check", recipe_file(adapter=adapter, export="zip")).exit_code == 0


PAPERLESS = """
import sftplug

class Printed(sftplug.Exporter):
    type: str = "printed"
    suffix = ".txt"

    def export(self, model, target):
        if not (model.folder.parent / "paper").exists():
            raise sftplug.ModelError("there is no paper.")
        target.write_text("printed")

@sftplug.hookimpl
def sftplug_exporters():
    return [Printed]
"""


def test_an_export_that_fails_costs_the_run_nothing_and_is_repeated_as_it_says(recipe_file, command, tmp_path):
    (tmp_path / "paperless.py").write_text(PAPERLESS)
    file = recipe_file(train={"max_steps": 2}, export="printed", plugins=["./paperless.py"])
    with pytest.raises(ModelError, match="there is no paper") as caught:
        sftplug.train(file)
    (again,) = re.findall(r"`sftplug (.*?)` writes it again", "".join(caught.value.__notes__))
    (tmp_path / "paper").touch()
    assert command(*again.split()).exit_code == 0
    assert (tmp_path / "out" / "exports" / "printed.txt").read_text() == "printed"


def test_one_exporter_listed_twice_is_refused(recipe_file, lora_run, command, tmp_path):
    with pytest.raises(RecipeError, match=r"export\[1\].*: 'zip' is listed twice") as caught:
        sftplug.load(recipe_file(export=["zip", {"type": "zip", "merged": True}]))
    (way,) = re.findall(r"`sftplug (.*?)` writes another", str(caught.value))
    values = {"RUN": lora_run, "OPTION=VALUE": "compression=deflated", "PATH": tmp_path / "another.zip"}
    assert command(*(values.get(word, word) for word in way.split())).exit_code == 0
    assert (tmp_path / "another.zip").is_file()


# --- vLLM -------------------------------------------------------------------------------------------------------------


def flags_of(script):
    """Return what a script hands to vLLM, as a shell understands it; `$here` stays as it is."""
    command = script.read_text().split("exec ")[1].replace("\\\n", " ")
    return shlex.split(command)


@pytest.fixture(scope="module")
def based(tmp_path_factory):
    """Return a function that trains two steps on a base in a folder, and returns the run."""
    from conftest import rows, write_rows
    from twins import write_twin

    base = write_twin("llama", tmp_path_factory.mktemp("base"))

    def train(**sections):
        folder = tmp_path_factory.mktemp("based")
        write_rows(folder / "rows.jsonl", rows())
        recipe = {
            "model": str(base),
            "data": {"train": {"path": str(folder / "rows.jsonl"), "format": "messages"}},
            "chat_template": "chatml",
            "quantization": "fp32",
            "adapter": "lora",
            "train": {"max_steps": 2, "use_cpu": True, "save_strategy": "no"},
            "output": str(folder / "first run"),
            **sections,
        }
        return base, sftplug.train(recipe, show=False)

    return train


def test_vllm_gets_an_adapter_with_template_and_stops(based, tmp_path):
    base, run = based(adapter={"type": "lora", "r": 12})
    target = run.export("vllm", tmp_path / "served")
    flags = flags_of(target / "serve.sh")
    assert flags[:3] == ["vllm", "serve", str(base)]
    assert flags[flags.index("--lora-modules") + 1] == "first-run=$here"
    assert flags[flags.index("--max-lora-rank") + 1] == "16"  # the smallest that vLLM has for 12
    for flag in ("--tokenizer", "--generation-config"):
        assert flags[flags.index(flag) + 1] == "$here"
    assert flags[flags.index("--chat-template") + 1] == "$here/chat_template.jinja"
    assert {"adapter_model.safetensors", "generation_config.json", "chat_template.jinja"} <= {
        file.name for file in target.iterdir()
    }
    assert (target / "serve.sh").stat().st_mode & 0o100


def test_vllm_gets_a_whole_model(lora_run, tmp_path):
    target = sftplug.open_run(lora_run).export("vllm", tmp_path / "served", merged=True)
    flags = flags_of(target / "serve.sh")
    assert flags[:3] == ["vllm", "serve", "$here"]
    assert "--enable-lora" not in flags
    assert (target / "model.safetensors").is_file()
    assert not (target / "adapter_config.json").exists()


@pytest.mark.parametrize(
    ("adapter", "text"),
    [
        ({"type": "lora", "dora": True}, "it is a DoRA"),
        ({"type": "lora", "modules_to_save": ["lm_head"]}, "it has whole modules beside its updates"),
        ({"type": "lora", "targets": ["q_proj", "embed_tokens"]}, "it adapts embeddings"),
        ({"type": "lora", "init": "pissa"}, "it begins as pissa, which changes the base's own weights"),
        ({"type": "vera"}, "it is a VERA, and vLLM knows LoRA"),
    ],
)
def test_what_vllm_cannot_serve_is_refused_with_a_way_out(adapter, text, based, tmp_path):
    _, run = based(adapter=adapter)
    with pytest.raises(ModelError, match=f"vLLM cannot serve this adapter: {text}.+Set `merged: true`"):
        run.export("vllm", tmp_path / "served")
    assert not (tmp_path / "served").exists()


def test_check_knows_what_vllm_will_not_take(recipe_file):
    with pytest.raises(RecipeError, match=r"the base is built by `model\.build`, and vLLM loads the base by its name"):
        sftplug.load(recipe_file(adapter="lora", export=["vllm"], train={"max_steps": 1}))
    merged = sftplug.load(recipe_file(adapter="lora", export=[{"vllm": {"merged": True}}], train={"max_steps": 1}))
    assert sftplug.check(merged) == []
