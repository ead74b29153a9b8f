"""Heads: equal to the model's own logits in loss and gradient, chosen by a measurement, kept by a resumed run."""

import pytest
import torch
from transformers import AutoModelForCausalLM, CohereConfig, Gemma2Config, GPTNeoXConfig, GraniteConfig

import sftplug
from sftplug import ModelError, RecipeError
from sftplug.model.loading import base_model_path, load_model
from sftplug.recipe import load_recipe
from sftplug.training import chosen_loss, heads
from sftplug.training.head_trials import Trials
from sftplug.training.scores import OutputHead, logits_at, states_at
from sftplug.training.train import make_trainer
from sftplug.training.usual_head import CHUNKED, FUSED, first_head
from tests.conftest import TINY, rows
from tests.run.test_held import killed_after
from tests.strangers import Site

WEIGHED = {"masking": ["assistant", "message_weights"], "adapter": {"type": "lora", "dropout": 0.0}}


def weighed_rows():
    data = rows(8)
    for index, row in enumerate(data):
        row["messages"][1]["weight"] = 0.3 * (index % 4 + 1)
    return data


def trainer_of(file, prepared, *overrides):
    recipe = load_recipe(str(file), overrides).recipe
    trainer = make_trainer(recipe, load_model(recipe), prepared(file, *overrides))
    draw = torch.Generator().manual_seed(1)
    for name, parameter in trainer.model.named_parameters():
        if "lora_B" in name:  # at first an adapter changes nothing
            parameter.data = 0.3 * torch.randn(parameter.shape, generator=draw)
    return trainer


def computed(trainer):
    """Return the loss of a batch, its gradients, and the loss of the held-out rows."""
    loss = trainer.compute_loss(trainer.model, next(iter(trainer.get_train_dataloader())))
    loss.backward()
    gradients = {name: p.grad.clone() for name, p in trainer.model.named_parameters() if p.grad is not None}
    trainer.model.zero_grad()
    return loss.item(), gradients, trainer.evaluate()["eval_loss"]


EVERY = [
    "{type: cross_entropy",
    "{type: cross_entropy, label_smoothing: 0.1, z_loss: 0.01",
    "{type: dft",
    "{type: focal, gamma: 1.5",
    "{type: kl_to_base, weight: 0.5",
    "{type: distill, teacher: TEACHER, weight: 0.25",
]
LIKELIHOOD = [EVERY[0], EVERY[2], EVERY[3]]


@pytest.mark.parametrize(
    ("loss", "head"), [*((loss, "chunked") for loss in EVERY), *((x, "fused") for x in LIKELIHOOD)]
)
def test_loss_and_gradient_are_those_of_all_logits(recipe_file, prepared, monkeypatch, loss, head):
    """With weights of tokens, in training and evaluation; the pieces are of three tokens."""
    monkeypatch.setattr(chosen_loss, "PIECE", 3)
    file = recipe_file(data=weighed_rows(), **WEIGHED)
    file.write_text(file.read_text().replace("data:\n", "data:\n  eval: {path: rows.jsonl, format: messages}\n"))
    loss = loss.replace("TEACHER", base_model_path(load_recipe(str(file)).recipe))
    plain, gradients, held_out = computed(trainer_of(file, prepared, f"loss={loss}, head: full}}"))
    found = computed(trainer_of(file, prepared, f"loss={loss}, head: {head}}}"))
    assert (found[0], found[2]) == (pytest.approx(plain, rel=1e-5), pytest.approx(held_out, rel=1e-5))
    assert found[1].keys() == gradients.keys()
    for name, gradient in gradients.items():
        assert (found[1][name] - gradient).norm() <= 1e-5 * gradient.norm(), name


def test_a_head_that_is_trained_gets_its_gradient_from_every_piece(recipe_file, prepared, monkeypatch):
    """All weights are trained, those of a head that is tied to the embeddings among them."""
    monkeypatch.setattr(chosen_loss, "PIECE", 3)
    file = recipe_file(data=rows(8))
    whole, pieces = (
        computed(trainer_of(file, prepared, f"loss={{type: cross_entropy, head: {head}}}", "data.eval_fraction=0.25"))
        for head in ("full", "chunked")
    )
    assert any("embed_tokens" in name for name in whole[1])
    for name, gradient in whole[1].items():
        assert (pieces[1][name] - gradient).norm() <= 1e-5 * gradient.norm(), name


FAMILIES = [
    Gemma2Config(head_dim=16, final_logit_softcapping=3.0, query_pre_attn_scalar=16),
    CohereConfig(logit_scale=0.25),
    GraniteConfig(logits_scaling=6.0),
    GPTNeoXConfig(),
]


@pytest.mark.parametrize("config", FAMILIES, ids=lambda config: config.model_type)
def test_what_a_family_does_to_its_logits_is_known(config):
    for name, value in {
        "vocab_size": 50,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "pad_token_id": 0,
    }.items():
        setattr(config, name, value)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    given, positions = {"input_ids": torch.randint(50, (2, 9))}, torch.tensor([-8, -3])
    with torch.no_grad():
        logits, _ = logits_at(model, model, given, positions)
        head = OutputHead(model)
        states, outputs = states_at(model, head, given, positions)
    assert outputs.logits.numel() == 0
    layer = head.layer()
    for found in (states.logits(slice(None)), layer.logits(states.values)):
        assert torch.allclose(found, logits.values.float(), atol=1e-5)


# --- what does not go together ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (
            ["loss={type: kl_to_base, head: fused}", "adapter=lora"],
            "'fused' makes no logits, and 'kl_to_base' wi",
        ),
        (["loss={type: cross_entropy, z_loss: 0.1, head: fused}"], r"Choose `head: chunked` or `head: full`\."),
        (["loss={type: focal, head: chunked}", "launch=fsdp2"], r"whole output layer in each process, and `fsdp2` spl"),
        (["loss={type: focal, head: wide}"], r"loss\.head.*'wide'.*chunked"),
    ],
)
def test_heads_that_cannot_be_are_refused_in_words(recipe_file, overrides, said):
    with pytest.raises(RecipeError, match=said):
        load_recipe(str(recipe_file()), overrides)


@pytest.mark.parametrize("head", ["full", "chunked", "fused", "own"])
@pytest.mark.parametrize("loss", EVERY)
def test_every_loss_goes_with_every_head_or_is_refused_in_words(recipe_file, tmp_path, loss, head):
    """Those that go are computed above; a head of a plugin goes where the fused one does."""
    (tmp_path / "own.py").write_text(HEAD.format(nll="nll"))
    file = recipe_file(adapter="lora", plugins="./own.py")
    written = f"loss={loss.replace('TEACHER', 'org/large')}, head: {head}}}"
    if head in ("full", "chunked") or loss in LIKELIHOOD:
        assert load_recipe(str(file), [written]).recipe.loss.head.type == head
        return
    with pytest.raises(RecipeError, match=rf"'{head}' makes no logits, and '\w+' with these options asks for them\."):
        load_recipe(str(file), [written])


@pytest.mark.parametrize("loss", LIKELIHOOD)
def test_a_head_of_a_plugin_has_the_losses_of_all_logits(recipe_file, prepared, tmp_path, loss):
    (tmp_path / "own.py").write_text(HEAD.format(nll="nll"))
    file = recipe_file(data=weighed_rows(), plugins="./own.py", **WEIGHED)
    file.write_text(file.read_text().replace("data:\n", "data:\n  eval: {path: rows.jsonl, format: messages}\n"))
    plain, found = (computed(trainer_of(file, prepared, f"loss={loss}, head: {head}}}")) for head in ("full", "own"))
    assert (found[0], found[2]) == (pytest.approx(plain[0], rel=1e-5), pytest.approx(plain[2], rel=1e-5))


def test_names_that_no_recipe_could_choose_are_refused(recipe_file, tmp_path):
    for name in ("auto", "type", "null"):
        (tmp_path / "own.py").write_text(HEAD.format(nll="nll").replace('"own"', f'"{name}"'))
        with pytest.raises(RecipeError, match=f"offers Own, which is named '{name}', which means something else where"):
            load_recipe(str(recipe_file(plugins="./own.py")))


def test_left_open_is_open_however_it_is_written(recipe_file):
    for written in ("loss=focal", "loss={type: focal, head: auto}", "loss={type: focal, head: null}"):
        assert load_recipe(str(recipe_file()), [written]).recipe.loss.head is None


def test_no_head_holds_all_logits_on_an_accelerator_unless_it_is_named(recipe_file):
    def usual(*overrides):
        recipe = load_recipe(str(recipe_file(adapter="lora")), overrides).recipe
        return first_head(recipe, on_cpu=True).name, first_head(recipe, on_cpu=False).name

    assert usual() == usual("loss=dft") == ("full", "fused")
    assert usual("loss=kl_to_base") == usual("loss={type: cross_entropy, z_loss: 0.1}") == ("full", "chunked")
    assert usual("loss={type: kl_to_base, head: full}") == ("full", "full")


# --- which one a run takes --------------------------------------------------------------------------------------------

HEAD = """
import sftplug

class Own(sftplug.Head):
    type: str = "own"

    def nll(self, states, layer, labels):
        nll = -layer.logits(states).log_softmax(-1).gather(1, labels[:, None])[:, 0]
        return {nll}

@sftplug.hookimpl
def sftplug_heads():
    return [Own]
"""
SAVED = {"max_steps": 4, "learning_rate": 3e-2, "save_strategy": "steps", "save_steps": 2, "save_total_limit": 0}


@pytest.fixture
def clocked(monkeypatch):
    """Return a function that sets how long each head takes, and lets every run try them."""
    monkeypatch.setattr(heads, "WORTH_IT", 0)

    def clock(**seconds):
        monkeypatch.setattr(Trials, "_seconds", lambda self, head, scored: seconds[head.name])

    return clock


def test_the_fastest_is_taken_and_a_resumed_run_keeps_it(recipe_file, run, clocked, tmp_path):
    (tmp_path / "own.py").write_text(HEAD.format(nll="nll"))
    file = recipe_file(adapter="lora", plugins="./own.py", train={**SAVED, "per_device_train_batch_size": 4})
    clocked(full=2.0, chunked=3.0, fused=4.0, own=1.0)
    output = run(file).output
    record = sftplug.RunDirectory.open(output).state().head
    assert (record["name"], record["why"][:41]) == ("own", "2.0 times as fast as 'full' and equal, tr")
    assert [(trial["head"], trial["seconds"]) for trial in record["tried"]] == [
        ("full", 2.0),
        ("chunked", 3.0),
        ("fused", 4.0),
        ("own", 1.0),
    ]
    assert all(trial["apart"] <= trial["allowed"] for trial in record["tried"])
    whole = (output / "adapter_model.safetensors").read_bytes()
    killed_after(output, 2)
    clocked(full=1.0, chunked=3.0, fused=4.0, own=5.0)  # on another day
    resumed = run(file, overwrite=False)
    state = sftplug.RunDirectory.open(resumed.output).state()
    assert (state.head["name"], state.head["why"]) == ("own", "as the run was begun")
    assert (output / "adapter_model.safetensors").read_bytes() == whole


def test_a_head_whose_plugin_is_gone_is_asked_for(recipe_file, run, clocked, tmp_path):
    (tmp_path / "own.py").write_text(HEAD.format(nll="nll"))
    file = recipe_file(adapter="lora", plugins="./own.py", train={**SAVED, "per_device_train_batch_size": 4})
    clocked(full=9.0, chunked=9.0, fused=9.0, own=1.0)
    killed_after(run(file).output, 2)
    (tmp_path / "own.py").write_text(HEAD.format(nll="nll").replace("return [Own]", "return []"))
    said = "the run was begun with the head 'own', which no plugin in use offers. Install the plugin that does and name"
    with pytest.raises(sftplug.RunError, match=said):
        run(file, overwrite=False)
    (tmp_path / "own.py").write_text(HEAD.format(nll="nll"))
    assert run(file, overwrite=False).loss > 0


def test_a_run_from_before_there_were_heads_goes_on_with_what_it_had(recipe_file, run, clocked):
    clocked(full=9.0, chunked=9.0, fused=9.0)
    file = recipe_file(adapter="lora", train={**SAVED, "per_device_train_batch_size": 4})
    output = run(file).output
    whole = (output / "adapter_model.safetensors").read_bytes()
    killed_after(output, 2)
    directory = sftplug.RunDirectory.open(output)
    state = directory.state()
    state.head = None
    directory.write_state(state)
    clocked(full=9.0, chunked=1.0, fused=9.0)
    assert sftplug.RunDirectory.open(run(file, overwrite=False).output).state().head["name"] == "full"
    assert (output / "adapter_model.safetensors").read_bytes() == whole


@pytest.mark.parametrize(
    "wrong", ["1.001 * nll", "nll.detach() + 0.5 * (nll - nll.detach())"], ids=["loss", "gradient"]
)
def test_a_head_that_is_not_equal_is_refused_or_passed_over(recipe_file, run, clocked, tmp_path, wrong):
    (tmp_path / "own.py").write_text(HEAD.format(nll=wrong))
    file = recipe_file(adapter="lora", plugins="./own.py", train={"max_steps": 1})
    with pytest.raises(ModelError, match=r"loss\.head: head 'own' of plugin own \(file\): .* differ by .*`head: full`"):
        run(file, "loss={type: dft, head: own}")
    clocked(full=9.0, chunked=9.0, fused=9.0, own=1.0)
    assert sftplug.RunDirectory.open(run(file).output).state().head["name"] == "full"


def test_a_head_that_fails_when_nobody_named_it_is_passed_over(recipe_file, run, clocked, tmp_path):
    (tmp_path / "own.py").write_text(HEAD.format(nll="nll.nothing"))
    clocked(full=9.0, chunked=1.0, fused=9.0)
    result = run(recipe_file(adapter="lora", plugins="./own.py", train={"max_steps": 1}))
    record = sftplug.RunDirectory.open(result.output).state().head
    assert record["name"] == "chunked"
    assert record["tried"][-1]["failed"] == "failed (PluginError)"


def test_few_logits_are_not_worth_a_trial(recipe_file, run, monkeypatch):
    monkeypatch.setattr(Trials, "of", lambda *_: pytest.fail("heads were tried"))
    result = run(recipe_file(adapter="lora", train={"max_steps": 1}))
    assert sftplug.RunDirectory.open(result.output).state().head == {
        "name": "full",
        "why": "",
        "tried": [],
        "not_tried": [],
    }


def test_a_trial_leaves_no_trace_and_takes_time(recipe_file, prepared):
    trainer = trainer_of(recipe_file(data=weighed_rows(), **WEIGHED), prepared)
    before, drawn = {k: v.clone() for k, v in trainer.model.state_dict().items()}, torch.get_rng_state()
    trials = Trials(trainer)
    for trial in trials.of([CHUNKED, FUSED]):
        assert trial.is_equal
        assert trial.seconds > 0
    assert (trials.tokens > 10, trials.unlike_logits(CHUNKED), trials.unlike_logits(FUSED)) == (True, "", "")
    assert torch.equal(torch.get_rng_state(), drawn)
    assert trainer.model.training
    assert all(parameter.grad is None for parameter in trainer.model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in trainer.model.state_dict().items())


def test_the_head_that_was_taken_is_told(recipe_file, command, clocked):
    clocked(full=3.0, chunked=1.0, fused=9.0)
    said = command("train", recipe_file(adapter="lora", train={"max_steps": 1})).output
    assert "head of the loss: chunked, 3.0 times as fast as 'full' and equal, tried on" in " ".join(said.split())


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Install a head as the plugin `acme`, for this test."""
    site = Site(tmp_path / "site")
    site.install(HEAD.format(nll="nll"))
    monkeypatch.syspath_prepend(site.folder)


@pytest.mark.usefixtures("installed")
def test_a_head_that_is_only_installed_is_not_tried_which_is_said_with_how_to_keep_one(
    recipe_file, command, run, clocked
):
    clocked(full=2.0, chunked=3.0, fused=9.0, own=1.0)
    file = recipe_file(adapter="lora", train={"max_steps": 1})
    said = " ".join(command("train", file).output.split())
    assert "head of the loss: full, the fastest of 3 that is equal, tried on " in said
    assert ". Clocks differ: a new run may take another head, unless its recipe says `loss.head: full`. " in said
    assert ". Installed and not tried, for the recipe does not use its plugin: own (of plugin acme)" in said
    record = sftplug.RunDirectory.open(file.parent / "out").state().head
    assert (record["name"], record["not_tried"]) == ("full", ["own (of plugin acme)"])
    record = sftplug.RunDirectory.open(run(file, "plugins=[acme]").output).state().head
    assert (record["name"], record["not_tried"]) == ("own", [])
    clocked(full=9.0, chunked=1.0, fused=9.0, own=9.0)
    record = sftplug.RunDirectory.open(run(file, "plugins=[acme]", "loss.head=full").output).state().head
    assert (record["name"], record["why"], record["tried"]) == ("full", "as the recipe says", [])


def test_a_plan_says_how_a_head_of_a_plugin_is_counted(recipe_file, tmp_path):
    (tmp_path / "own.py").write_text(HEAD.format(nll="nll"))
    file = recipe_file(adapter="lora", plugins="./own.py", loss={"type": "dft", "head": "own"})
    told = "head 'own' is counted as TRL's fused one: what it holds and how long it takes, it alone knows"
    assert told in sftplug.plan(str(file)).notes
    assert told not in sftplug.plan(sftplug.load(str(file), "loss.head=fused")).notes


def test_a_layer_that_is_no_plain_one_is_for_heads_that_need_none_of_its_numbers(recipe_file, run, tmp_path):
    (tmp_path / "own.py").write_text(HEAD.format(nll="nll"))
    file = recipe_file(
        adapter="lora", plugins="./own.py", train={"max_steps": 1}, model={"build": TINY, "add_tokens": ["<t>"]}
    )
    with pytest.raises(
        ModelError, match="needs the numbers of a plain output layer, and that of this model is quantiz"
    ):
        run(file, "loss={type: dft, head: own}")
    assert run(file, "loss={type: dft, head: chunked}").log[0]["loss"] > 0
