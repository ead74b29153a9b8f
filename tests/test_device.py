"""What is left to the device is settled by what it does fast, told, planned with, and kept by a run."""

import json
import platform
import subprocess
import sys

import pytest
from test_defaults import record

from sftplug import Device, PluginError, RunDirectory, this_device
from sftplug.planning import TrainingRows
from sftplug.planning.settings import settings_of
from sftplug.planning.work import work_of
from sftplug.recipe import load_recipe
from sftplug.run import open_session
from sftplug.training.preflight.notices import notices
from sftplug.util.device import DEVICES, find_device, measured

FAST = Device("cpu", on_cpu=True, speeds={"bfloat16": 2.0}, flops=1e11)
SLOW = Device("cpu", on_cpu=True, speeds={"bfloat16": 0.1}, flops=1e11)
OLD_GPU = Device("Turing", on_cpu=False, speeds={"float16": 8.0})
OLDER_GPU = Device("Pascal", on_cpu=False, speeds={})


def quantization_of(file, device, *overrides):
    """Return what the resolved recipe says of the quantization: (name, compute_dtype, origin of what was left open)."""
    loaded = load_recipe(str(file), overrides, device=device)
    found, origins = loaded.recipe.quantization, loaded.tree.origins
    origin = origins.get(("quantization", "compute_dtype")) or origins[("quantization",)]
    return found.type, getattr(found, "compute_dtype", None), origin


@pytest.mark.parametrize(
    ("device", "dtype", "quantization"),
    [
        (FAST, "bfloat16", "bf16"),
        (SLOW, "float32", "fp32"),
        (OLD_GPU, "float16", "fp16"),
        (OLDER_GPU, "float32", "fp32"),
        (DEVICES["H100"], "bfloat16", "bf16"),
        (DEVICES["T4"], "float16", "fp16"),
    ],
)
def test_an_adapter_that_names_no_quantization_gets_the_floats_that_the_device_is_fast_in(
    recipe_file, device, dtype, quantization
):
    assert (device.compute_dtype, device.float_quantization) == (dtype, quantization)
    name, _, origin = quantization_of(recipe_file(adapter="lora", quantization=None), device)
    assert name == quantization
    assert origin == f"default of adapter lora: {device.explain()}"


def test_quantized_weights_are_computed_with_in_the_type_that_the_device_is_fast_in(recipe_file):
    file = recipe_file(adapter="qlora", quantization=None)
    because = "default of quantization nf4: cpu multiplies bfloat16 0.1 times as fast as float32"
    assert quantization_of(file, SLOW) == ("nf4", "float32", because)
    assert quantization_of(file, FAST)[:2] == ("nf4", "bfloat16")
    assert quantization_of(file, OLD_GPU)[1:] == (
        "float16",
        "default of quantization nf4: Turing has no units for bfloat16",
    )
    for name in ("int8", "fp4", "bitsandbytes_4bit"):
        assert quantization_of(recipe_file(adapter="lora", quantization=name), SLOW)[:2] == (name, "float32")
    short = recipe_file(adapter="lora", quantization={"nf4": {"double_quant": False}})
    loaded = load_recipe(str(short), device=SLOW)
    assert (loaded.recipe.quantization.double_quant, loaded.recipe.quantization.compute_dtype) == (False, "float32")
    assert loaded.tree.origins["quantization", "double_quant"] == "recipe.yaml:15"


def test_what_the_recipe_says_and_whole_weights_are_the_same_everywhere(recipe_file):
    assert quantization_of(recipe_file(adapter="lora", quantization="bf16"), SLOW)[0] == "bf16"
    nf4 = {"type": "nf4", "compute_dtype": "bfloat16"}
    assert quantization_of(recipe_file(adapter="lora", quantization=nf4), SLOW)[1] == "bfloat16"
    for device in (FAST, SLOW, OLD_GPU):
        assert quantization_of(recipe_file(adapter="full", quantization=None), device)[0] == "fp32"


STRANGER = """
import sftplug

class Mine(sftplug.Adapter):
    type: str = "mine"
    def peft_config(self): return sftplug.require("peft", needed_by="mine").LoraConfig(target_modules="all-linear")
    def quantization_for(self, device): {adapter}

class Packed(sftplug.Quantization):
    type: str = "packed"
    bits = 8
    in_: sftplug.ComputeDtype | None = sftplug.Field(None, alias="in")
    def load_kwargs(self): return {{"dtype": sftplug.require("torch", needed_by="packed").float32}}
    def for_device(self, device): {quantization}

@sftplug.hookimpl
def sftplug_adapters(): return [Mine]

@sftplug.hookimpl
def sftplug_quantizations(): return [Packed]
"""
RIGHT = {
    "adapter": "return 'int8' if device.is_fast_in('bfloat16') else 'packed'",
    "quantization": "return self.model_copy(update={'in_': device.compute_dtype})",
}


def test_a_stranger_s_components_are_told_what_the_device_does_fast(recipe_file, tmp_path):
    (tmp_path / "stranger.py").write_text(STRANGER.format(**RIGHT))
    file = recipe_file(adapter="mine", quantization=None, plugins=["stranger.py"])
    assert quantization_of(file, FAST)[:2] == ("int8", "bfloat16")
    loaded = load_recipe(str(file), device=SLOW)
    assert (loaded.recipe.quantization.type, loaded.recipe.quantization.in_) == ("packed", "float32")
    assert loaded.tree.origins["quantization", "in"].startswith("default of quantization packed: cpu multiplies")


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (
            {"adapter": "return 'nothing'"},
            r"adapter 'mine' .*quantization_for\(\) names 'nothing', which cannot",
        ),
        ({"adapter": "return None"}, r"quantization_for\(\) must return the name of a quantization, not NoneType"),
        ({"adapter": "return device.color"}, r"quantization_for\(\) failed: AttributeError: .*color"),
        (
            {"quantization": "return 'float32'"},
            r"'packed' .*for_device\(\) must return one of its own class",
        ),
    ],
)
def test_what_a_stranger_answers_wrongly_is_its_fault(recipe_file, tmp_path, wrong, said):
    (tmp_path / "stranger.py").write_text(STRANGER.format(**{**RIGHT, **wrong}))
    with pytest.raises(PluginError, match=said):
        load_recipe(str(recipe_file(adapter="mine", quantization=None, plugins=["stranger.py"])), device=SLOW)


# --- told, and planned with -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sections", "said", "remedy"),
    [
        ({"quantization": "bf16"}, "quantization (recipe.yaml:", "quantization=fp32"),
        (
            {"quantization": {"nf4": {"compute_dtype": "bfloat16"}}},
            "compute_dtype (recipe.yaml:",
            "compute_dtype=float32",
        ),
        ({"train": {"bf16": True, "learning_rate": 2e-4}}, "train.bf16 (recipe.yaml:", "train.bf16=false"),
    ],
)
def test_what_was_asked_for_is_obeyed_and_its_price_told(recipe_file, sections, said, remedy):
    file = str(recipe_file(**{"adapter": "lora", "train": {"learning_rate": 2e-4}, **sections}))
    assert notices(load_recipe(file, device=FAST), FAST) == []
    (told,) = notices(load_recipe(file, device=SLOW), SLOW)
    assert said in told
    assert "cpu multiplies bfloat16 0.1 times as fast as float32, and the run computes in it." in told
    assert f"{remedy.replace('=', ': ')}` is faster" in told
    override = f"quantization.{remedy}" if remedy.startswith("compute") else remedy
    assert notices(load_recipe(file, [override], device=SLOW), SLOW) == []


def test_a_gpu_without_units_is_told_of_the_type_that_it_has(recipe_file):
    loaded = load_recipe(str(recipe_file(adapter="lora", quantization="bf16", train={"learning_rate": 2e-4})))
    (told,) = notices(loaded, OLD_GPU)
    assert "Turing has no units for bfloat16, and the run computes in it. `quantization: fp16` is faster" in told


def test_check_tells_header_and_price(recipe_file, command, slow_bfloat16):
    file = recipe_file(adapter="lora", quantization=None, train={"learning_rate": 2e-4})
    checked = command("check", file)
    assert (
        " ".join(checked.output.split()).count("fp32 default of adapter lora: cpu multiplies bfloat16 0.1 times") == 1
    )
    assert "computes in it" not in checked.output
    assert (
        "note: quantization (command line): cpu multiplies bfloat16 0.1 times"
        in command("check", file, "quantization=bf16").output
    )


def test_header_card_report_and_plan_say_in_what_a_run_computes_and_why(qlora_run, recipe_file, command):
    because = "default of quantization nf4: cpu multiplies bfloat16 2 times as fast as float32"
    assert f"| computes in | bfloat16 | {because} |" in (qlora_run / "README.md").read_text()
    assert f"computes in bfloat16 ({because})" in " ".join(command("report", qlora_run).output.split())
    file = recipe_file(adapter="qlora", quantization=None)
    assert f"computes in bfloat16 {because}" in " ".join(command("check", file).output.split())
    planned = command("plan", file, "--device", "T4")
    assert "computes in: float16 (default of quantization nf4: T4 has no units for bfloat16)" in planned.output


def test_a_plan_counts_with_the_speed_of_the_type_that_is_computed_in(recipe_file):
    seconds = {}
    for name in ("fp32", "bf16"):
        settings = settings_of(load_recipe(str(recipe_file(quantization=name))).recipe, on_cpu=True)
        seconds[name] = work_of(settings, TrainingRows(8, 80), 10, 1e9, SLOW).seconds
    assert seconds["bf16"] == pytest.approx([10 * each for each in seconds["fp32"]])
    assert DEVICES["A100-80GB"].flops_in("bfloat16") == pytest.approx(312e12)
    assert DEVICES["T4"].flops_in("bfloat16") is None


def test_a_plan_for_another_device_chooses_for_that_device(recipe_file, command, slow_bfloat16):
    file = recipe_file(adapter="lora", quantization=None)
    planned = {
        name: json.loads(command("plan", file, "--json", "--device", name).output)["settings"]["quantization"]
        for name in ("cpu", "H100", "T4")
    }
    assert planned == {"cpu": "fp32", "H100": "bf16", "T4": "fp16"}


# --- kept by a run ----------------------------------------------------------------------------------------------------


def test_a_run_is_read_with_the_numbers_that_it_was_trained_in(recipe_file, tmp_path, slow_bfloat16):
    loaded = load_recipe(str(recipe_file(adapter="qlora", quantization=None)), device=FAST)
    run = record(tmp_path / "there", loaded)
    assert run.recipe()["quantization"]["compute_dtype"] == "bfloat16"
    assert run.origins()["quantization.compute_dtype"].startswith("default of quantization nf4: cpu multiplies")
    assert run.load_recipe().recipe.quantization == loaded.recipe.quantization


@pytest.mark.parametrize(("adapter", "path"), [("lora", "quantization.type"), ("qlora", "quantization.compute_dtype")])
def test_a_run_goes_on_in_the_numbers_that_it_began_in_on_another_machine(recipe_file, tmp_path, adapter, path):
    file, output = str(recipe_file(adapter=adapter, quantization=None)), f"output={tmp_path / 'there'}"
    run = record(tmp_path / "there", load_recipe(file, [output], device=FAST))
    here = load_recipe(file, [output], device=SLOW)
    with open_session(here, resume=True) as attempt:
        assert attempt.loaded.recipe.quantization == run.load_recipe().recipe.quantization
        (note,) = [note for note in attempt.notes if path in note]
        assert "as the run was begun (default of" in note
        assert "cpu multiplies bfloat16 2 times as fast" in note
        assert "cpu multiplies bfloat16 0.1 times as fast" in note
    assert "bf" in RunDirectory(tmp_path / "there").recipe()["quantization"][path.partition(".")[2]]


def test_a_record_of_a_time_when_nothing_was_left_to_the_device_is_read_as_it_was_trained(recipe_file, tmp_path):
    """Then `lora` meant bf16, and `nf4` computed in bfloat16, everywhere."""
    file, output = str(recipe_file(adapter="qlora", quantization=None)), f"output={tmp_path / 'there'}"
    run = record(tmp_path / "there", load_recipe(file, [output], device=FAST))
    run.write("origins.json", {**run.origins(), "quantization.compute_dtype": "default"})
    with open_session(load_recipe(file, [output], device=SLOW), resume=True) as attempt:
        assert attempt.loaded.recipe.quantization.compute_dtype == "bfloat16"


# --- this machine -----------------------------------------------------------------------------------------------------


def test_this_machine_is_measured():
    assert all(speed > 1e6 for speed in measured(rounds=1))
    assert this_device(use_cpu=True).on_cpu
    assert find_device("cpu").speeds == {"bfloat16": 2.0}


MEASURE = "from sftplug.util.device import measured; one, two = measured(); print(two / one)"


@pytest.mark.skipif(platform.machine() != "x86_64", reason="oneDNN is told to leave out units of x86 processors")
def test_a_processor_without_units_is_seen_as_slow():
    environment = {"ONEDNN_MAX_CPU_ISA": "AVX2", "PATH": "", "OMP_NUM_THREADS": "1"}
    said = subprocess.run(
        [sys.executable, "-c", MEASURE], env=environment, capture_output=True, text=True, check=True
    ).stdout
    assert float(said) < 0.8


ASKED = """
import sys
from sftplug import RecipeError
from sftplug.recipe import load_recipe
for overrides in ([], ["train.seed=1"], ["adapter.rr=1"]):
    try:
        load_recipe(sys.argv[1], overrides)
    except RecipeError as error:
        print(error.problems[0].path)
    print("torch" in sys.modules)
"""


def test_torch_is_not_imported_for_a_recipe_that_leaves_nothing_open_or_is_wrong(recipe_file):
    settled = recipe_file(name="settled", adapter="lora", quantization={"nf4": {"compute_dtype": "float32"}})
    opened = recipe_file(name="open", adapter={"type": "lora", "rr": 2}, quantization=None)
    for file, said in ((settled, ["False", "False", "adapter.rr", "False"]), (opened, ["adapter.rr", "False"] * 3)):
        result = subprocess.run([sys.executable, "-c", ASKED, file], capture_output=True, text=True, check=True)
        assert result.stdout.split() == said
