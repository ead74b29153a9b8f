"""A section of the recipe that a plugin owns: checked, explained, recorded, compared and upgraded like all options."""

import json
import re
from typing import Literal

import pytest
from conftest import TINY, write_rows
from jsonschema import Draft202012Validator
from typer.testing import CliRunner

import sftplug
from sftplug.cli import app
from sftplug.plugin.manager import load_plugins
from sftplug.plugin.registry import HOOKS, build_registry
from sftplug.plugin.validation import CORE_SECTIONS, problem_of_section
from sftplug.recipe.model import Recipe
from sftplug.recipe.schema import recipe_schema
from sftplug.run.record import differences, gained
from sftplug.run.record import recorded as written

BILL = '''
from typing import ClassVar, Literal
from sftplug import Field, Masking, Metric, RecipeSection, hookimpl

class Bill(RecipeSection):
    """Who pays."""
    type: Literal["bill"] = "bill"
    payer: str = "research"
    """The team."""
    rate: float = Field(0.5, gt=0)
    """Price of a token."""
    by: Metric | None = None
    """What success is measured by."""

    def check(self, recipe):
        if recipe.adapter.type == "full":
            yield "a full fine-tuning is paid by nobody."

class Last(Masking):
    """It trains what is paid."""
    type: Literal["paid"] = "paid"

    selects: ClassVar[bool] = False

    def weights(self, tokens):
        return tokens.trainable * self.section(Bill).rate

@hookimpl
def sftplug_recipe_sections():
    return [Bill]

@hookimpl
def sftplug_maskings():
    return [Last]

@hookimpl
def sftplug_run_finished(recipe, result):
    (result.output / "bill.txt").write_text(f"{recipe.section(Bill).payer} {recipe.section(Bill).rate}")
'''


@pytest.fixture
def desk(tmp_path, monkeypatch):
    """Return a function that writes a recipe with more lines, beside the plugin file, and returns its path."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "acme.py").write_text(BILL)
    write_rows(tmp_path / "rows.jsonl", [_row("one", "two"), _row("three", "four")])

    def write(*lines, plugins="[./acme.py]"):
        file = tmp_path / "recipe.yaml"
        head = [
            f"plugins: {plugins}",
            f"model: {{build: {json.dumps(TINY)}}}",
            "data: {train: {path: rows.jsonl}}",
            "chat_template: chatml",
            "quantization: fp32",
            "adapter: lora",
            "train: {max_steps: 1, per_device_train_batch_size: 1, logging_steps: 1, save_strategy: no, use_cpu: true}",
            "output: run",
        ]
        file.write_text("\n".join([*head, *lines]) + "\n")
        return str(file)

    return write


def _row(asked, said):
    return {"messages": [{"role": "user", "content": asked}, {"role": "assistant", "content": said}]}


def problems(*arguments):
    with pytest.raises(sftplug.RecipeError) as caught:
        sftplug.load(*arguments)
    return [str(problem) for problem in caught.value.problems]


def test_what_is_sftplug_s_own_is_known_where_plugins_are_loaded():
    assert {*Recipe.model_fields, "extends"} == CORE_SECTIONS
    assert HOOKS["sftplug_recipe_sections"] is sftplug.RecipeSection


def test_it_is_checked_with_the_recipe_all_at_once(desk):
    file = desk("bill:", "  payr: me", "  rate: -1", "  by: exact", "spans: {boundary: no}")
    found = problems(file)
    assert "bill.payr (recipe.yaml:10): unknown key. Did you mean 'payer'? Known: by, payer, rate." in found
    assert "bill.rate (recipe.yaml:11): must be greater than 0.0, not -1." in found
    assert any(
        text.startswith("bill.by (recipe.yaml:12): ") and "Did you mean 'exact_match'?" in text for text in found
    )
    assert any(text.startswith("spans.boundary (recipe.yaml:13): ") for text in found)
    assert problems(desk("bill: {payer: me}"), "adapter=full")[0].startswith("bill (recipe.yaml:9): a full fine-tuning")
    assert problems(desk("bill:"))[0] == "bill (recipe.yaml:9): is empty. Leave the key out, or give it a value."
    assert problems(desk(), "bil.rate=2")[0].startswith("bil (command line): unknown key. Did you mean 'bill'? Known:")


def test_its_values_come_from_recipe_command_line_house_and_default(desk, tmp_path):
    (tmp_path / "sftplug.toml").write_text("[defaults.bill]\nrate = 3\n")
    loaded = sftplug.load(desk("bill: {by: exact_match}"), "bill.payer=support")
    section = loaded.recipe.bill
    assert (section.payer, section.rate, section.by.type) == ("support", 3.0, "exact_match")
    told = {
        value.path: (value.origin, value.plugin) for value in sftplug.explain(loaded).values if "bill" in value.path
    }
    assert told["bill.payer"] == ("python", "acme (file)")
    assert told["bill.rate"] == ("sftplug.toml:2 (house file)", "acme (file)")
    assert told["bill.by.type"][0] == "recipe.yaml:9"
    plain = sftplug.load(desk()).recipe.bill
    assert (plain.payer, plain.rate) == ("research", 3.0)
    (tmp_path / "sftplug.toml").unlink()
    left = {value.path: value.origin for value in sftplug.explain(desk()).values}
    assert left["bill.payer"] == "default of section bill"


def test_a_recipe_can_be_extended_by_it(desk, tmp_path):
    desk("bill: {payer: support, rate: 2}")
    (tmp_path / "own.yaml").write_text("extends: ./recipe.yaml\nbill: {rate: 4}\n")
    section = sftplug.load("own.yaml").recipe.bill
    assert (section.payer, section.rate) == ("support", 4.0)


def test_of_a_plugin_that_is_not_in_use_it_is_refused_and_whose_it_is_is_said(desk):
    said = (
        "is a section of the plugin journal (sftplug 0.1.0), which this recipe does not use. Add `journal` to "
        "`plugins`, as in `plugins: [journal]`, or take the section out."
    )
    assert problems(desk("journal: {note: {team: a}}")) == [f"journal (recipe.yaml:9): {said}"]
    both = problems(desk("journal: {note: 3}"))
    assert both == [
        f"journal (recipe.yaml:9): {said}",
        "journal.note (recipe.yaml:9): must be a mapping of keys, not 3.",
    ]
    # As it says.
    assert sftplug.load(desk("journal: {note: {team: a}}", plugins="[journal]")).recipe.journal.note == {"team": "a"}
    assert not hasattr(sftplug.load(desk()).recipe, "journal")
    # Without its plugin nobody knows it.
    with pytest.raises(sftplug.RecipeError, match=r"unknown key\. Known: .* Note: blocked with `without`: journal"):
        sftplug.load(desk("journal: {}", plugins="[journal]"), without=["journal"])


def test_a_component_that_is_named_puts_the_plugin_of_its_section_in_use(desk, tmp_path):
    (tmp_path / "sftplug.toml").write_text('plugins = ["./acme.py"]\n')
    assert sftplug.load(desk("bill: {rate: 2}", plugins="[]")).recipe.bill.rate == 2.0
    loaded = sftplug.load(desk("bill: {rate: 2}", "masking: [assistant, paid]"))
    assert loaded.recipe.masking[1][0].section(type(loaded.recipe.bill)) is loaded.recipe.bill


class Paid(sftplug.RecipeSection):
    """One that a program has."""

    type: Literal["paid_by"] = "paid_by"
    team: str
    """The team."""


def test_a_program_gives_it_as_an_object(desk):
    written = {
        "model": {"build": TINY},
        "data": {"train": {"path": "rows.jsonl"}},
        "chat_template": "chatml",
        "adapter": "lora",
    }
    loaded = sftplug.load({**written, "paid_by": Paid(team="a")})
    assert loaded.recipe.section(Paid).team == "a"
    with pytest.raises(
        sftplug.PluginError, match=r"the section `paid_by` is asked for where there is none, and it cannot"
    ):
        sftplug.load(written).recipe.section(Paid)


def test_an_option_without_a_default_makes_it_required_where_its_plugin_is_in_use(desk, tmp_path):
    (tmp_path / "acme.py").write_text(BILL.replace('payer: str = "research"', "payer: str"))
    found = problems(desk("spans: {boundary: no}"))
    assert found[0].endswith("is required, for the plugin acme (file) is in use: `payer` has no default.")
    assert len(found) == 2
    assert sftplug.load(desk("bill: {payer: a}")).recipe.bill.payer == "a"
    assert problems(desk("bill: {rate: 2}")) == ["bill.payer (recipe.yaml:9): is required."]


def test_a_default_that_is_wrong_is_the_plugin_s_fault(desk, tmp_path):
    (tmp_path / "acme.py").write_text(BILL.replace("Field(0.5, gt=0)", "Field(-0.5, gt=0)"))
    (found,) = problems(desk())
    assert "a default that the plugin acme (file) gives it is wrong: rate: Input should be greater than 0 (" in found
    assert found.endswith("acme.py:5). Write it until it is fixed.")
    assert sftplug.load(desk("bill: {rate: 1}")).recipe.bill.rate == 1.0


def test_an_option_of_the_trainer_beside_train_is_told_where_it_goes(desk, tmp_path):
    said = "is an option of the trainer: write it into `train`, as `train.learning_rate`."
    assert problems(desk("learning_rate: 1")) == [f"learning_rate (recipe.yaml:9): {said}"]
    assert sftplug.load(desk(), "train.learning_rate=1").recipe.train["learning_rate"] == 1
    (tmp_path / "sftplug.toml").write_text("[defaults]\nlearning_rate = 0.5\n")
    (found,) = problems(desk())
    assert found == (
        "defaults.learning_rate (sftplug.toml:2): is an option of the trainer: write it into `[defaults.train]`, as "
        "`defaults.train.learning_rate`."
    )
    (tmp_path / "sftplug.toml").write_text("[defaults.train]\nlearning_rate = 0.5\n")
    assert sftplug.load(desk()).recipe.train["learning_rate"] == 0.5


def test_two_that_offer_one_name_are_both_named(desk, tmp_path):
    (tmp_path / "other.py").write_text(
        BILL.replace("sftplug_maskings", "not_a_hook").replace("@hookimpl\ndef not", "def not")
    )
    (found,) = problems(desk("bill: {rate: 2}", plugins="[./acme.py, ./other.py]"))
    assert re.search(
        r"bill \(recipe.yaml:9\): two plugins offer the section 'bill': acme \(file\), .*other \(file\)", found
    )
    assert not hasattr(sftplug.load(desk(plugins="[./acme.py, ./other.py]")).recipe, "bill")


WORDS = ["type", "name", "class", "json", "dict", "True", "null"]


@pytest.mark.parametrize("name", ["train", "extends", "components", "the-bill", *WORDS])
def test_a_name_that_is_sftplug_s_own_is_refused_naming_both(desk, tmp_path, name):
    (tmp_path / "acme.py").write_text(BILL.replace('"bill"', f'"{name}"'))
    (found,) = [text for text in problems(desk()) if "sftplug_recipe_sections" in text]
    assert "plugin acme (file): sftplug_recipe_sections() offers Bill, which is named" in found
    assert re.search(r"acme\.py:\d+\)", found)
    assert ("as a section of sftplug's own is" in found) == (name in CORE_SECTIONS)


def test_nothing_that_a_recipe_has_can_be_the_name_of_a_section():
    ours = [name for name in dir(Recipe) if not name.startswith("_")]
    assert len(ours) > 20
    assert [name for name in ours if problem_of_section(name) is None] == []
    assert problem_of_section("bill") is None


def test_a_package_with_such_a_name_is_not_written(tmp_path):
    said = CliRunner().invoke(app, ["plugins", "new", "section", "type", "--dir", str(tmp_path)])
    assert "a section of a recipe cannot be called so: it is named 'type', which says which" in str(said.exception)
    assert list(tmp_path.iterdir()) == []


def test_the_schema_has_it():
    schema = recipe_schema(build_registry(load_plugins()))
    check = Draft202012Validator(schema)
    recipe = {"model": "org/name", "data": {"train": {"path": "a.jsonl"}}, "plugins": ["journal"]}
    assert not list(check.iter_errors({**recipe, "journal": {"note": {"team": "a"}, "leave_out": ["merged"]}}))
    assert list(check.iter_errors({**recipe, "journal": {"leave_out": ["sung"]}}))
    assert list(check.iter_errors({**recipe, "journal": {"nota": {}}}))
    alone = {**recipe, "journal": {"note": {"team": "a"}}, "plugins": ["console"]}
    assert list(check.iter_errors(alone))
    assert list(check.iter_errors({key: value for key, value in alone.items() if key != "plugins"}))
    assert not list(check.iter_errors({**alone, "plugins": "journal"}))
    part = {"extends": "quickstart", "journal": {"note": {"a": "b"}}}
    assert not list(check.iter_errors(part))
    assert "A section of the plugin journal" in json.dumps(schema)


def test_the_schema_written_beside_a_house_file_knows_whom_that_puts_in_use(tmp_path):
    def errors():
        written = CliRunner().invoke(app, ["schema", "--output", str(tmp_path / "recipe.schema.json")])
        assert written.exit_code == 0, written.output
        check = Draft202012Validator(json.loads((tmp_path / "recipe.schema.json").read_text()))
        recipe = {"model": "org/name", "data": {"train": {"path": "a.jsonl"}}, "journal": {"note": {"team": "a"}}}
        return list(check.iter_errors(recipe))

    assert errors()
    (tmp_path / "sftplug.toml").write_text('plugins = ["journal"]\n')
    assert not errors()


def test_a_run_records_it_compares_it_and_obeys_it(desk, tmp_path):
    file = desk("masking: [assistant, paid]", "bill: {payer: support, rate: 0.5}")
    before = sftplug.prepare(file, output=tmp_path / "a")
    run = sftplug.train(file, show=False)
    assert (run.output / "bill.txt").read_text() == "support 0.5"
    recorded = run.directory.recipe()
    assert recorded["bill"] == {"type": "bill", "payer": "support", "rate": 0.5, "by": None}
    assert run.directory.origins()["bill.payer"] == "recipe.yaml:10"
    assert run.directory.origins()["bill.by"] == "default of section bill"
    assert {plugin["name"] for plugin in run.directory.plugins()} >= {"acme"}
    # Read from the record alone, in another folder.
    assert run.directory.load_recipe().recipe.bill.payer == "support"
    other = sftplug.load(file, "bill.payer=research").recipe
    assert _of_bill(differences(recorded, written(other))) == ["bill.payer: 'support' -> 'research'"]
    # Rows that a component makes by it are made anew; by another recipe's they are not.
    again = sftplug.prepare(sftplug.load(file, "bill.rate=0.25"), output=tmp_path / "b")
    assert before.train["weights"][0] == [2 * weight for weight in again.train["weights"][0]]


def test_what_the_record_does_not_know_had_its_default(desk, tmp_path):
    """A section that came with a later version of the plugin is no other recipe; one that went is said and left out."""
    without = BILL.replace("@hookimpl\ndef sftplug_recipe_sections", "def offered").replace(
        "recipe.section(Bill)", "Bill()"
    )
    (tmp_path / "acme.py").write_text(without)
    file = desk()
    run = sftplug.train(file, show=False)
    assert "bill" not in run.directory.recipe()
    (tmp_path / "acme.py").write_text(BILL)
    before, now = run.directory.recipe(), sftplug.load(file)
    assert _of_bill(differences({**before, **_nested(gained(before, now))}, written(now.recipe))) == []
    other = sftplug.load(file, "bill.rate=2")
    found = differences({**before, **_nested(gained(before, other))}, written(other.recipe))
    assert _of_bill(found) == ["bill.rate: (none) -> 2.0"]


def _of_bill(lines):
    return [line for line in lines if line.startswith("bill.")]


def _nested(values):
    """Return a recipe's section `bill` of dotted paths."""
    return {"bill": {path.partition(".")[2]: value for path, value in values.items() if path.startswith("bill.")}}


def test_a_finished_run_goes_on_without_a_section_that_nobody_offers(desk, tmp_path):
    run = sftplug.train(desk("journal: {note: {team: a}}", plugins="[journal]"), show=False)
    line = json.loads((run.output / "journal.jsonl").read_text().splitlines()[0])
    assert line["note"] == {"team": "a"}
    (run.output / "recipe.yaml").write_text(
        (run.output / "recipe.yaml").read_text().replace("journal:\n", "diary:\n").replace("plugins:\n- journal\n", "")
    )
    loaded = run.directory.load_recipe()
    assert any("the run's section `diary` is left out: no plugin offers it." in text for text in loaded.aged)


def test_its_options_of_an_earlier_version_are_upgraded(desk, tmp_path):
    upgrade = """
    @classmethod
    def upgrade(cls, options, from_version):
        if "price" in options:
            options["rate"] = options.pop("price")
        return options

    def check("""
    (tmp_path / "acme.py").write_text(BILL.replace("\n    def check(", upgrade, 1))
    loaded = sftplug.load(desk("bill: {price: 4}"))
    assert loaded.recipe.bill.rate == 4.0
    (said,) = loaded.aged
    assert said.startswith(
        "bill (recipe.yaml:9): section 'bill' of plugin acme (file) has upgraded options of an earlier"
    )
    assert "`price: 4` -> `rate: 4`" in said


def test_it_is_shown_with_an_example(desk):
    shown = CliRunner().invoke(app, ["plugins", "show", "journal"]).output
    assert "section journal" in shown
    assert "leave_out" in shown
    assert "plugins:\n- journal\njournal:\n" in shown


def test_the_journal_leaves_moments_out(desk):
    run = sftplug.train(desk("journal: {leave_out: [training begins]}", plugins="[journal]"), show=False)
    lines = [json.loads(line) for line in (run.output / "journal.jsonl").read_text().splitlines()]
    assert [line["moment"] for line in lines] == ["training finished"]
    (found,) = problems(desk("journal: {leave_out: [training bgins]}", plugins="[journal]"))
    assert "Did you mean 'training begins'?" in found
