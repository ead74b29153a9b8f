import pytest
from pydantic import ValidationError
from sftplug.testing import check_adapter

from frozen_adapter import FrozenAdapter


def test_it_keeps_the_laws_of_adapters() -> None:
    check_adapter(FrozenAdapter, targets=["q_proj", "v_proj"])


def test_the_targets_are_those_of_the_recipe() -> None:
    assert set(FrozenAdapter(targets=["o_proj"]).peft_config().target_modules) == {"o_proj"}
    with pytest.raises(ValidationError):
        FrozenAdapter(targets=[])
