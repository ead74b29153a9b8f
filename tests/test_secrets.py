"""Secrets are planted wherever a user may have some; nothing that is written, printed or uploaded holds one."""

import json
import os
import re
import sys

import patience
import pytest
import yaml
from conftest import TINY, rows
from loopback import serving

PLAIN = {name: f"{name}-Pl4nted" for name in (
    "user", "at", "token", "pwd", "auth", "code", "sig", "amz", "key", "drawn", "config", "named", "header", "yaml",
    "secret", "environment", "other",
)}  # fmt: skip
"""What only its place makes a secret."""
PLAIN["url"] = f"https://me:{PLAIN['at']}@h.invalid/x?token={PLAIN['token']}"
PLAIN["drawn"] = "Pl4ntedDrawnByLotAndLong00"
SPELLED = {
    "hub": "hf_" + "Pl4ntedPl4ntedPl4nted0",
    "openai": "sk-" + "Pl4ntedPl4ntedPl4nted1",
    "github": "ghp_" + "Pl4ntedPl4ntedPl4nted2",
    "aws": "AKIA" + "PLANTEDPLANTED00",
    "stripe": "sk_live_" + "Pl4ntedPl4ntedPl4nted3",
}
"""What is spelled like a secret, wherever it stands."""
MARKS = ("Pl4nted", "PLANTED")
QUERY = (
    f"token={PLAIN['token']}&pwd={PLAIN['pwd']}&auth={PLAIN['auth']}&code={PLAIN['code']}&sig={PLAIN['sig']}%3D"
    f"&X-Amz-Signature={PLAIN['amz']}&subscription-key={PLAIN['key']}&x={PLAIN['drawn']}&split=train"
)
ENVIRONMENT = {
    "HF_TOKEN": SPELLED["hub"],
    "WANDB_API_KEY": PLAIN["environment"],
    "DB_PASSWORD": PLAIN["other"],
    "AWS_SECRET_ACCESS_KEY": PLAIN["secret"],
}
LEAKY = '''
"""Tell secrets wherever there is an ear."""
import logging, os, warnings
from typing import Literal
import sftplug

class Leaky(sftplug.Callback):
    """Tell secrets."""
    type: Literal["leaky"] = "leaky"
    api_key: str = ""

    def trainer_callback(self):
        from transformers import TrainerCallback

        class Tell(TrainerCallback):
            def on_train_begin(self, args, state, control, **kwargs):
                for text in SECRETS:
                    logging.getLogger("urllib3").debug("GET %s", text)
                    logging.getLogger("mine").error("refused: %s", text)
                    warnings.warn(f"refused: {text}", stacklevel=1)
                    sftplug.RunDirectory.open(args.output_dir).add_sample(0, f"ask {text}", f"it is {text}")

            def on_log(self, args, state, control, logs, **kwargs):
                logs.update({f"said_{number}": text for number, text in enumerate(SECRETS)})

        return Tell()

@sftplug.hookimpl
def sftplug_callbacks():
    return [Leaky]

SECRETS = [line for line in open(os.environ["TOLD_FILE"]).read().split("\\n\\n") if line]
'''
DRIVER = """
import json, sys
from sftplug.cli import main

for command in json.loads(sys.argv[1]):
    print("$", *command[:1], flush=True)
    sys.argv = ["sftplug", *command]
    try:
        main()
        code = 0
    except SystemExit as ended:
        code = ended.code
    print("ended with", code, flush=True)
"""


def told():
    """Return texts as libraries and users write them, each with secrets in it."""
    return [
        f"https://{PLAIN['user']}:{PLAIN['at']}@example.org/x?{QUERY}#access_token={PLAIN['token']}",
        f"postgres://me:{PLAIN['at']}/and@example.org/db",
        f"hub_token='{PLAIN['named']}' dbPassword={PLAIN['named']}",
        json.dumps({"clientSecret": PLAIN["config"], "pad_token": "<pad>"}),
        str({"apiKey": PLAIN["config"]}),
        f"Authorization: Basic {PLAIN['header']}\nX-Api-Key: {PLAIN['header']}\nCookie: session={PLAIN['header']}",
        f"train:\n  hub_token: {PLAIN['yaml']}",
        *SPELLED.values(),
        f"the value is {PLAIN['environment']} and {PLAIN['other']}",
    ]


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """Run every command, with and without -v, on one tiny run; return what was printed by each, and all folders."""
    folder = tmp_path_factory.mktemp("planted")
    (folder / "told").write_text("\n\n".join(told()))
    (folder / "leaky.py").write_text(LEAKY)
    data = rows(12)
    for row, text in zip(data, told(), strict=False):
        row["messages"][0]["content"] += f" {text}"
        row["messages"][1]["content"] += f" {text}"
    lines = "".join(json.dumps(row) + "\n" for row in data).encode()
    with serving({"/rows.jsonl": lines}) as (address, seen):
        url = f"http://{PLAIN['user']}:{PLAIN['at']}@{address.removeprefix('http://')}/rows.jsonl?{QUERY}"
        recipe = {
            "plugins": ["./leaky.py"],
            "model": {"build": TINY},
            "data": {"train": {"path": url, "format": "messages"}, "eval_fraction": 0.25, "max_length": 512},
            "chat_template": "chatml",
            "adapter": "lora",
            "quantization": "fp32",
            "callbacks": [{"type": "leaky", "api_key": PLAIN["config"]}],
            "train": {"max_steps": 1, "run_name": f"by {SPELLED['openai']} {told()[0]}"},
            "output": str(folder / "run"),
        }
        (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
        (folder / "broken.yaml").write_text(f"train:\n  hub_token: {PLAIN['yaml']}\n  api_key: [{PLAIN['yaml']}\n")
        (folder / "unknown.yaml").write_text(yaml.safe_dump({**recipe, "train": {"hub_tokn": PLAIN["yaml"]}}))
        environment = {**os.environ, **ENVIRONMENT, "TOLD_FILE": str(folder / "told"), "HF_ENDPOINT": address}
        environment |= {"HF_HUB_OFFLINE": "0", "SFTPLUG_CACHE": str(folder / "cache"), "PYTHONWARNINGS": "default"}
        command = [sys.executable, "-c", DRIVER, json.dumps(commands(folder))]
        done = patience.run(command, env=environment, cwd=folder)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder, done, seen


def commands(folder):
    """Return every command, talkative last: that lasts."""
    recipe, run = str(folder / "recipe.yaml"), str(folder / "run")
    said = [["train", recipe]]
    for talk in ([], ["-v"]):
        page = str(folder / f"page{len(talk)}")
        said += [
            ["check", recipe, *talk],
            ["check", str(folder / "broken.yaml"), *talk],
            ["check", str(folder / "unknown.yaml"), *talk],
            ["check", recipe, f"train.hub_token={PLAIN['named']}", f"adapter.rr={PLAIN['url']}", *talk],
            ["explain", recipe],
            ["explain", recipe, "--json"],
            ["plan", recipe, *talk],
            ["prepare", recipe, "--output", f"{page}-rows", *talk],
            ["preview", recipe, "-n", "12", *talk],
            ["preview", recipe, "-n", "12", "--html", f"{page}-rows.html", *talk],
            ["preview", recipe, "-n", "12", "--json", *talk],
            ["train", recipe, "--output", f"{page}-run", *talk],
            ["train", recipe, "--output", f"{page}-failed", "data.max_dropped=0", "data.max_length=20", *talk],
            ["train", recipe, *talk],
            ["eval", run, "--json", *talk],
            ["chat", run, "--prompt", "Question 3: red or blue?", "--max-new-tokens", "4", *talk],
            ["merge", run, "--output", f"{page}-merged", *talk],
            ["replay", run, "--output", f"{page}-again", *talk],
            ["report", run, *talk],
            ["report", run, f"{page}-run", "--html", f"{page}.html", *talk],
            ["push", f"{page}-merged", "me/model", *talk],
        ]
    return said


def test_every_command_did_what_it_should(planted):
    folder, done, seen = planted
    parts = re.findall(r"^\$ (\w+)\n(.*?)^ended with (\d)$", done.stdout, re.M | re.S)
    assert len(parts) == len(commands(folder))
    codes = [(name, int(code)) for name, _, code in parts]
    assert codes == [("train", 0), *EXPECTED, *EXPECTED], done.stderr[-5000:]
    assert any("token=" in path for path, _, _ in seen["requests"])  # it was asked for with all that


EXPECTED = [
    *[("check", code) for code in (0, 2, 2, 2)],
    *[(name, 0) for name in ("explain", "explain", "plan", "prepare", "preview", "preview", "preview")],
    ("train", 0),
    ("train", 2),  # its rows do not fit
    ("train", 2),  # it is finished
    *[(name, 0) for name in ("eval", "chat", "merge", "replay", "report", "report", "push")],
]


def test_nothing_that_is_printed_holds_a_secret(planted):
    _, done, _ = planted
    for text in (done.stdout, done.stderr):
        assert leaks(text) == []


def test_nothing_that_is_written_holds_a_secret(planted):
    folder, _, _ = planted
    mine = {"recipe.yaml", "broken.yaml", "unknown.yaml", "told", "leaky.py"}
    files = [path for path in folder.rglob("*") if path.is_file() and (path.parent != folder or path.name not in mine)]
    assert len(files) > 80
    found = {str(path.relative_to(folder)): leaks(path.read_bytes().decode(errors="replace")) for path in files}
    assert {name: texts for name, texts in found.items() if texts} == {}


def test_nothing_that_is_uploaded_holds_a_secret(planted):
    _, _, seen = planted
    assert "README.md" in seen["files"]
    found = {name: leaks(content.decode(errors="replace")) for name, content in seen["files"].items()}
    assert {name: texts for name, texts in found.items() if texts} == {}


def leaks(text):
    """Return what surrounds each secret in `text`, without colours, tags, line ends, or what stands between tokens."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", text)
    tokens = "".join(re.findall(r'"text": "((?:[^"\\]|\\.)*)"', plain))
    text = "\f".join([plain, plain.replace("\n", ""), re.sub(r"<[^>]*>", "", plain), tokens])
    places = [found.start() for mark in MARKS for found in re.finditer(mark, text)]
    return [text[max(at - 80, 0) : at + 30] for at in places]
