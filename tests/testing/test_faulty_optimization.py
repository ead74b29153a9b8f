"""A faulty optimizer or schedule breaks a law, and is told which, what was found, and how to fix it."""

import itertools
from typing import Literal

import torch
from testing.test_faulty import AnyText, broken

from sftplug import Optimizer, Schedule
from sftplug.testing import check_optimizer, check_schedule

COUNT = itertools.count()


class Plain(Optimizer):
    """It is gradient descent with momentum."""

    type: Literal["plain"] = "plain"

    def optimizer(self, trained, learning_rate):
        return torch.optim.SGD(trained.groups(), lr=learning_rate, momentum=0.9)


class Partial(Plain):
    """It forgets what is no matrix."""

    def optimizer(self, trained, learning_rate):
        return torch.optim.SGD([p.value for p in trained.parameters if p.is_hidden_matrix], lr=learning_rate)


class Own(torch.optim.Optimizer):
    """Gradient descent that can be made wrong in several ways."""

    def __init__(self, trained, rate, fault):
        super().__init__(trained.groups(), {"lr": rate})
        self.rate, self.fault, self.model, self.seen = rate, fault, trained.model, {}

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for value in group["params"]:
                self.move(value, group)
        if self.fault == "meddles":
            for value in self.model.parameters():
                value.mul_(0.99)

    def move(self, value, group):
        update = value.grad + group["weight_decay"] * value
        if self.fault == "remembers":
            update = update + self.seen.get(value, 0.0)
            self.seen[value] = update
        value.sub_(update, alpha=self.rate if self.fault == "caches the rate" else group["lr"])


class Caching(Plain):
    """It never looks at the rate again."""

    def optimizer(self, trained, learning_rate):
        return Own(trained, learning_rate, "caches the rate")


class Meddling(Plain):
    """It shrinks all that the model has."""

    def optimizer(self, trained, learning_rate):
        return Own(trained, learning_rate, "meddles")


class Remembering(Plain):
    """It keeps its momentum to itself."""

    def optimizer(self, trained, learning_rate):
        return Own(trained, learning_rate, "remembers")


class Decaying(Plain):
    """It has an opinion of its own on weight decay."""

    def optimizer(self, trained, learning_rate):
        return torch.optim.SGD([p.value for p in trained.parameters], lr=learning_rate, momentum=0.9)


class Undecaying(Plain):
    """It says that it has no weight decay, and has."""

    decays = False


class Modest(Plain):
    """It says that it keeps nothing."""

    def state_bytes(self, trained):
        return 0


class Honest(Remembering):
    """It says that no run can be resumed with it."""

    resumable = False


def test_optimizers():
    check_optimizer(Plain)
    assert broken(check_optimizer, Partial) == (
        "obeys_the_rate",
        AnyText("must hold every trained parameter once, and holds 0.weight 0 times"),
    )
    assert broken(check_optimizer, Caching) == ("obeys_the_rate", AnyText("moved at rate 0 | multiply every update"))
    assert broken(check_optimizer, Meddling) == ("obeys_the_rate", AnyText("moved at rate 0 | multiply every update"))
    assert broken(check_optimizer, Decaying) == ("obeys_weight_decay", AnyText("| use `trained.groups()`"))
    assert broken(check_optimizer, Undecaying) == ("obeys_weight_decay", AnyText("or let `decays` be False"))
    assert broken(check_optimizer, Remembering) == ("is_resumed_to_the_bit", AnyText("| keep what it remembers in"))
    assert broken(check_optimizer, Modest) == ("plans_its_state", AnyText("0 bytes are planned, and it keeps "))
    check_optimizer(Honest)


class Flat(Schedule):
    """It is a constant rate."""

    type: Literal["flat"] = "flat"

    warms_up = False

    def multiplier(self, step, horizon):
        return 1.0


class Crossing(Flat):
    """It falls below nothing."""

    def multiplier(self, step, horizon):
        return 1 - 1.2 * step / horizon.steps


class Dividing(Flat):
    """It divides by what may be nothing."""

    def multiplier(self, step, horizon):
        return (horizon.steps - step) / (horizon.steps - horizon.warmup)


class Silent(Flat):
    """It trains nothing."""

    def multiplier(self, step, horizon):
        return 0.0


class Counting(Flat):
    """It counts how often it is asked."""

    def multiplier(self, step, horizon):
        return 1 / (1 + next(COUNT))


class Impatient(Flat):
    """It does not warm up, and says that it does."""

    warms_up = True


class Eager(Flat):
    """It warms up, and says that it does not."""

    def multiplier(self, step, horizon):
        return min(1.0, step / (horizon.warmup or 1))


def test_schedules():
    check_schedule(Flat)
    assert broken(check_schedule, Crossing) == ("is_a_rate", AnyText("must return a finite number, 0 or more, not -0."))
    assert broken(check_schedule, Dividing) == ("is_a_rate", AnyText("failed: ZeroDivisionError"))
    assert broken(check_schedule, Silent) == ("is_a_rate", AnyText("| let some update have a rate."))
    assert broken(check_schedule, Counting) == ("depends_on_the_step_alone", AnyText("remember nothing"))
    assert broken(check_schedule, Impatient) == ("warms_up_as_it_says", AnyText("or let `warms_up` be False."))
    assert broken(check_schedule, Eager) == ("warms_up_as_it_says", AnyText("| let `warms_up` be True."))
