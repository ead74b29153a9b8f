"""Safe by default: recipes are data, nothing calls out, code is shown before it runs, secrets are not kept."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import patience
import pytest
import yaml
from browser import Page
from conftest import rows
from run.children import call

from sftplug import RunDirectory
from sftplug.errors import ModelError, RecipeError
from sftplug.libraries.logging import quiet_libraries
from sftplug.model.loading import base_model_path, load_model
from sftplug.recipe import load_recipe
from sftplug.run import open_session
from sftplug.util.redact import HIDDEN, blanked, redact, without_secrets

COMMIT = "0123456789abcdef0123456789abcdef01234567"
TOKEN = "hf_" + "aBcDeFgHiJkLmNoPqRsTuVwXyZ"


def sftplug(*arguments, env=None):
    return patience.run([sys.executable, "-m", "sftplug", *map(str, arguments)], env={**os.environ, **(env or {})})


@pytest.fixture
def forked(tmp_path):
    """Return a function that runs a command in a process that has the libraries already; its code, and what it said."""

    def go(*arguments, env=None):
        code = call(arguments, tmp_path / "said", {"HF_HUB_OFFLINE": "1", **os.environ, **(env or {})})
        return code, (tmp_path / "said").read_text()

    return go


# --- recipes are data -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value", ["!!python/object/apply:os.system ['touch pwned']", "!!python/name:os.system", "!!python/module:os ''"]
)
def test_yaml_that_would_run_code_is_refused_and_does_not(recipe_file, tmp_path, monkeypatch, value):
    monkeypatch.chdir(tmp_path)
    file = recipe_file()
    file.write_text(file.read_text() + f"run_name: {value}\n")
    with pytest.raises(RecipeError, match=r"a recipe is plain data, and the tag .* is not"):
        load_recipe(str(file))
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize("command", ["check", "explain", "train"])
def test_a_plugin_file_is_shown_before_it_runs(recipe_file, tmp_path, command):
    plugin = tmp_path / "mine.py"
    plugin.write_text("import sys\nsys.stderr.write('the plugin runs\\n')\nraise SystemExit('on purpose')\n")
    result = sftplug(command, recipe_file(plugins=["./mine.py"]))
    assert result.returncode == 2
    shown = hashlib.sha256(plugin.read_bytes()).hexdigest()
    lines = result.stderr.splitlines()
    assert lines[0] == f"running the plugin file {plugin} (sha256 {shown})"
    assert lines[1] == "the plugin runs"
    assert result.stderr.count("running the plugin file") == 1


def test_the_hash_that_is_shown_is_the_one_that_is_kept(recipe_file, tmp_path, caplog):
    plugin = tmp_path / "kept.py"
    plugin.write_text(
        "import sftplug\n\n\n@sftplug.hookimpl\ndef sftplug_recipe_loaded(recipe):\n    '''Do nothing.'''\n"
    )
    loaded = load_recipe(str(recipe_file(plugins=["./kept.py"])))
    shown = hashlib.sha256(plugin.read_bytes()).hexdigest()
    assert [item["sha256"] for item in loaded.provenance() if item["name"] == "kept"] == [shown]
    assert shown in caplog.text


# --- models -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("revision", "allowed"), [(None, False), ("main", False), ("v1.0", False), (COMMIT, True)])
def test_code_from_the_hub_is_run_at_a_commit_only(recipe_file, revision, allowed):
    file = recipe_file(model={"name_or_path": "org/name", "trust_remote_code": True, "revision": revision})
    if allowed:
        assert load_recipe(str(file)).recipe.model.revision == COMMIT
        return
    with pytest.raises(RecipeError, match=r"pin `model.revision` to a commit, 40 hexadecimal digits\.") as caught:
        load_recipe(str(file))
    assert ("branches and tags can be moved" in str(caught.value)) == (revision is not None)


@pytest.mark.parametrize(
    ("model", "text"),
    [
        ({"trust_remote_code": True, "revision": COMMIT, "code_revision": "main"}, "must be a commit, 40 hexadecimal"),
        ({"code_revision": COMMIT}, "says which code to run, and `model.trust_remote_code` is false: none is."),
    ],
)
def test_the_commit_of_code_elsewhere_is_one_and_is_of_use(recipe_file, model, text):
    with pytest.raises(RecipeError, match=r"model\.code_revision .*" + re.escape(text)):
        load_recipe(str(recipe_file(model={"name_or_path": "org/name", **model})))


ELSEWHERE = """
import json, sys
from pathlib import Path
from sftplug.errors import ModelError
from sftplug.model.loading import check_model, load_model, load_tokenizer
from sftplug.recipe import load_recipe

ran = Path(sys.argv[2])
said = {}
for name, changes in json.loads(sys.argv[3]).items():
    recipe = load_recipe(sys.argv[1], [f"model.{change}" for change in changes]).recipe
    ran.write_text("")
    said[name] = []
    for load in (load_tokenizer, check_model, load_model):
        try:
            load(recipe)
            said[name].append("")
        except ModelError as error:
            said[name].append(str(error))
    said[name].append(sorted(set(ran.read_text().split())))
print(json.dumps(said))
"""
CODE = """
from pathlib import Path
from transformers import LlamaConfig, LlamaForCausalLM

with Path({ran!r}).open("a") as file:
    file.write("{name} ")

class Config(LlamaConfig):
    model_type = "elsewhere"

class Model(LlamaForCausalLM):
    config_class = Config
"""


class Hub:
    """The Hub's cache on this machine, with repositories in it."""

    def __init__(self, folder, model):
        self.folder, self.model, self.ran = folder / "hub", model, folder / "ran"
        self.environment = {"HF_HUB_CACHE": str(self.folder), "HF_MODULES_CACHE": str(folder / "modules")}

    def store(self, repository, commit, *, code=None, names=None, main=False):
        """Store a commit, with the code called `code`, or a model whose code is where `names` says; or both."""
        place = self.folder / f"models--{repository.replace('/', '--')}"
        folder = place / "snapshots" / commit
        folder.mkdir(parents=True)
        if names is not None:
            self.copy(folder, *names)
        if code is not None:
            (folder / "code.py").write_text(CODE.format(ran=str(self.ran), name=code))
        if main:
            (place / "refs").mkdir(exist_ok=True)
            (place / "refs" / "main").write_text(commit)

    def copy(self, folder, *names):
        """Copy the model; `names` says where the code of its configuration and of itself is."""
        shutil.copytree(self.model, folder, dirs_exist_ok=True)
        config = json.loads((folder / "config.json").read_text())
        where = {"AutoConfig": f"{names[0]}code.Config", "AutoModelForCausalLM": f"{names[-1]}code.Model"}
        config |= {"model_type": "elsewhere", "auto_map": where}
        (folder / "config.json").write_text(json.dumps(config))


@pytest.fixture
def hub(model_folder, tmp_path):
    """Return a Hub whose newest code is never that at the commits which are pinned."""
    made, newest = Hub(tmp_path, model_folder), "f" * 40
    made.store("org/name", COMMIT, names=["other/code--"])
    made.store("other/code", COMMIT, code="read")
    made.store("other/code", newest, code="changed-since", main=True)
    made.store("org/own", COMMIT, names=[""], code="own")
    made.store("org/own", newest, names=[""], code="own-changed-since", main=True)
    made.store("org/both", COMMIT, names=["other/code--", "third/code--"])
    made.copy(tmp_path / "folder", "other/code--")
    return made


def test_code_in_another_repository_is_run_at_a_commit_of_its_own_only(recipe_file, hub, tmp_path):
    """The model's own commit says nothing of it: transformers would take the code from the branch ``main``."""
    pinned, folder = f"code_revision={COMMIT}", [f"name_or_path={tmp_path / 'folder'}", "revision=null"]
    cases = {
        "elsewhere": ["name_or_path=org/name"],
        "pinned": ["name_or_path=org/name", pinned],
        "own": ["name_or_path=org/own"],
        "useless": ["name_or_path=org/own", pinned],
        "both": ["name_or_path=org/both", pinned],
        "folder": folder,
        "folder pinned": [*folder, pinned],
    }
    file = recipe_file(model={"name_or_path": "org/name", "revision": COMMIT, "trust_remote_code": True})
    result = subprocess.run(
        [sys.executable, "-c", ELSEWHERE, str(file), str(hub.ran), json.dumps(cases)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **hub.environment},
    )
    assert result.returncode == 0, result.stderr[-3000:]
    said = json.loads(result.stdout.splitlines()[-1])
    refused = (
        "lies in another repository, other/code, which `model.revision` does not pin: whoever may write there can "
        "change what it does. Read it, and set `model.code_revision` to the commit that you have read"
    )
    for name, text in {
        "elsewhere": refused,
        "folder": refused,
        "useless": "`model.code_revision` pins code in another repository, and org/own has none. Leave it out.",
        "both": "lies in several repositories, and one commit cannot pin them all: other/code, third/code.",
    }.items():
        *texts, ran = said[name]
        assert all(text in found for found in texts), texts
        assert ran == []
    assert said["pinned"] == ["", "", "", ["read"]]
    assert said["folder pinned"] == ["", "", "", []]  # the same code, which is in memory by now
    assert said["own"] == ["", "", "", ["own"]]


@pytest.fixture
def model_folder(recipe_file, tmp_path):
    """Return a copy of the tiny model that may be changed."""
    built = base_model_path(load_recipe(str(recipe_file())).recipe)
    return Path(shutil.copytree(built, tmp_path / "model"))


def test_code_in_a_folder_is_what_stands_there(recipe_file, model_folder):
    file = recipe_file(model={"name_or_path": str(model_folder), "trust_remote_code": True})
    assert load_recipe(str(file)).recipe.model.trust_remote_code


def test_pickled_weights_are_loaded_only_when_the_recipe_says_so(recipe_file, model_folder):
    import torch
    from safetensors.torch import load_file

    weights = load_file(model_folder / "model.safetensors")
    torch.save(weights, model_folder / "pytorch_model.bin")
    (model_folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"Only safetensors are loaded: .* `model.use_safetensors: false` takes them"):
        load_model(load_recipe(str(recipe_file(model=str(model_folder)))).recipe)
    pickled = {"name_or_path": str(model_folder), "use_safetensors": False}
    model = load_model(load_recipe(str(recipe_file(model=pickled))).recipe)
    name, first = next(iter(weights.items()))
    assert torch.equal(model.state_dict()[name], first)


# --- secrets ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://user:pw@host/x.jsonl", "https://host/x.jsonl"),
        (f"token {TOKEN}.", f"token {HIDDEN}."),
        ("https://h/x?token=abc&b=1", f"https://h/x?token={HIDDEN}&b=1"),
        ("https://h/x?X-Amz-Signature=abc", f"https://h/x?X-Amz-Signature={HIDDEN}"),
        ("sk-abcdefghijklmnopqrstuvwx", HIDDEN),
        ("ASIAABCDEFGHIJKLMNOP and AKIAABCDEFGHIJKLMNOP", f"{HIDDEN} and {HIDDEN}"),
        ("aws_secret_access_key=wJalrXUtnFEMI/K7MDENG b", f"aws_secret_access_key={HIDDEN} b"),
        ("export WANDB_API_KEY=abc1; x", f"export WANDB_API_KEY={HIDDEN}; x"),
        ("{'hub_token': 'abc', 'pad_token': '<pad>'}", f"{{'hub_token': '{HIDDEN}', 'pad_token': '<pad>'}}"),
        ("Authorization: Bearer abcdefghijklmnop1", f"Authorization: Bearer {HIDDEN}"),
        ("Authorization: token abcd", f"Authorization: token {HIDDEN}"),
        ("{'Proxy-Authorization': 'Basic dTpw'}", f"{{'Proxy-Authorization': 'Basic {HIDDEN}'}}"),
        ("X-Api-Key: abc", f"X-Api-Key: {HIDDEN}"),
        ("Set-Cookie: session=abc; path=/", f"Set-Cookie: {HIDDEN}"),
        ("https://me:p@ss@host/x", "https://host/x"),
        ("postgres://me:pa/ss?@host/db", "postgres://host/db"),
        *(
            (f"https://h/x?a=1&{name}=abc&b=1", f"https://h/x?a=1&{name}={HIDDEN}&b=1")
            for name in (
                "pwd",
                "pass",
                "auth",
                "code",
                "sig",
                "key",
                "api-key",
                "AWSAccessKeyId",
                "X-Amz-Credential",
                "X-Goog-Signature",
                "Key-Pair-Id",
                "client_secret",
                "PASSWORD",
                "oauth_token",
                "sid",
            )
        ),
        ("https://h/x?a=1&amp;token=abc", f"https://h/x?a=1&amp;token={HIDDEN}"),
        ("https://h/;jsessionid=abc#access_token=abc", f"https://h/;jsessionid={HIDDEN}#access_token={HIDDEN}"),
        ("https://h/x?y=aB3aB3aB3aB3aB3aB3aB3&z=1", f"https://h/x?y={HIDDEN}&z=1"),
        ("get(url='https://h/x?token=abc')", f"get(url='https://h/x?token={HIDDEN}')"),
        ("hub_token='abc' apiKey=\"a b\"", f"hub_token='{HIDDEN}' apiKey=\"{HIDDEN}\""),
        ('{"clientSecret": "a, b"}', f'{{"clientSecret": "{HIDDEN}"}}'),
        ("train:\n  hub_token: abc\n", f"train:\n  hub_token: {HIDDEN}\n"),
        ("its password: hunter2 is old", f"its password: {HIDDEN} is old"),
        ("-----BEGIN RSA PRIVATE KEY-----\nabc\n-----END", f"-----BEGIN RSA PRIVATE KEY-----{HIDDEN}-----END"),
        ("it says in-the-environment.", f"it says {HIDDEN}."),
        *(
            (text, text)
            for text in (
                "<|im_start|>user@example.org pad_token hf_model C:/a@b",
                "hf_transfer 1.2, a basic understanding, num_tokens=44 eos_token_id=3 pad_token=<pad>",
                "train.hub_token: is set by sftplug; the password: field",
                "https://host:8080/a/@scope/x?download=true&revision=0123456789abcdef0123456789abcdef01234567",
                "hub_token=None, auth=True; git@github.com:a/b.git; the masking: assistant; keyword=a1 monkey=b2",
            )
        ),
    ],
)
def test_what_looks_like_a_secret_is_left_out(text, expected, monkeypatch):
    monkeypatch.setenv("MY_API_KEY", "in-the-environment")
    monkeypatch.setenv("SHORT_TOKEN", "it")
    assert redact(text) == redact(expected) == expected
    assert len(blanked(text)) == len(text)
    assert (blanked(text) == text) == (expected == text)


@pytest.mark.parametrize(
    "piece", ["a=", "a: ", "\n", "//", "://a:", "x-", "eyJ", "SG.", "secret", "a@", "-", "?a", "password ", "Basic "]
)
def test_a_text_that_begins_like_a_secret_again_and_again_comes_back_as_it_was(piece):
    """A careless expression would try every end from every beginning of one: hours, where this takes a moment."""
    text = piece * (100_000 // len(piece))
    assert redact(text) == text
    assert blanked(text) == text


def test_values_whose_names_say_that_they_are_secret_are_left_out():
    data = {"hub_token": "x", "pad_token": "<pad>", "a": [{"api_key": "y"}, "https://u:p@h"], "n": 1}
    assert without_secrets(data) == {
        "hub_token": HIDDEN,
        "pad_token": "<pad>",
        "a": [{"api_key": HIDDEN}, "https://h"],
        "n": 1,
    }


def test_no_secret_is_in_what_is_printed_or_in_the_folder_or_the_report(recipe_file, tmp_path, forked):
    password = "pa55w0rd"
    url = f"http://user:{password}@localhost:9/rows.jsonl?token=s3cr3t"
    file = recipe_file(data={"train": {"path": url, "format": "messages"}}, train={"run_name": f"by {TOKEN}"})
    recipe = yaml.safe_load(file.read_text())
    recipe["data"] = {"train": {"path": url, "format": "messages"}}
    file.write_text(yaml.safe_dump(recipe))
    code, said = forked("train", file, env={"HF_TOKEN": TOKEN, "WANDB_API_KEY": password})
    assert code == 2, said
    assert "localhost" in said
    code, reported = forked("report", tmp_path / "out", "--html", tmp_path / "page.html")
    assert code == 0, reported
    kept = [path.read_text() for path in [*(tmp_path / "out").rglob("*.*"), tmp_path / "page.html"] if path.is_file()]
    assert len(kept) > 4
    for text in (said, reported, *kept):
        assert password not in text
        assert "s3cr3t" not in text
        assert TOKEN not in text


LEAKY = """
import logging, warnings
from typing import Literal
import sftplug

class Leaky(sftplug.Callback):
    '''Tell secrets wherever there is an ear.'''
    type: Literal["leaky"] = "leaky"
    fails: bool = False

    def trainer_callback(self):
        from transformers import TrainerCallback
        from transformers.utils import logging as of_transformers

        class Tell(TrainerCallback):
            def on_train_begin(_, args, state, control, **kwargs):
                logging.getLogger("httpx").debug("GET %s {url}", "{url}", extra={{"of": 1}})
                of_transformers.get_logger("transformers.trainer").warning("no access with {token}")
                warnings.warn("deprecated: {token}")
                try:
                    raise ValueError("{token}")
                except ValueError:
                    logging.getLogger("mine").exception("it went wrong")
                sftplug.RunDirectory.open(args.output_dir).add_sample(0, "ask {token}", "{key} is it")
                if self.fails:
                    raise KeyError("{token}")

            def on_log(_, args, state, control, logs, **kwargs):
                logs["said"] = "{url}"

        return Tell()

@sftplug.hookimpl
def sftplug_callbacks():
    return [Leaky]
"""


def test_no_secret_comes_out_of_a_run_that_is_full_of_them(recipe_file, tmp_path, forked):
    """Logs at their most talkative, warnings, tracebacks, metrics, samples, prompts, the card, the report's rows."""
    url, key = "https://me:pa55w0rd@example.org/x?token=s3cr3t", "sk-" + "k3y" * 8
    (tmp_path / "leaky.py").write_text(LEAKY.format(url=url, token=TOKEN, key=key))
    told = [{**row, "messages": [{**turn, "content": f"{turn['content']} {TOKEN}"} for turn in row["messages"]]}
            for row in rows(4)]  # fmt: skip
    callbacks = [{"type": "leaky"}, {"type": "samples", "prompts": [f"Is it {TOKEN}?"], "max_new_tokens": 2}]
    train = {"max_steps": 1, "run_name": f"by {TOKEN}", "logging_steps": 1}
    file = recipe_file(data=told, plugins=["./leaky.py"], callbacks=callbacks, train=train, adapter="lora")
    code, said = forked("train", file, "-v", env={"HF_TOKEN": TOKEN})
    assert code == 0, said
    code, failed = forked(
        "train", file, "-v", "callbacks=[{type: leaky, fails: true}]", f"output={tmp_path / 'failed'}"
    )
    assert code == 1, failed
    code, reported = forked("report", tmp_path / "out", "--html", tmp_path / "page.html")
    assert code == 0, reported
    explained = [forked("explain", file)[1], forked("explain", file, "--json")[1]]
    for text in ("httpx: GET https://example.org/x", "no access with (not kept)", "deprecated: (not kept)"):
        assert text in said
    assert "ValueError: (not kept)" in said
    assert "KeyError: '(not kept)'" in failed
    assert all(f"by {HIDDEN}" in text for text in explained)
    run = RunDirectory.open(tmp_path / "out")
    assert {"step": 0, "prompt": "ask (not kept)", "answer": "(not kept) is it"} in list(run.samples())
    assert [entry["said"] for entry in run.metrics()] == ["https://example.org/x?token=(not kept)"]
    assert "•" * len(TOKEN) in Page((tmp_path / "page.html").read_text()).text.replace("\n", "")
    kept = [
        path.read_text(errors="replace")
        for path in [*(tmp_path / "out").rglob("*"), *(tmp_path / "failed").rglob("*"), tmp_path / "page.html"]
        if path.is_file() and path.name not in ("leaky.py", "tokenizer.json")
    ]
    assert len(kept) > 20
    for text in (said, failed, reported, *explained, *kept):
        for secret in (TOKEN, key, "pa55w0rd", "s3cr3t"):
            assert secret not in text


def test_an_error_that_is_kept_holds_no_secret(recipe_file):
    loaded = load_recipe(str(recipe_file()))
    with pytest.raises(ModelError), open_session(loaded, overwrite=True) as attempt:
        raise ModelError(f"cannot reach https://me:pw@host with {TOKEN}")
    assert attempt.directory.state().reason == f"ModelError: cannot reach https://host with {HIDDEN}"


# --- nothing calls out ------------------------------------------------------------------------------------------------


def test_usage_pings_are_off_unless_the_user_turns_them_on(monkeypatch):
    for name in ("HF_HUB_DISABLE_TELEMETRY", "DO_NOT_TRACK"):
        monkeypatch.setenv(name, "x")
        monkeypatch.delenv(name)
    quiet_libraries()
    assert os.environ["HF_HUB_DISABLE_TELEMETRY"] == os.environ["DO_NOT_TRACK"] == "1"
    monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "0")
    quiet_libraries()
    assert os.environ["HF_HUB_DISABLE_TELEMETRY"] == "0"


def test_nothing_is_reported_to_a_service_by_default(recipe_file):
    from sftplug.training.arguments import training_arguments

    assert training_arguments(load_recipe(str(recipe_file())).recipe).report_to == []


BLOCK = """
import socket, traceback

def refuse(name, inner=None):
    def call(*args, **kwargs):
        address = args[1] if inner and len(args) > 1 else args[0] if args else None
        if inner and isinstance(address, (str, bytes)):
            return inner(*args, **kwargs)  # a socket of the machine's own
        with open({log!r}, "a") as file:
            file.write(name + repr(address) + "".join(traceback.format_stack()))
        raise OSError("no network")
    return call

socket.socket.connect = refuse("connect", socket.socket.connect)
socket.socket.connect_ex = refuse("connect_ex", socket.socket.connect_ex)
socket.getaddrinfo = refuse("getaddrinfo")
"""
DRIVER = """
import json, sys
from sftplug.cli import app

for command in json.loads(sys.argv[1]):
    print("$", *command, flush=True)
    try:
        app(command, standalone_mode=False)
    except SystemExit as ended:
        assert not ended.code, ended.code
    if command[0] == "train" and "--resume" not in command:  # as a run that was killed leaves it
        import pathlib, shutil
        out = pathlib.Path(sys.argv[2])
        shutil.rmtree(out / "checkpoint-4")
        state = json.loads((out / "run.json").read_text())
        (out / "run.json").write_text(json.dumps({**state, "state": "running"}))
print("done")
"""


def test_with_sockets_blocked_everything_on_local_paths_works(recipe_file, model_folder, tmp_path):
    log = tmp_path / "calls"
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(BLOCK.format(log=str(log)))
    train = {
        "max_steps": 4,
        "save_strategy": "steps",
        "save_steps": 2,
        "save_total_limit": 0,
        "per_device_train_batch_size": 4,
    }
    file = recipe_file(model=str(model_folder), data=rows(24), train=train, adapter="lora")
    out, held_out = str(tmp_path / "out"), "data.eval_fraction=0.2"
    commands = [
        ["check", str(file), held_out],
        ["preview", str(file), "--html", str(tmp_path / "rows.html")],
        ["prepare", str(file), "--output", str(tmp_path / "prepared")],
        ["plan", str(file)],
        ["train", str(file), held_out],
        ["train", str(file), held_out, "--resume"],
        ["eval", out],
        ["chat", out, "--prompt", "Question 3: red or blue?", "--max-new-tokens", "4", "--compare-base"],
        ["merge", out, "--output", str(tmp_path / "merged")],
        ["replay", out, "--output", str(tmp_path / "again")],
        ["report", out, "--html", str(tmp_path / "page.html")],
    ]
    online = {
        name: value for name, value in os.environ.items() if name not in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE")
    }
    result = patience.run(
        [sys.executable, "-c", DRIVER, json.dumps(commands), out],
        env={**online, "PYTHONPATH": str(tmp_path / "site")},
    )
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    assert result.stdout.endswith("done\n")
    assert "resuming from step 2" in result.stderr
    assert not log.exists(), log.read_text()[:5000]
