import pytest
from sftplug import Horizon
from sftplug.testing import check_schedule

from inverse_root import InverseRoot


def test_it_keeps_the_laws_of_schedules() -> None:
    check_schedule(InverseRoot, half=20)


def test_the_rate_rises_and_is_halved_later() -> None:
    run = Horizon(steps=100, warmup=10, learning_rate=1e-2)
    rates = [InverseRoot(half=20).multiplier(step, run) for step in (0, 5, 10, 30)]
    assert rates == pytest.approx([0.0, 0.5, 1.0, 0.5])
