"""What one does with a finished run needs only the components that it uses."""

import pytest
from conftest import train_run

import sftplug
from sftplug import RecipeError

MASK = """import sftplug

class Gain(sftplug.Masking):
    \"\"\"Weigh by a factor.\"\"\"
    type: str = "gain"
    {name}: float = 2.0
    def weights(self, tokens):
        return tokens.trainable * self.{name}

@sftplug.hookimpl
def sftplug_maskings():
    return [Gain]
"""


@pytest.fixture(scope="session")
def changed(tmp_path_factory):
    """A run whose masking strategy has lost the option that it was trained with."""
    folder = tmp_path_factory.mktemp("changed")
    (folder / "gain.py").write_text(MASK.format(name="gain"))
    masking = {"type": "gain", "gain": 3.0}
    run = train_run(folder, "run", plugins=["./gain.py"], masking=masking, quantization="fp32", adapter="lora")
    (run / "plugins" / "gain.py").write_text(MASK.format(name="factor"))
    return run


def test_merge_chat_and_report_do_without_a_masking_that_has_changed(changed, command, tmp_path):
    result = command("merge", changed, "--output", tmp_path / "merged")
    assert result.exit_code == 0, result.exception
    assert "warning: masking" in result.output
    assert "The run was trained with it; this command does without." in result.output
    card = (tmp_path / "merged" / "README.md").read_text()
    assert "gain: 3.0" in card  # what it was trained with, and not what stood in
    assert command("chat", changed, "--prompt", "Hello?", "--max-new-tokens", 4).exit_code == 0
    assert command("report", changed, "--html", tmp_path / "report.html").exit_code == 0
    assert sftplug.open_run(changed).chat("Hello?", max_new_tokens=4) is not None


def test_an_evaluation_needs_it_and_says_so(changed, command):
    error = command("eval", changed).exception
    assert isinstance(error, RecipeError)
    assert "masking" in str(error)
    assert "gain" in str(error)
