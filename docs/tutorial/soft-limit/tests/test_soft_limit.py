import pytest
import torch
from sftplug import TrainedTokens
from sftplug.testing import check_loss

from soft_limit import SoftLimit


def test_it_keeps_the_laws_of_losses() -> None:
    check_loss(SoftLimit, most=3.0)


def test_what_is_very_unlikely_costs_less() -> None:
    logits = torch.tensor([[0.0, 0.0], [0.0, 30.0]])  # even odds; and e**-30, about 1e-13
    tokens = TrainedTokens(logits, torch.tensor([0, 0]), torch.ones(2))
    assert SoftLimit(most=3.0).token_losses(tokens).tolist() == pytest.approx([0.6931, 3.0 + 3.0 * 2.3026], abs=1e-3)
