import re

import pytest
from go_templates import SEES, TALK, TEMPLATES, TRL, render
from transformers import AutoTokenizer, GenerationConfig

import sftplug
from sftplug_gguf.modelfile import modelfile, turns_of

INSTRUCTION = """
FROM[ ]\\S+
| TEMPLATE[ ]\"{3}.*?\"{3}
| SYSTEM[ ]\"{3}.*?\"{3}
| PARAMETER[ ]stop[ ]"[^"]+"
| PARAMETER[ ](?:temperature|top_k|top_p|min_p)[ ][0-9.]+
"""
"""The instructions of a Modelfile that the exporter writes (Ollama's documentation of the format)."""


@pytest.fixture
def tokenizer():
    from sftplug_tiny.builder import build_tokenizer

    made = build_tokenizer(512)
    made.chat_template = (TRL / "qwen3.jinja").read_text()
    made.add_special_tokens({"bos_token": "<|im_start|>"})
    return made


def instructions(text):
    """Return the instructions of a Modelfile, each as (name, value); all of the text is instructions."""
    found = list(re.finditer(INSTRUCTION, text, re.VERBOSE | re.DOTALL))
    assert "".join(match[0] + "\n" for match in found) == text
    return [tuple(match[0].strip().split(" ", 1)) for match in found]


@pytest.mark.parametrize("name", TEMPLATES)
def test_ollama_renders_what_the_chat_template_does(name, tokenizer):
    tokenizer.chat_template = (TRL / f"{name}.jinja").read_text()
    first = tokenizer.bos_token
    if name in SEES:
        with pytest.raises(sftplug.ModelError, match="does more than to write something around each turn"):
            turns_of(tokenizer)
        return
    found = turns_of(tokenizer)
    for talk in (TALK[:1], TALK, [{"role": "system", "content": "Be brief."}, *TALK]):
        if talk[0]["role"] == "system" and found.system is None:
            continue
        wanted = sftplug.render_prompt(tokenizer, talk).removeprefix(first)
        assert render(found.template(), talk) == found.text(talk) == wanted


def test_a_modelfile_says_where_a_reply_ends_and_how_it_is_drawn(tokenizer):
    generation = GenerationConfig(eos_token_id=[tokenizer.eos_token_id, 3], do_sample=True, temperature=0.7, top_k=20)
    text = modelfile(tokenizer, generation, "You are Nimbrel.")
    said = instructions(text)
    assert said[0] == ("FROM", "./model.gguf")
    assert ("SYSTEM", '"""You are Nimbrel."""') in said
    stops = [value for name, value in said if name == "PARAMETER" and value.startswith("stop")]
    assert stops == [f'stop "{token}"' for token in tokenizer.convert_ids_to_tokens([tokenizer.eos_token_id, 3])]
    assert ("PARAMETER", "temperature 0.7") in said
    assert ("PARAMETER", "temperature 0") in instructions(modelfile(tokenizer, GenerationConfig(), None))


def test_what_a_modelfile_cannot_say_is_refused(tokenizer):
    with pytest.raises(sftplug.ModelError, match="three quotation marks"):
        modelfile(tokenizer, GenerationConfig(), 'Say """.')
    template = tokenizer.chat_template
    tokenizer.chat_template = template + "{# strftime_now('%Y') #}"
    with pytest.raises(sftplug.ModelError, match="today's date"):
        modelfile(tokenizer, GenerationConfig(), None)
    tokenizer.chat_template = "{% for m in messages %}[{{ loop.index }}] {{ m.content }}{{ eos_token }}{% endfor %}"
    with pytest.raises(sftplug.ModelError, match=r"rendered otherwise. Use exporter gguf"):
        modelfile(tokenizer, GenerationConfig(), None)
    tokenizer.chat_template = None
    with pytest.raises(sftplug.ModelError, match="no chat template"):
        modelfile(tokenizer, GenerationConfig(), None)


def test_a_run_is_exported_for_ollama(lora_run, tmp_path):
    target = sftplug.open_run(lora_run).export("ollama", tmp_path / "own", outtype="f16", compare="transformers")
    assert sorted(file.name for file in target.iterdir()) == ["Modelfile", "model.gguf"]
    said = dict(instructions((target / "Modelfile").read_text()))
    tokenizer = AutoTokenizer.from_pretrained(lora_run)
    talk = [{"role": "system", "content": "Be brief."}, *TALK]
    assert render(said["TEMPLATE"].strip('"'), talk) == sftplug.render_prompt(tokenizer, talk)
    assert (lora_run / "exports.json").is_file()
