"""The built-in losses: by hand, token by token; through the trainer, whatever the batches; and over a resume."""

import re
import shutil

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

import sftplug
from sftplug import Loss, ModelError, RecipeError, TrainedTokens
from sftplug.model.loading import base_model_path, load_model
from sftplug.model.teacher import with_teacher_as_model
from sftplug.recipe import load_recipe
from sftplug.training import chosen_loss
from sftplug.training.train import make_trainer
from sftplug_losses.base import KlToBase
from sftplug_losses.likelihood import CrossEntropy, Dft, Focal
from sftplug_losses.teacher import Distill
from tests.conftest import TINY, rows, write_rows
from tests.run.test_held import killed_after

P = torch.tensor([[0.5, 0.3, 0.2], [0.1, 0.1, 0.8], [0.9, 0.05, 0.05]], dtype=torch.float64)
Q = torch.tensor([[0.2, 0.6, 0.2], [0.1, 0.2, 0.7], [0.3, 0.3, 0.4]], dtype=torch.float64)
"""Probabilities of a model, and of its base, for three tokens of a vocabulary of three."""
LABELS = torch.tensor([0, 1, 0])
OWN = P[range(3), LABELS]
SHIFT = 2.0
"""Added to all logits, which changes no probability: log Z is 2."""


def tokens():
    logits, base = (values.log().float() for values in (P, Q))
    padded = torch.cat([base, torch.full((3, 2), 9.0)], 1)  # the teacher's table has two rows more, which nobody wrote
    return TrainedTokens(logits + SHIFT, LABELS, torch.ones(3), base_logits=base, teacher_logits=padded)


HOT_P, HOT_Q = (values.sqrt() / values.sqrt().sum(-1, keepdim=True) for values in (P, Q))
"""The same distributions at temperature 2."""


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        (CrossEntropy(), -OWN.log()),
        (CrossEntropy(label_smoothing=0.3), 0.7 * -OWN.log() + 0.3 * -P.log().mean(-1)),
        (CrossEntropy(z_loss=0.5), -OWN.log() + 0.5 * SHIFT**2),
        (Dft(), -OWN * OWN.log()),
        (Focal(gamma=2.0), -((1 - OWN) ** 2) * OWN.log()),
        (Focal(gamma=0.0), -OWN.log()),
        (KlToBase(weight=0.5), -OWN.log() + 0.5 * (Q * (Q / P).log()).sum(-1)),
        (Distill(teacher="x", weight=0.25), -0.75 * OWN.log() + 0.25 * (Q * (Q / P).log()).sum(-1)),
        (Distill(teacher="x", weight=1.0, temperature=2.0), 4 * (HOT_Q * (HOT_Q / HOT_P).log()).sum(-1)),
        (KlToBase(weight=0.5, direction="reverse"), -OWN.log() + 0.5 * (P * (P / Q).log()).sum(-1)),
    ],
    ids=str,
)
def test_by_hand(loss, expected):
    assert loss.token_losses(tokens()).tolist() == pytest.approx(expected.tolist(), abs=1e-5)


def test_the_weight_of_dynamic_fine_tuning_has_no_gradient():
    """Its gradient is p times that of cross-entropy: p (p - 1) for the token's own logit."""
    given = tokens()
    given.logits.requires_grad_()
    Dft().token_losses(given).sum().backward()
    expected = (OWN * (OWN - 1)).tolist()
    assert given.logits.grad[range(3), LABELS].tolist() == pytest.approx(expected, abs=1e-5)


# --- through the trainer ----------------------------------------------------------------------------------------------

CHOSEN = {
    "dft": lambda p, q, own: -own * own.log(),
    "{focal: 2.0}": lambda p, q, own: -((1 - own) ** 2) * own.log(),
    "{kl_to_base: 0.5}": lambda p, q, own: -own.log() + 0.5 * (q * (q / p).log()).sum(-1),
    "{type: cross_entropy, label_smoothing: 0.1}": lambda p, q, own: -0.9 * own.log() - 0.1 * p.log().mean(-1),
}
"""What a recipe writes -> the loss of a token in float64, of probabilities (V,) of model and base, and its own."""
WEIGHED = {"masking": ["assistant", "message_weights"], "adapter": {"type": "lora", "dropout": 0.0}}


def weighed_rows():
    data = rows(8)
    for index, row in enumerate(data):
        row["messages"][1]["weight"] = 0.3 * (index % 4 + 1)
    return data


def by_hand(model, examples, loss):
    """Return ``sum(w * loss) / sum(w)`` in float64, each row by itself."""
    total, weights = 0.0, 0.0
    with torch.no_grad():
        for row in examples:
            ids = torch.tensor([row["input_ids"]])
            probabilities = model(ids).logits[0].softmax(-1)
            with model.disable_adapter():
                base = model(ids).logits[0].softmax(-1)
            for at in range(1, len(row["input_ids"])):
                if row["labels"][at] != -100:
                    p, q = probabilities[at - 1], base[at - 1]
                    total += row["weights"][at] * float(loss(p, q, p[row["labels"][at]]))
                    weights += row["weights"][at]
    return total / weights


@pytest.fixture
def weighed(recipe_file):
    """A recipe whose rows have weights, and are trained and held out."""
    file = recipe_file(data=weighed_rows(), **WEIGHED)
    file.write_text(file.read_text().replace("data:\n", "data:\n  eval: {path: rows.jsonl, format: messages}\n"))
    return file


@pytest.mark.parametrize("loss", CHOSEN)
def test_a_step_has_the_loss_of_its_tokens_whatever_the_batches(weighed, prepared, run, loss):
    """With weights, accumulation, packing, and in evaluation; the adapter has learned nothing yet."""
    once = ["train.max_steps=1", "train.learning_rate=0", f"loss={loss}"]
    expected = by_hand(trainer_of(weighed, prepared).model.double().eval(), prepared(weighed).train, CHOSEN[loss])
    for batch, packing in ((8, "none"), (2, "auto"), (1, "rows")):
        split = f"train.per_device_train_batch_size={batch}", f"train.gradient_accumulation_steps={8 // batch}"
        result = run(weighed, *once, *split, f"data.packing={packing}")
        log = {name: value for entry in result.log for name, value in entry.items()}
        assert log["loss"] == pytest.approx(expected, abs=1e-5)
        assert log["eval_loss"] == pytest.approx(expected, abs=1e-5)


def trainer_of(file, prepared, *overrides):
    recipe = load_recipe(str(file), overrides).recipe
    return make_trainer(recipe, load_model(recipe), prepared(file, *overrides))


def learned(trainer):
    """Let the adapter have learned something: at first it changes nothing."""
    draw = torch.Generator().manual_seed(1)
    for name, parameter in trainer.model.named_parameters():
        if "lora_B" in name:
            parameter.data = 0.3 * torch.randn(parameter.shape, generator=draw)
    return trainer


@pytest.mark.parametrize("loss", CHOSEN)
def test_in_pieces_loss_and_gradient_are_the_same(weighed, prepared, monkeypatch, loss):
    """And the base is the model without its adapter, which is back in place afterwards."""
    found = []
    for piece in (10_000, 3):
        monkeypatch.setattr(chosen_loss, "PIECE", piece)
        trainer = learned(trainer_of(weighed, prepared, f"loss={loss}", "train.use_cpu=true"))
        loss_of_batch = trainer.compute_loss(trainer.model, next(iter(trainer.get_train_dataloader())))
        loss_of_batch.backward()
        gradients = {name: p.grad.clone() for name, p in trainer.model.named_parameters() if p.grad is not None}
        assert all("lora" in name for name in gradients)
        found.append((loss_of_batch.item(), gradients, trainer.evaluate()["eval_loss"]))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-6)
    assert found[0][2] == pytest.approx(found[1][2], rel=1e-6)
    for name, gradient in found[0][1].items():
        assert torch.allclose(gradient, found[1][1][name], rtol=1e-4, atol=1e-7), name
    assert max(float(gradient.abs().max()) for gradient in found[0][1].values()) > 1e-4
    expected = by_hand(trainer.model.double().eval(), prepared(weighed).train, CHOSEN[loss])
    assert found[0][2] == pytest.approx(expected, abs=1e-5)


class Users(Loss):
    """Costs the number of the role that says a token, and 100 for each source before its own."""

    type: str = "users"
    reads_provenance = True

    def token_losses(self, tokens):
        role = tokens.provenance >> 3 & 7
        return 0 * tokens.nll() + role + 100 * (tokens.provenance >> 6)


def test_a_loss_reads_where_its_tokens_are_from(weighed):
    recipe = sftplug.load(weighed, "train.max_steps=1")
    data = {**recipe.recipe.model_dump(mode="json"), "loss": Users()}
    result = sftplug.train(data, overwrite=True, show=False)
    assert result.log[0]["loss"] == pytest.approx(sftplug.ROLE_CODES.index("assistant"))


@pytest.mark.parametrize("loss", ["{focal: 1.5}", "{kl_to_base: 2.0}"])
def test_a_run_goes_on_to_the_same_bytes(recipe_file, run, loss):
    train = {"max_steps": 4, "learning_rate": 3e-2, "save_strategy": "steps", "save_steps": 2, "save_total_limit": 0}
    file = recipe_file(adapter="lora", train={**train, "logging_steps": 1, "per_device_train_batch_size": 4})
    output = run(file, f"loss={loss}").output
    whole = (output / "adapter_model.safetensors").read_bytes()
    killed_after(output, 2)
    resumed = run(file, f"loss={loss}", overwrite=False)
    assert sftplug.RunDirectory.open(resumed.output).state().attempts[-1]["from_step"] == 2
    assert (output / "adapter_model.safetensors").read_bytes() == whole
    killed_after(output, 2)
    with pytest.raises(sftplug.RunError, match="loss"):
        run(file, "loss=dft", overwrite=False)


# --- a teacher --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def teachers(tmp_path_factory):
    """Folders of models: one of the small model's tokens, with a padded table; a short one; one of other tokens."""
    folder = tmp_path_factory.mktemp("teachers")
    write_rows(folder / "rows.jsonl", rows(2))
    data = {"train": {"path": str(folder / "rows.jsonl")}}
    source = base_model_path(sftplug.load({"model": {"build": TINY}, "data": data}).recipe)
    tokenizer, config = AutoTokenizer.from_pretrained(source), AutoConfig.from_pretrained(source)
    config.hidden_size, config.vocab_size = 32, config.vocab_size + 5
    torch.manual_seed(3)
    for name, positions in (("same", config.max_position_embeddings), ("short", 16), ("other", 512)):
        config.max_position_embeddings = positions
        AutoModelForCausalLM.from_config(config).save_pretrained(folder / name)
        if name == "other":
            tokenizer.add_tokens(["<table>"])
        tokenizer.save_pretrained(folder / name)
    return folder


@pytest.mark.parametrize("packing", ["none", "rows"])
def test_the_teacher_s_logits_are_those_of_each_row_by_itself(weighed, teachers, prepared, run, packing):
    once = ["train.max_steps=1", "train.learning_rate=0", "train.per_device_train_batch_size=8"]
    chosen = f"loss={{type: distill, teacher: {teachers / 'same'}, weight: 0.25, temperature: 2.0}}"
    model = trainer_of(weighed, prepared).model.double().eval()
    teacher = AutoModelForCausalLM.from_pretrained(teachers / "same", dtype=torch.float64)
    total = weights = 0.0
    with torch.no_grad():
        for row in prepared(weighed).train:
            own, other = (each(torch.tensor([row["input_ids"]])).logits[0] for each in (model, teacher))
            size = own.shape[1]
            assert other.shape[1] == size + 5
            p, q = ((values[:, :size] / 2).softmax(-1) for values in (own, other))
            for at in range(1, len(row["input_ids"])):
                if row["labels"][at] != -100:
                    nll = -own[at - 1].log_softmax(-1)[row["labels"][at]]
                    distance = (q[at - 1] * (q[at - 1] / p[at - 1]).log()).sum()
                    total += row["weights"][at] * float(0.75 * nll + 0.25 * 4 * distance)
                    weights += row["weights"][at]
    result = run(weighed, *once, chosen, f"data.packing={packing}")
    log = {name: value for entry in result.log for name, value in entry.items()}
    assert log["loss"] == pytest.approx(total / weights, abs=1e-5)
    assert log["eval_loss"] == pytest.approx(total / weights, abs=1e-5)


def test_a_teacher_is_a_model_of_the_same_tokens_or_is_refused_by_check(recipe_file, teachers):
    def said(teacher, *overrides):
        problems = sftplug.check(sftplug.load(recipe_file(), f"loss={{distill: {teacher}}}", *overrides))
        return "\n".join(map(str, problems))

    assert said(teachers / "same") == ""
    other = said(teachers / "other")
    assert f"{teachers / 'other'}, reads other tokens than the model: '<table>' is none in the model and is " in other
    assert re.search(r"loss: the teacher of 'distill', .*/nowhere, does not exist\.", said("./nowhere"))
    with pytest.raises(RecipeError, match=r"each process holds whole.*Choose `launch: ddp`"):
        load_recipe(str(recipe_file()), [f"loss={{distill: {teachers / 'same'}}}", "launch=zero2"])


def test_an_adapter_is_no_teacher_and_the_error_says_how_it_becomes_one(recipe_file, lora_run):
    (problem,) = sftplug.check(sftplug.load(recipe_file(), f"loss={{distill: {lora_run}}}"))
    merged = f"{lora_run}-merged"
    told = f"`sftplug merge {lora_run} --output {merged}`, then name {merged} as the teacher."
    assert told in str(problem)


def test_a_run_is_measured_and_merged_without_its_teacher(recipe_file, teachers, run, tmp_path):
    shutil.copytree(teachers / "same", tmp_path / "teacher")
    result = run(recipe_file(adapter="lora"), f"loss={{distill: {tmp_path / 'teacher'}}}", "train.max_steps=1")
    shutil.rmtree(tmp_path / "teacher")
    rows_file = tmp_path / "rows.jsonl"
    measured = sftplug.open_run(result.output).evaluate(data=rows_file, format="messages")
    assert 0 < measured["loss"] < 20
    assert sftplug.open_run(result.output).merge(tmp_path / "merged")


def test_rows_longer_than_a_teacher_reads_are_refused(recipe_file, teachers, run):
    chosen, said = f"loss={{distill: {teachers / 'short'}}}", r"loss: the teacher of 'distill': .*made for 16"
    with pytest.raises(ModelError, match=said):
        run(recipe_file(), chosen)
    assert re.search(said, "\n".join(map(str, sftplug.check(sftplug.load(recipe_file(), chosen)))))


def test_a_teacher_on_the_hub_may_be_pinned(recipe_file):
    def other(teacher):
        model = with_teacher_as_model(load_recipe(str(recipe_file()), [f"loss={{distill: {teacher}}}"]).recipe).model
        return model.name_or_path, model.revision

    assert other("org/large") == ("org/large", None)
    assert other("org/large@abc123") == ("org/large", "abc123")
    assert with_teacher_as_model(load_recipe(str(recipe_file())).recipe) is None


def test_plan_counts_a_teacher(recipe_file, teachers):
    file = recipe_file(adapter="lora")
    alone, taught = (
        sftplug.plan(sftplug.load(file, loss)).plan
        for loss in ("loss=cross_entropy", f"loss={{distill: {teachers / 'same'}}}")
    )
    held = sum(
        p.numel() * p.element_size() for p in AutoModelForCausalLM.from_pretrained(teachers / "same").parameters()
    )
    assert (alone.memory.teacher, taught.memory.teacher) == (0, pytest.approx(held, rel=0.01))
    assert taught.memory.total.low > alone.memory.total.low + held
    assert taught.memory.logits.high > alone.memory.logits.high
    assert taught.work.flops_per_token > 1.02 * alone.work.flops_per_token


# --- what does not go together ----------------------------------------------------------------------------------------


def test_the_base_must_be_there_to_be_compared_with(recipe_file):
    with pytest.raises(RecipeError, match="trains the weights of the base themselves"):
        load_recipe(str(recipe_file()), ["loss=kl_to_base"])
    with pytest.raises(RecipeError, match=r"where `fsdp2` splits the model. Choose `launch: ddp`"):
        load_recipe(str(recipe_file()), ["loss=kl_to_base", "adapter=lora", "launch=fsdp2"])
    assert load_recipe(str(recipe_file()), ["loss=kl_to_base", "adapter=lora"]).recipe.loss.weight == 0.1


def test_plan_counts_what_a_loss_takes_on_every_device(recipe_file):
    def logits(loss, device):
        answer = sftplug.plan(sftplug.load(recipe_file(adapter="lora"), f"loss={loss}"), device=device, rows=100)
        assert not [note for note in answer.notes if "loss" in note]
        return answer.plan.memory.logits.high, answer.plan.work.flops_per_token

    for device in ("cpu", "H100"):
        plain, base = logits("cross_entropy", device), logits("kl_to_base", device)
        assert base[0] > 1.2 * plain[0]
        assert 1.2 < base[1] / plain[1] < 1.8  # another forward pass beside forward, backward and what is recomputed
    whole, chunked = (logits(f"{{type: kl_to_base, head: {head}}}", "cpu")[0] for head in ("full", "chunked"))
    assert chunked < 0.9 * whole


def test_a_loss_that_plan_cannot_run_is_told(recipe_file, tmp_path):
    loss = """
import sftplug

class Picky(sftplug.Loss):
    type: str = "picky"
    def token_losses(self, tokens):
        return tokens.nll() * (2.0 if float(tokens.logits.max()) > 0 else 1.0)

@sftplug.hookimpl
def sftplug_losses():
    return [Picky]
"""
    (tmp_path / "picky.py").write_text(loss)
    notes = sftplug.plan(sftplug.load(recipe_file(plugins="./picky.py", loss="picky"))).notes
    (said,) = [note for note in notes if "does not run without numbers" in note]
    assert said.startswith(
        "the loss 'picky' does not run without numbers (loss 'picky' of plugin picky (file): token_l"
    )


def test_what_cannot_be_switched_off_is_no_adapter_beside_a_base():
    with pytest.raises(ModelError, match=r"cannot be switched off. Choose an adapter of PEFT"):
        chosen_loss.refuse_without_base(KlToBase(), torch.nn.Linear(1, 1))
