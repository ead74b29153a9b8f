from sftplug.testing import check_callback
from transformers import TrainerControl

from frozen_callback import FrozenCallback


def test_it_keeps_the_laws_of_callbacks() -> None:
    check_callback(FrozenCallback)


def test_it_stops_when_the_training_loss_is_low_enough() -> None:
    watch = FrozenCallback(loss=0.5).trainer_callback()
    for logs, stopped in (({"loss": 0.6}, False), ({"eval_loss": 0.1}, False), ({"loss": 0.4}, True)):
        control = TrainerControl()
        watch.on_log(None, None, control, logs)
        assert control.should_training_stop is stopped
