"""What a loss or a head remembers in private attributes between two steps is in each checkpoint, or is refused."""

import pytest

import sftplug
from tests.run.test_held import killed_after

LENIENT = """
from pydantic import PrivateAttr
import sftplug

class Lenient(sftplug.Loss):
    type: str = "lenient"
    reads_logits = False
    _asked: int = PrivateAttr(0)
    _seen: object = PrivateAttr(None)

    def token_losses(self, tokens):
        nll = tokens.nll()
        if nll.requires_grad:
            self._asked += 1
            self._seen = SEEN
        return nll * min(1.0, 0.2 * self._asked)

class Plain(sftplug.Head):
    type: str = "plain"
    _largest: object = PrivateAttr(None)

    def nll(self, states, layer, labels):
        logits = layer.logits(states)
        found = logits.logsumexp(-1) - logits.gather(1, labels[:, None])[:, 0]
        self._largest = found.detach().max()
        return found

@sftplug.hookimpl
def sftplug_losses():
    return [Lenient]

@sftplug.hookimpl
def sftplug_heads():
    return [Plain]
"""
SAVED = {"max_steps": 6, "learning_rate": 3e-2, "save_strategy": "steps", "save_steps": 2, "save_total_limit": 0}


def test_a_loss_that_counts_goes_on_counting(recipe_file, run, tmp_path):
    (tmp_path / "mine.py").write_text(LENIENT.replace("SEEN", "nll.detach().mean()"))
    loss = {"type": "lenient", "head": "plain"}
    file = recipe_file(adapter="lora", plugins="./mine.py", loss=loss, train=SAVED)
    output = run(file).output
    whole = (output / "adapter_model.safetensors").read_bytes()
    killed_after(output, 2)
    # A resumed run is another process: what the components of this one remember is not theirs.
    run(file, overwrite=False)
    assert (output / "adapter_model.safetensors").read_bytes() == whole
    assert (output / "checkpoint-2" / "components.safetensors").is_file()
    assert not (output / "checkpoint-2" / "callbacks.safetensors").exists()


def test_a_loss_that_remembers_what_no_checkpoint_holds_is_refused_after_a_step(recipe_file, run, tmp_path):
    (tmp_path / "mine.py").write_text(LENIENT.replace("SEEN", "Memory()").replace("class Lenient", MEMORY))
    file = recipe_file(adapter="lora", plugins="./mine.py", loss="lenient", train=SAVED)
    with pytest.raises(sftplug.TrainingError, match=r"the component Lenient remembers `_seen`, with a Memory in it"):
        run(file)
    for way in (
        {"train": {"max_steps": 1, "save_strategy": "no"}},
        {"loss": "cross_entropy"},
    ):
        assert run(recipe_file(**{"adapter": "lora", "plugins": "./mine.py", "loss": "lenient", "train": SAVED, **way}))


MEMORY = """class Memory:
    __slots__ = ()

class Lenient"""
