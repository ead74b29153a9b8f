"""However many rows are evaluated, no more logits are alive at a time than those of one batch."""

import pytest
import torch
from conftest import rows
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import TensorWeakRef

import sftplug
from sftplug.model.loading import load_model
from sftplug.ship.evaluate import score
from sftplug.ship.replies import Answering, places
from sftplug.training.collator import Collator
from sftplug.training.train import make_trainer
from sftplug.types.loss_groups import LossGroups

BATCH = 4
ONE = LossGroups.of(["rows.jsonl"])


class Alive(TorchDispatchMode):
    """Notes the most bytes that tensors as wide as the vocabulary took at any time, those of the weights left out."""

    def __init__(self, model):
        super().__init__()
        self.width = model.config.vocab_size
        self.known = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
        self.seen, self.most, self.count = [], 0, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, torch.Tensor) and tensor.ndim and tensor.shape[-1] == self.width:
                self.seen.append(TensorWeakRef(tensor))
                self.count += 1
                self.look()
        return out

    def look(self):
        self.seen = [reference for reference in self.seen if reference() is not None]
        storages = [tensor.untyped_storage() for reference in self.seen if (tensor := reference()) is not None]
        sizes = {storage.data_ptr(): storage.nbytes() for storage in storages}
        self.most = max(self.most, sum(size for place, size in sizes.items() if place not in self.known))


@pytest.fixture
def peak(recipe_file):
    """Return a function that trains nothing, evaluates so many rows in a way, and returns the most bytes of logits."""
    # All rows are of the same length, so that a batch is like any other.
    row = rows(1)[0]
    file = recipe_file(data=[row] * 64, adapter="lora", train={"per_device_train_batch_size": BATCH})

    def go(evaluate, count):
        held_out = f"{{path: {file.parent / 'rows.jsonl'}, format: messages, first: {count}}}"
        loaded = sftplug.load(file, f"data.eval={held_out}")
        prepared = sftplug.prepare(loaded, provenance=evaluate is not in_training)
        trainer = make_trainer(loaded.recipe, load_model(loaded.recipe), prepared)
        with Alive(trainer.model) as alive, torch.no_grad():
            evaluate(trainer, prepared)
        assert alive.count >= count // BATCH  # it has seen every batch
        return alive.most

    return go


def in_training(trainer, prepared):
    assert trainer.args.per_device_eval_batch_size == BATCH
    assert trainer.evaluate()["eval_loss"] > 0


def by_command(trainer, prepared):
    assert score(trainer.model.eval(), prepared.eval, Collator(0), ONE, BATCH) is not None


def replies(trainer, prepared):
    answering = Answering(trainer.model.eval(), prepared.tokenizer, [3], BATCH, 4)
    asked = list(places(prepared.eval, None))
    assert len(list(answering.replies(asked, [""] * len(asked), ONE))) == len(prepared.eval)


def accumulating(trainer, prepared):
    """What the libraries do by themselves: gather the logits of all rows."""
    trainer.args.prediction_loss_only = False
    trainer.compute_metrics = lambda _: {}
    trainer.evaluate()


@pytest.mark.parametrize("evaluate", [in_training, by_command, replies])
def test_more_rows_do_not_mean_more_logits(evaluate, peak):
    few, many = peak(evaluate, 8), peak(evaluate, 24)
    assert 0 < many == few


def test_logits_that_are_gathered_are_found_out(peak):
    assert peak(accumulating, 24) > 2 * peak(accumulating, 8)
