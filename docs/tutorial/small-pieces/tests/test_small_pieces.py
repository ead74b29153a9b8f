import pytest
import torch
from sftplug import OutputLayer
from sftplug.testing import check_head

from small_pieces import SmallPieces


class Watched(OutputLayer):
    def logits(self, states: torch.Tensor) -> torch.Tensor:
        lengths.append(len(states))
        return super().logits(states)


lengths: list[int] = []


def test_it_keeps_the_laws_of_heads() -> None:
    check_head(SmallPieces, tokens=5)


def test_few_logits_are_made_at_once() -> None:
    even = Watched(torch.zeros(3, 4))  # three tokens in the vocabulary, none likelier than another
    nll = SmallPieces(tokens=2).nll(torch.ones(5, 4), even, torch.tensor([0, 1, 2, 1, 0]))
    assert nll.tolist() == pytest.approx(5 * [1.0986], abs=1e-4)
    assert lengths == [2, 2, 1]
