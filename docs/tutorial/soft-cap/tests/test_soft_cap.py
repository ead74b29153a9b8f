import torch
from sftplug.testing import check_model_patch
from torch import nn

from soft_cap import SoftCap


def test_it_keeps_the_laws_of_model_patches() -> None:
    check_model_patch(SoftCap, cap=5.0)


def test_logits_stay_between_the_bounds() -> None:
    head = nn.Linear(2, 3)
    head.get_output_embeddings = lambda: head  # type: ignore[assignment]
    before = head(torch.full((1, 2), 100.0))
    SoftCap(cap=2.0).after_loading(head)
    assert torch.allclose(head(torch.full((1, 2), 100.0)), 2 * (before / 2).tanh())
