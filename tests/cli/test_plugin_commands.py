"""Commands and recipes that plugins bring, installed as a stranger's and called as a user calls them."""

import json

import pytest
from strangers import Site

HEAD = "import sftplug\nfrom pathlib import Path\n"
GREET = """
def greet(name: str, loud: bool = False) -> None:
    '''Greet NAME.'''
    if name == "nobody":
        raise KeyError("nobody is there")
    if name == "king":
        raise sftplug.ModelError("he is asleep.")
    print(f"Hello {name}".upper() if loud else f"Hello {name}")
"""
OFFER = "\n@sftplug.hookimpl\ndef sftplug_commands():\n    return {offered}\n"


@pytest.fixture
def site(tmp_path):
    return Site(tmp_path / "site")


def installed(site, offered="{'greet': greet}", **how):
    return site.install(HEAD + GREET + OFFER.replace("{offered}", offered), **how)


def test_a_function_becomes_a_command(site):
    installed(site)
    assert site.sftplug("greet", "Ada").stdout == "Hello Ada\n"
    assert site.sftplug("greet", "Ada", "--loud").stdout == "HELLO ADA\n"
    assert "Greet NAME." in site.sftplug("greet", "--help").stdout
    assert "greet" in site.sftplug("--help").stdout
    assert "commands: greet" in site.sftplug("plugins").stdout
    wrong = site.sftplug("greet")
    assert (wrong.returncode, "Missing argument" in wrong.stderr) == (2, True)


def test_a_typer_app_becomes_a_group_of_commands(site):
    app = "\nimport typer\napp = typer.Typer(help='Greetings.')\napp.command('hi')(greet)\napp.command('bye')(greet)\n"
    site.install(HEAD + GREET + app + OFFER.replace("{offered}", "{'say': app}"))
    assert site.sftplug("say", "hi", "Ada").stdout == "Hello Ada\n"
    assert "Greetings." in site.sftplug("--help").stdout


def test_what_a_command_raises_is_told_as_its_plugin_s_and_what_it_says_on_purpose_as_it_is(site):
    file = installed(site)
    fault = site.sftplug("greet", "nobody")
    assert fault.returncode == 2
    assert fault.stderr.startswith(
        "plugin acme (acme 1.2.3): the command 'greet' failed: KeyError: 'nobody is there' ("
    )
    assert f"{file}:7" in fault.stderr
    said = site.sftplug("greet", "king")
    assert (said.returncode, said.stderr) == (2, "he is asleep.\n")


@pytest.mark.parametrize("name", ["train", "greet"])
def test_a_name_that_two_claim_is_an_error_that_names_both(site, name):
    installed(site, f"{{'{name}': greet}}")
    if name == "greet":
        installed(site, name="other")
    told = site.sftplug("plugins").stderr
    owner = "sftplug itself" if name == "train" else "plugin acme (acme 1.2.3)"
    assert f"two offer the command '{name}': {owner}" in told
    assert f"two offer the command '{name}': {owner}" in site.sftplug("--help").stderr
    result = site.sftplug(name, "Ada")
    if name == "train":
        assert "there is no such file" in result.stderr  # sftplug's own stays what it is
    else:
        assert (result.returncode, "plugin other (other 1.2.3)" in result.stderr) == (2, True)
        for file in site.folder.glob("other-1.2.3.dist-info/*"):
            file.unlink()
        assert site.sftplug(name, "Ada").stdout == "Hello Ada\n"


@pytest.mark.parametrize(
    ("offered", "text"),
    [
        ("[greet]", "sftplug_commands() must return a dict of commands by name, not list"),
        ("{'a b': greet}", "sftplug_commands() must return functions or typer apps by name, not 'a b'"),
        ("{'greet': 3}", "sftplug_commands() must return functions or typer apps by name, not 'greet': 3"),
        ("1 / 0", "sftplug_commands() failed: ZeroDivisionError: division by zero"),
    ],
)
def test_what_is_no_command_is_told_and_stops_nothing_else(site, offered, text):
    installed(site, offered)
    result = site.sftplug("greet", "Ada")
    assert result.returncode == 2
    assert text in result.stderr
    assert "No such command 'greet'" in result.stderr
    assert site.sftplug("recipes").returncode == 0


def test_a_plugin_without_commands_is_not_imported_for_the_list_of_them(site):
    site.install("raise SystemExit('imported')")
    assert "imported" not in site.sftplug("--help").stderr
    assert "imported" in site.sftplug("plugins").stderr


def test_the_curve_of_a_run_is_a_command_of_the_console_plugin(lora_run, command):
    told = command("curve", lora_run).output
    measured = [json.loads(line) for line in (lora_run / "metrics.jsonl").read_text().splitlines()]
    losses = [entry["loss"] for entry in measured if "loss" in entry]
    assert told.splitlines()[0] == f"loss, steps 1 to {measured[-1]['step']}; last {losses[-1]:.4g}"
    assert f"{max(losses):8.3f} │" in told
    error = command("curve", lora_run, "los").exception
    assert str(error).startswith(f"{lora_run} has no `los`. Did you mean 'loss'? Measured were: ")


RECIPES = "\n@sftplug.hookimpl\ndef sftplug_recipes():\n    return {folder}\n"


def test_recipes_of_a_plugin_are_listed_extended_and_copied(site, tmp_path):
    file = site.install(HEAD + RECIPES.replace("{folder}", "Path(__file__).parent / 'acme_recipes'"))
    folder = file.parent / "acme_recipes" / "chat"
    folder.mkdir(parents=True)
    (folder / "base.yaml").write_text(
        "# What Acme trains with.\nmodel: {build: {type: tiny, pretrain_steps: 0}}\nadapter: {type: lora, r: 3}\n"
        "chat_template: chatml\nquantization: fp32\n"
    )
    (tmp_path / "rows.jsonl").write_text('{"text": "one"}\n')
    (tmp_path / "mine.yaml").write_text(
        "extends: acme/chat/base\ndata: {train: {path: rows.jsonl, format: text}}\nmasking: all\n"
    )
    listed = site.sftplug("recipes").stdout
    line = next(line for line in listed.splitlines() if "acme/chat/base" in line)
    assert "What Acme trains with." in line
    assert "plugin acme (acme 1.2.3)" in line
    explained = site.sftplug("explain", tmp_path / "mine.yaml", "adapter.r").stdout
    assert "base.yaml:3 (extended)" in explained
    assert "recipes: acme/chat/base" in site.sftplug("plugins").stdout
    assert site.sftplug("recipes", "copy", "acme/chat/base", tmp_path / "copy").returncode == 0
    assert (tmp_path / "copy" / "base.yaml").read_text().startswith("# What Acme trains with.")


@pytest.mark.parametrize("folder", ["'recipes'", "Path('nowhere')"])
def test_what_is_no_folder_of_recipes_is_told(site, folder):
    site.install(HEAD + RECIPES.replace("{folder}", folder))
    result = site.sftplug("check", "acme/base")
    assert result.returncode == 2
    said = "sftplug_recipes() must return a folder of recipes as a Path, not "
    assert said in result.stderr
    listed = site.sftplug("recipes")
    assert (listed.returncode, said in listed.stderr, "quickstart" in listed.stdout) == (0, True, True)


def test_a_shipped_plugin_s_recipe_can_be_built_on(tmp_path, command):
    (tmp_path / "rows.jsonl").write_text('{"messages": [{"role": "user", "content": "a"}]}\n')
    (tmp_path / "mine.yaml").write_text("extends: smollm2/base\ndata: {train: {path: rows.jsonl}}\n")
    told = command("explain", tmp_path / "mine.yaml", "train.learning_rate").output
    assert "0.001" in told
    assert "(extended)" in told
