"""Patches of the model: applied in the order of the recipe, undone afterwards, and told to whoever loads the result."""

import json

import pytest
import torch
from conftest import train_run
from run.test_held import killed_after
from safetensors.torch import load_file
from ship.test_load import code_of_card, load_elsewhere, trained_rows
from transformers.models.llama import modeling_llama

import sftplug
from sftplug import ModelError, RecipeError, RunDirectory
from sftplug.libraries.restoring import restoring
from sftplug.model.patching import patches_in_force, plain_twin, without_patches
from sftplug.run.card import _patches

OWN = """
from typing import ClassVar, Literal
from unittest import mock
import torch
from sftplug import ModelPatch, hookimpl
from transformers.models.llama import modeling_llama

DONE = []

class OtherMLP(modeling_llama.LlamaMLP):
    \"\"\"The same, computed in another order.\"\"\"
    def forward(self, x):
        return self.down_proj(self.up_proj(x) * self.act_fn(self.gate_proj(x)))

class Kernel(ModelPatch):
    \"\"\"Another kernel.\"\"\"
    type: str = "kernel"
    def before_loading(self, config):
        DONE.append(config.model_type)
        return mock.patch.object(modeling_llama, "LlamaMLP", OtherMLP)

class Doubled(ModelPatch):
    \"\"\"Twice the logits.\"\"\"
    type: str = "doubled"
    changes_logits: ClassVar[bool] = True
    def after_loading(self, model):
        DONE.append(type(model.model.layers[0].mlp).__name__)
        model.get_output_embeddings().register_forward_hook(lambda _, __, x: 2 * x)
    def loading_code(self):
        return "model.get_output_embeddings().register_forward_hook(lambda _, __, x: 2 * x)"

class Shifted(Doubled):
    \"\"\"Logits plus one.\"\"\"
    type: str = "shifted"
    def after_loading(self, model):
        model.get_output_embeddings().register_forward_hook(lambda _, __, x: x + 1)
    def loading_code(self):
        return "model.get_output_embeddings().register_forward_hook(lambda _, __, x: x + 1)"

class Secret(Doubled):
    \"\"\"One that changes logits and does not say so.\"\"\"
    type: str = "secret"
    changes_logits: ClassVar[bool] = False
    def loading_code(self):
        return ""

class Misread(Doubled):
    \"\"\"One whose card does something else.\"\"\"
    type: str = "misread"
    def loading_code(self):
        return "model.eval()"

class Mute(Doubled):
    \"\"\"One that no card can load.\"\"\"
    type: str = "mute"
    def loading_code(self):
        return ""

class Lasting(ModelPatch):
    \"\"\"One that undoes nothing.\"\"\"
    type: str = "lasting"
    def before_loading(self, config):
        modeling_llama.LlamaMLP = OtherMLP
        return mock.MagicMock()

class Picky(Kernel):
    \"\"\"One for another model.\"\"\"
    type: str = "picky"
    def check_model(self, model):
        yield f"is for models of stone, and this is a {model.config.model_type}."

@hookimpl
def sftplug_model_patches():
    return [Kernel, Doubled, Shifted, Secret, Misread, Mute, Lasting, Picky]
"""
PLAIN_MLP = modeling_llama.LlamaMLP
SAVES = {"max_steps": 4, "per_device_train_batch_size": 4, "learning_rate": 1e-2, "logging_steps": 1, "save_steps": 2}


@pytest.fixture(autouse=True)
def _nothing_is_left():
    """No run leaves another class where the model's own was."""
    yield
    assert modeling_llama.LlamaMLP is PLAIN_MLP


@pytest.fixture(scope="session")
def patched_run(tmp_path_factory):
    """A LoRA on a model with two patches, of which one changes the logits."""
    folder = tmp_path_factory.mktemp("patched")
    (folder / "own.py").write_text(OWN)
    how = {"plugins": ["./own.py"], "patches": ["kernel", "doubled"], "quantization": "fp32", "adapter": "lora"}
    return train_run(folder, "run", **how)


@pytest.fixture
def own_file(recipe_file, tmp_path):
    """Return a function that writes a recipe with patches of those above."""
    (tmp_path / "own.py").write_text(OWN)

    def write(*patches, **sections):
        given = {"plugins": ["./own.py"], "patches": [*patches], "train": {**SAVES, "save_strategy": "steps"}}
        return recipe_file(**{**given, "adapter": "lora", **sections})

    return write


# --- what a run with patches is ---------------------------------------------------------------------------------------


def by_hand(run):
    """Return the model with the adapter on it, and its logits doubled by hand."""
    from peft import AutoPeftModelForCausalLM

    model = AutoPeftModelForCausalLM.from_pretrained(str(run), dtype=torch.float32).eval()
    return lambda ids: 2 * model(torch.tensor([ids])).logits[0]


def test_an_evaluation_is_of_the_patched_model(patched_run, command):
    result = command("eval", patched_run, "--json")
    assert result.exit_code == 0, result.exception
    losses, logits_of = [], by_hand(patched_run)
    for row in sftplug.prepare(sftplug.load(patched_run / "recipe.yaml")).eval:
        with torch.no_grad():
            logits = logits_of(row["input_ids"])[:-1]
        wanted = torch.tensor(row["labels"])[1:]
        losses += torch.nn.functional.cross_entropy(logits, wanted, reduction="none")[wanted != -100].tolist()
    assert json.loads(result.output)["loss"] == pytest.approx(sum(losses) / len(losses), abs=1e-5)


def test_they_are_recorded_and_the_card_tells_and_loads_them(patched_run, tmp_path):
    record = json.loads((patched_run / "run.json").read_text())["patches"]
    assert [(patch["type"], patch["changes_logits"]) for patch in record] == [("kernel", False), ("doubled", True)]
    assert 0 <= record[0]["difference"] < 1e-6
    card = (patched_run / "README.md").read_text()
    assert "how the model computes was changed by `kernel`, `doubled`. What it computes is changed by `doubled`" in card
    loaded, _ = load_elsewhere(patched_run, patched_run, tmp_path)
    with torch.no_grad():
        expected = by_hand(patched_run)(trained_rows(patched_run)[0]["input_ids"])
    assert float((loaded[0] - expected).abs().max()) < 1e-4


def test_merged_the_card_says_what_is_still_needed(patched_run, command, tmp_path):
    result = command("merge", patched_run, "--output", tmp_path / "merged", "--json")
    assert result.exit_code == 0, result.exception
    assert json.loads(result.output)["difference"]["relative"] < 1e-5
    assert "register_forward_hook" in code_of_card(tmp_path / "merged")
    loaded, _ = load_elsewhere(tmp_path / "merged", patched_run, tmp_path)
    with torch.no_grad():
        expected = by_hand(patched_run)(trained_rows(patched_run)[0]["input_ids"])
    assert float((loaded[0] - expected).abs().max()) < 1e-3


def test_one_talks_to_the_patched_model_with_its_base_beside(patched_run):
    open_run = sftplug.open_run(patched_run)
    ids = trained_rows(patched_run)[0]["input_ids"]
    tuned, base = open_run.conversation(), open_run.conversation(base=True)
    assert tuned.ask("Question 3: red or gold?") != base.ask("Question 3: red or gold?")
    with torch.no_grad():
        found = tuned.model(torch.tensor([ids])).logits[0]
        assert float((found - by_hand(patched_run)(ids)).abs().max()) < 1e-4


def test_they_are_applied_in_the_order_of_the_recipe(own_file):
    from sftplug.model.loading import load_base

    ids, found = torch.tensor([[5, 6, 7]]), {}
    for patches in ((), ("doubled", "shifted", "kernel"), ("shifted", "kernel", "doubled")):
        loaded = sftplug.load(own_file(*patches))
        with patches_in_force(loaded.recipe), torch.no_grad():
            found[patches] = load_base(loaded.recipe)(ids).logits
        done = loaded.registry.plugins.loaded["own"].module.DONE
        # What is to be there when the model is loaded is there, wherever in the list it stands.
        assert done == (["llama", "OtherMLP"] if patches else [])
    plain, *others = found.values()
    assert torch.allclose(others[0], 2 * plain + 1, atol=1e-5)
    assert torch.allclose(others[1], 2 * (plain + 1), atol=1e-5)


def test_a_kernel_that_computes_the_same_trains_the_same(own_file, run, tmp_path):
    """It multiplies in another order, which commutes: weights are the same to the bit, those of a resumed run too."""
    train = {**SAVES, "save_strategy": "steps", "save_total_limit": 0}
    file = own_file("kernel", adapter="full", train=train)
    patched = run(file).output
    weights = load_file(patched / "model.safetensors")
    assert json.loads((patched / "config.json").read_text())["architectures"] == ["LlamaForCausalLM"]
    assert "A plain model computes the same." in (patched / "README.md").read_text()
    killed_after(patched, 2)
    run(file, overwrite=False)
    assert RunDirectory.open(patched).state().attempts[-1]["from_step"] == 2
    again = load_file(patched / "model.safetensors")
    plain = run(own_file(adapter="full", train=train)).output
    expected = load_file(plain / "model.safetensors")
    assert all(torch.equal(expected[name], weights[name]) for name in expected)
    assert all(torch.equal(expected[name], again[name]) for name in expected)


def test_a_finished_run_needs_those_alone_that_change_the_logits(own_file, run, command):
    output = run(own_file("kernel", "disable_dropout")).output
    (output / "plugins" / "own.py").write_text(OWN.replace('"kernel"', '"kernel_2"'))
    result = command("chat", output, "--prompt", "Hello?", "--max-new-tokens", 2)
    assert result.exit_code == 0, result.exception
    assert "'kernel' is not installed" in result.output
    assert "The run was trained with it; this command does without." in result.output
    output = run(own_file("doubled")).output
    (output / "plugins" / "own.py").write_text(OWN.replace('"doubled"', '"doubled_2"'))
    error = command("chat", output, "--prompt", "Hello?").exception
    assert isinstance(error, RecipeError)
    assert "'doubled' is not installed" in str(error)


def test_the_card_says_so_where_nothing_was_compared():
    (said,) = _patches([{"type": "kernel", "changes_logits": False, "difference": None}])
    assert said.endswith("as its author says: it was not compared, for several processes shared the model.")
    (said,) = _patches([{"type": "kernel", "changes_logits": False, "difference": 2e-7}])
    assert said.endswith("A plain model computes the same, but for 2.0e-07 of the standard deviation of its logits.")
    assert list(_patches([])) == []


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("adapter", ["lora", "full"])
def test_a_patch_that_is_not_what_it_says_is_refused_before_it_is_trained(adapter, own_file, run):
    with pytest.raises(ModelError) as caught:
        run(own_file("secret", adapter=adapter))
    said = str(caught.value)
    assert "a plain model with these weights computes something else than the patched one (model patch 'secret'" in said
    assert "Nothing has been trained. Leave the patch out; or let it say `changes_logits = True`" in said
    with pytest.raises(ModelError) as caught:
        run(own_file("misread", adapter=adapter))
    said = str(caught.value)
    assert "changed by the `loading_code` of its patches, computes something else" in said
    assert "or let its `loading_code` return Python that does to a plain model what the patch does." in said
    # Either way leads out: without it, and with code that does the same.
    assert run(own_file("shifted", adapter=adapter)).output.is_dir()


def test_check_says_what_no_card_could_load_and_what_does_not_fit(own_file, command):
    said = str(command("check", own_file("kernel", "mute")).exception)
    assert "patches[1]: model patch 'mute' of plugin own (file) changes what the model computes" in said
    for fits in ((), ("kernel", "doubled")):  # without it, and with one that has such code
        assert command("check", own_file(*fits)).exit_code == 0
    said = str(command("check", own_file("picky")).exception)
    assert "patches[0]: is for models of stone, and this is a llama." in said
    assert command("plan", own_file("picky")).exit_code == 0  # for another machine, say


def test_a_patch_that_undoes_nothing_is_named(own_file, command, tmp_path):
    with restoring("transformers.models.llama.modeling_llama"):
        said = str(command("check", own_file("lasting")).exception)
    assert "must undo what it changes, and leaves transformers.models.llama.modeling_llama.LlamaMLP changed" in said
    assert "own.py:" in said


def test_a_plan_says_that_it_does_not_count_them(own_file):
    notes = sftplug.plan(sftplug.load(own_file("kernel", "doubled"))).notes
    assert any("what `patches` (kernel, doubled) change of memory and speed is not counted" in note for note in notes)


# --- in a process -----------------------------------------------------------------------------------------------------


def test_a_plain_model_is_had_while_patches_are_in_force(own_file):
    recipe = sftplug.load(own_file("kernel")).recipe
    with patches_in_force(recipe):
        assert modeling_llama.LlamaMLP is not PLAIN_MLP
        with without_patches():
            assert modeling_llama.LlamaMLP is PLAIN_MLP
        assert modeling_llama.LlamaMLP is not PLAIN_MLP
        from sftplug.model.loading import load_base

        model = load_base(recipe)
        twin = plain_twin(recipe, model)
    assert type(model.model.layers[0].mlp).__name__ == "OtherMLP"
    assert type(twin.model.layers[0].mlp) is PLAIN_MLP
    shared = dict(model.named_parameters())
    assert all(value is shared[name] for name, value in twin.named_parameters())
    ids = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        assert torch.allclose(model(ids).logits, twin(ids).logits, atol=1e-6)


def test_what_others_put_there_for_good_is_put_back():
    before = dict(vars(modeling_llama.LlamaMLP)), dict(vars(torch.nn))
    with restoring("transformers.models.llama", "transformers.modeling_utils", "torch.nn"):
        from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

        ALL_ATTENTION_FUNCTIONS.register("own_attention", print)
        modeling_llama.LlamaMLP.forward = print
        modeling_llama.own = torch.nn.LayerNorm = print
        del modeling_llama.LlamaRMSNorm
    assert (dict(vars(modeling_llama.LlamaMLP)), dict(vars(torch.nn))) == before
    assert modeling_llama.LlamaRMSNorm.__name__ == "LlamaRMSNorm"
    assert not hasattr(modeling_llama, "own")
    assert "own_attention" not in ALL_ATTENTION_FUNCTIONS


# --- disable_dropout --------------------------------------------------------------------------------------------------


def test_dropout_of_layers_and_of_attention_is_switched_off():
    from transformers import AutoModelForCausalLM, GPT2Config, OPTConfig

    size = {"vocab_size": 50, "hidden_size": 16, "num_attention_heads": 2, "num_hidden_layers": 2}
    opt = OPTConfig(**size, ffn_dim=32, word_embed_proj_dim=16, attention_dropout=0.5, layerdrop=0.5)
    for config in (GPT2Config(vocab_size=50, n_embd=16, n_head=2, n_layer=2), opt):
        model = AutoModelForCausalLM.from_config(config).train()
        ids = torch.arange(5, 15)[None]
        with torch.no_grad():
            assert not torch.equal(model(ids).logits, model(ids).logits)
            from sftplug_patches import DisableDropout

            DisableDropout().after_loading(model)
            assert torch.equal(model(ids).logits, model.eval()(ids).logits)
        saved = model.config.to_dict()
        assert 0.1 in (saved.get("dropout"), saved.get("resid_pdrop"))  # what is saved says what it was pretrained with
