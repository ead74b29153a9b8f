"""What the console shows of a loop: ten lines, evenly, and the speed of all attempts."""

import io
from types import SimpleNamespace

import pytest
import rich

from sftplug_console.curve import draw_curve
from sftplug_console.progress import TrainingProgress
from sftplug_console.tables import show_failure


@pytest.fixture
def shown(monkeypatch):
    """Return a function that lets a run of so many steps log at some of them, and returns what is printed."""

    def go(steps, logged, start=0, clock=100.0):
        console = rich.console.Console(file=io.StringIO(), width=200)
        monkeypatch.setattr(rich, "get_console", lambda: console)
        progress = TrainingProgress(SimpleNamespace(seconds=clock, notices=[]))
        for step in range(start + 1, steps + 1):
            state = SimpleNamespace(global_step=step - 1, max_steps=steps)
            progress.on_step_begin(None, state, None)
            state.global_step = step
            progress.on_step_end(None, state, SimpleNamespace(should_log=step in logged))
            if step in logged:
                progress.on_log(None, state, None, {"loss": 1 / step, "num_tokens": 50 * step})
        return console.file.getvalue().splitlines()

    return go


@pytest.mark.parametrize("steps", [10, 18, 113, 5000])
@pytest.mark.parametrize("every", [1, 3, 10, 500])
def test_ten_lines_evenly_however_often_is_logged(shown, steps, every):
    lines = shown(steps, {1, steps, *range(every, steps + 1, every)})
    at = [int(line.split("/")[0].removeprefix("step ")) for line in lines]
    assert at == [-(-steps * tenth // 10) for tenth in range(1, 11)]
    assert all("loss " in line for line in lines)


def test_a_loss_of_another_step_says_of_which(shown):
    lines = shown(100, {1, 100})
    assert lines[0] == "step 10/100  loss 1.0000  0 tokens/s (at step 1)"
    assert lines[-1] == "step 100/100  loss 0.0100  50 tokens/s"


def test_a_run_of_few_steps_prints_each_once(shown):
    assert [line.split()[1] for line in shown(3, {1, 2, 3})] == ["1/3", "2/3", "3/3"]


def test_the_speed_of_a_run_that_goes_on_is_that_of_all_attempts(shown):
    """1,000 tokens in all, in the 100 s of all attempts."""
    lines = shown(20, set(range(1, 21)), start=15)
    assert [line.split()[1] for line in lines] == ["16/20", "18/20", "20/20"]
    assert lines[-1] == "step 20/20  loss 0.0500  10 tokens/s"


@pytest.fixture
def on_terminal(monkeypatch):
    """Return a console on a terminal, whose text is in its `file`."""
    console = rich.console.Console(file=io.StringIO(), width=200, force_terminal=True)
    monkeypatch.setattr(rich, "get_console", lambda: console)
    return console


@pytest.mark.parametrize("moment", ["before", "midst"])
def test_a_signal_while_the_bar_comes_up_takes_it_away_for_good(on_terminal, monkeypatch, moment):
    """The handler of a signal runs wherever the program is: in the midst of rich's `start` too."""
    progress = TrainingProgress(SimpleNamespace(seconds=1.0, notices=[]))
    show_cursor, calls = on_terminal.show_cursor, []

    def interrupted(show):
        calls.append(show)
        if moment == "midst" and calls == [False]:
            progress.take_away()
        return show_cursor(show)

    monkeypatch.setattr(on_terminal, "show_cursor", interrupted)
    if moment == "before":
        progress.take_away()
    progress.on_step_begin(None, SimpleNamespace(global_step=0, max_steps=3), None)
    progress.on_step_end(None, SimpleNamespace(global_step=1, max_steps=3), SimpleNamespace(should_log=False))
    assert calls[:1] == [False] * (moment == "midst")
    on_terminal.file.truncate(0)
    on_terminal.print("the run stopped")
    assert "\u2501" not in on_terminal.file.getvalue()


def test_ctrl_c_outside_of_the_loop_is_said_in_words(on_terminal):
    show_failure(KeyboardInterrupt())
    assert "the run stopped: interrupted. Run the same command again to resume" in on_terminal.file.getvalue()


@pytest.mark.parametrize("width", [-5, 0, 1, 3])
def test_a_curve_fits_any_terminal(width):
    assert len(draw_curve([3.0, 2.0, 1.0], width=width)) == 8
