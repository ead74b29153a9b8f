"""What cannot work is said before rows are read and weights are loaded, in words that help."""

import pytest
from typer.testing import CliRunner

from sftplug import ModelError
from sftplug.models import check_positions
from sftplug.preflight import problems_before_rows
from sftplug.recipe import load_recipe


@pytest.fixture
def problems(recipe_file):
    def find(*overrides):
        return "\n".join(problems_before_rows(load_recipe(str(recipe_file()), overrides).recipe))

    return find


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("train.per_device_train_batch_size=0", "train.per_device_train_batch_size: must be at least 1, not 0."),
        ("train.gradient_accumulation_steps=0", "train.gradient_accumulation_steps: must be at least 1, not 0."),
        ("train.max_steps=0", "train.max_steps: must be at least 1, or -1 to go by `train.num_train_epochs`, not 0."),
        ("train.seed=4294967296", "train.seed: must be at most 4294967295, not 4294967296."),
        ("train.optim=galore_adamw", "train.optim: You need to install `galore_torch`"),
        ("train.report_to=wandb", "train.report_to: WandbCallback requires wandb to be installed."),
        ("model.attn_implementation=sdap", "model.attn_implementation: sdap: Specified"),
    ],
)
def test_what_the_trainer_would_say_late_is_said_early(problems, override, expected):
    assert expected in problems(override)


def test_epochs_in_which_nothing_is_trained_are_refused(problems):
    expected = "train.num_train_epochs: must be more than 0, not 0: nothing would be trained."
    assert expected in problems("train.max_steps=-1", "train.num_train_epochs=0")


def test_a_good_recipe_has_no_problem(problems):
    assert problems() == ""


def test_a_row_longer_than_the_model_s_positions_is_refused_and_names_the_length(recipe_file, prepared):
    recipe = load_recipe(str(recipe_file())).recipe
    longest = prepared(recipe_file()).longest
    assert 20 < longest < 256
    check_positions(recipe, longest)
    with pytest.raises(ModelError, match=r"the longest row has 8,193 tokens, .* made for 8,192 .*max_length: 8192`"):
        check_positions(recipe, 8193)


def test_the_longest_document_of_packed_rows_counts(recipe_file, prepared):
    alone = prepared(recipe_file()).longest
    assert prepared(recipe_file(), "data.packing=rows").longest == alone


def test_a_folder_written_without_its_dot_is_explained(recipe_file, monkeypatch, tmp_path):
    from sftplug.cli import app

    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_model").mkdir()
    result = CliRunner().invoke(app, ["check", str(recipe_file()), "model=my_model"])
    assert result.exit_code != 0
    text = str(result.exception)
    assert "'my_model' is looked for on the Hub. A folder is written `./my_model`; there is one of that name" in text


def test_a_held_out_fraction_that_draws_no_row_says_so(recipe_file, prepared):
    from sftplug import DataError

    with pytest.raises(DataError, match=r"split 'eval' is left: `data\.eval_fraction: 1e-06` of the rows drew none"):
        prepared(recipe_file(), "data.eval_fraction=0.000001")
