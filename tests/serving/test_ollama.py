"""Templates of Modelfiles in Go's own engine, which is Ollama's: ``make serving``, where Go is installed."""

import json
import shutil
import subprocess

import pytest
from go_templates import SEES, TALK, TEMPLATES, TRL

import sftplug
from sftplug_gguf.modelfile import turns_of

pytestmark = pytest.mark.skipif(shutil.which("go") is None, reason="Go, whose engine renders them, is not installed")
PROGRAM = """
package main

import ("encoding/json"; "os"; "text/template")

type Message struct { Role, Content string }
type Case struct { Template string; Messages []Message }

func main() {
    var cases []Case
    if err := json.NewDecoder(os.Stdin).Decode(&cases); err != nil { panic(err) }
    texts := []string{}
    for _, each := range cases {
        file, _ := os.CreateTemp("", "text")
        made := template.Must(template.New("").Parse(each.Template))
        if err := made.Execute(file, map[string]any{"Messages": each.Messages}); err != nil { panic(err) }
        text, _ := os.ReadFile(file.Name())
        os.Remove(file.Name())
        texts = append(texts, string(text))
    }
    json.NewEncoder(os.Stdout).Encode(texts)
}
"""


def test_go_renders_what_the_chat_template_does(tmp_path):
    from sftplug_tiny.builder import build_tokenizer

    tokenizer = build_tokenizer(512)
    tokenizer.add_special_tokens({"bos_token": "<|im_start|>"})
    cases, wanted = [], []
    for name in set(TEMPLATES) - SEES:
        tokenizer.chat_template = (TRL / f"{name}.jinja").read_text()
        found = turns_of(tokenizer)
        for talk in (TALK[:1], TALK, [{"role": "system", "content": "Be brief."}, *TALK])[: 3 if found.system else 2]:
            cases.append({"Template": found.template(), "Messages": talk})
            wanted.append(sftplug.render_prompt(tokenizer, talk).removeprefix(tokenizer.bos_token))
    file = tmp_path / "main.go"
    file.write_text(PROGRAM)
    done = subprocess.run(["go", "run", file], input=json.dumps(cases), capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == wanted
    assert len(cases) > 100
