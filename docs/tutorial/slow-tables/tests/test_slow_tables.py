import torch
from sftplug import TrainedParameter, TrainedParameters
from sftplug.testing import check_optimizer
from torch import nn

from slow_tables import SlowTables


def test_it_keeps_the_laws_of_optimizers() -> None:
    check_optimizer(SlowTables, tables=0.5)


def test_tables_have_a_rate_of_their_own() -> None:
    model = nn.Sequential(nn.Embedding(3, 2), nn.Linear(2, 2))
    named = [TrainedParameter(name, value, True, name == "0.weight") for name, value in model.named_parameters()]
    made = SlowTables(tables=0.5).optimizer(TrainedParameters(tuple(named), 0.0, model), 1e-2)
    rates = {value: group["lr"] for group in made.param_groups for value in group["params"]}
    assert [rates[value] for value in model.parameters()] == [5e-3, 1e-2, 1e-2]
    assert isinstance(made, torch.optim.AdamW)
