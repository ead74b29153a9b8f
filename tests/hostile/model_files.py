"""Folders of models by somebody who means harm, or by a download that broke off: what each must be told."""

import json
import os
import pickle
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

WEIGHTS, CONFIG, TOKENIZER = "model.safetensors", "config.json", "tokenizer.json"
INDEX = "model.safetensors.index.json"


@dataclass(frozen=True)
class Hostile:
    """What is done to the folder of a small model, and words of the answer; `code` 0 where it is harmless after all."""

    change: Callable[[Path], object]
    words: str
    command: str = "check"
    """``train`` where what is loaded is the question."""
    code: int = 2


def write(name, content):
    def change(folder):
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())

    return change


def cut(name, size):
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:size])


def flipped(name):
    def change(folder):
        data = bytearray((folder / name).read_bytes())
        data[4] ^= 0xFF
        (folder / name).write_bytes(data)

    return change


def set_in(name, **values):
    """Set values in a JSON file; None removes one."""

    def change(folder):
        known = json.loads((folder / name).read_text()) if (folder / name).exists() else {}
        known |= values
        (folder / name).write_text(json.dumps({key: value for key, value in known.items() if value is not None}))

    return change


def weights(change):
    """Change the tensors of the safetensors file."""

    def edit(folder):
        tensors = load_file(folder / WEIGHTS)
        change(tensors)
        save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})

    return edit


def first(tensors):
    return next(name for name in sorted(tensors) if "proj" in name)


def without(tensors):
    tensors.pop(first(tensors))


def renamed(tensors):
    name = first(tensors)
    tensors[name.replace("proj", "porj")] = tensors.pop(name)


def wider(tensors):
    name = first(tensors)
    tensors[name] = torch.cat([tensors[name], tensors[name]])


def one_more(tensors):
    tensors["model.layers.0.self_attn.back_door.weight"] = torch.zeros(4, 4)


def whole_numbers(tensors):
    name = first(tensors)
    tensors[name] = tensors[name].to(torch.int8)


def sharded(target):
    """Replace the weights by an index that names the file `target`."""

    def change(folder):
        names = list(load_file(folder / WEIGHTS))
        (folder / WEIGHTS).rename(folder.parent / "outside.safetensors")
        (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": dict.fromkeys(names, target)}))

    return change


class Owned:
    """Leaves a trace where it is unpickled."""

    def __reduce__(self):
        return Path.touch, (Path("owned"),)


def pickled(name, *, keep=False):
    def change(folder):
        (folder / name).write_bytes(pickle.dumps(Owned()))
        if not keep:
            (folder / WEIGHTS).unlink()

    return change


def both(*changes):
    def change(folder):
        for part in changes:
            part(folder)

    return change


def code(name):
    """Write code that leaves a trace, and let a file name it."""
    return both(
        write("own.py", "from pathlib import Path\nPath('owned').touch()\nclass Own: pass\n"),
        set_in(
            name,
            auto_map={"AutoConfig": "own.Own", "AutoModelForCausalLM": "own.Own", "AutoTokenizer": ["own.Own", None]},
        ),
    )


def endless(name):
    """Put a device in the place of a file: reading it ends nowhere."""
    return lambda folder: ((folder / name).unlink(missing_ok=True), (folder / name).symlink_to("/dev/zero"))


def pipe(name):
    """Put a pipe in the place of a file: nobody ever writes to it."""
    return lambda folder: ((folder / name).unlink(missing_ok=True), os.mkfifo(folder / name))


def header(change):
    """Change what the safetensors file says of its tensors; the bytes stay."""

    def edit(folder):
        data = (folder / WEIGHTS).read_bytes()
        length = struct.unpack("<Q", data[:8])[0]
        known = json.loads(data[8 : 8 + length])
        change(known)
        text = json.dumps(known).encode()
        (folder / WEIGHTS).write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :])

    return edit


def over_each_other(known):
    one, other = [name for name in known if "proj" in name][:2]
    known[one]["data_offsets"] = known[other]["data_offsets"]


def before_the_file(known):
    known[first(known)]["data_offsets"][0] = -5


def of_no_type(known):
    known[first(known)]["dtype"] = "OWNED"


def in_two_files(folder):
    """Write a weight into two parts, with other numbers."""
    tensors = load_file(folder / WEIGHTS)
    name = first(tensors)
    save_file(tensors, folder / "model-1.safetensors", metadata={"format": "pt"})
    save_file({name: tensors[name] + 9}, folder / "model-2.safetensors", metadata={"format": "pt"})
    (folder / WEIGHTS).unlink()
    named = {**dict.fromkeys(tensors, "model-1.safetensors"), name: "model-2.safetensors"}
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": named}))


def with_a_token_of_nothing(folder):
    known = json.loads((folder / TOKENIZER).read_text())
    known["added_tokens"].append({**known["added_tokens"][0], "id": 70_000, "content": ""})
    (folder / TOKENIZER).write_text(json.dumps(known))


MODELS = {
    # --- files without end --------------------------------------------------------------------------------------------
    "a tokenizer without end": Hostile(endless(TOKENIZER), "tokenizer.json is not a file, but a device"),
    "a tokenizer that never comes": Hostile(pipe(TOKENIZER), "tokenizer.json is not a file, but a device"),
    "settings of generation without end": Hostile(
        endless("generation_config.json"), "generation_config.json is not a file"
    ),
    "weights that never come": Hostile(pipe(WEIGHTS), "model.safetensors is not a file"),
    "a configuration of a terabyte": Hostile(
        lambda folder: os.truncate(folder / CONFIG, 2**40), "config.json has 1,099,511,627,776 bytes"
    ),
    # --- headers ------------------------------------------------------------------------------------------------------
    "weights over each other": Hostile(header(over_each_other), f"{WEIGHTS} is damaged: its header"),
    "weights before the file": Hostile(header(before_the_file), f"{WEIGHTS} is damaged: its header"),
    "weights of no type": Hostile(header(of_no_type), f"{WEIGHTS} is damaged: its header"),
    "a weight in two files": Hostile(in_two_files, "twice, in model-1.safetensors and in model-2.safetensors"),
    # --- weights ------------------------------------------------------------------------------------------------------
    "weights that are cut": Hostile(cut(WEIGHTS, 5_000), WEIGHTS),
    "weights of which only the header is left": Hostile(cut(WEIGHTS, 600), WEIGHTS),
    "weights of no bytes": Hostile(cut(WEIGHTS, 0), WEIGHTS),
    "weights whose header is longer than the file": Hostile(flipped(WEIGHTS), WEIGHTS),
    "weights whose header is not a JSON": Hostile(write(WEIGHTS, b"\x08" + b"\0" * 7 + b"{{{{{{{{"), WEIGHTS),
    "weights that are a page of HTML": Hostile(write(WEIGHTS, "<html>404</html>"), WEIGHTS),
    "weights that a big-file store has kept": Hostile(
        write(WEIGHTS, "version https://git-lfs.github.com/spec/v1\n"), WEIGHTS
    ),
    "a weight that is missing": Hostile(weights(without), "proj"),
    "a weight of another name": Hostile(weights(renamed), "porj"),
    "a weight of another shape": Hostile(weights(wider), "proj"),
    "a weight that nothing asks for": Hostile(weights(one_more), "back_door"),
    "a weight of whole numbers": Hostile(weights(whole_numbers), "whole numbers.*proj"),
    "no weights": Hostile(lambda folder: (folder / WEIGHTS).unlink(), "weights|safetensors"),
    "weights behind a link to itself": Hostile(
        lambda folder: ((folder / WEIGHTS).unlink(), (folder / WEIGHTS).symlink_to(WEIGHTS)), WEIGHTS
    ),
    "weights that are a folder": Hostile(
        lambda folder: ((folder / WEIGHTS).unlink(), (folder / WEIGHTS).mkdir()), WEIGHTS
    ),
    # --- pickles and indexes ------------------------------------------------------------------------------------------
    "pickled weights": Hostile(pickled("pytorch_model.bin"), "safetensors"),
    "an index that names no weight": Hostile(
        both(sharded("x"), write(INDEX, '{"metadata": {}, "weight_map": {}}')), "index.*no `weight_map`"
    ),
    "an index without the size of all": Hostile(
        both(sharded("model-1.safetensors"), write(INDEX, '{"weight_map": {"a": "model-1.safetensors"}}')),
        "index.*no `metadata`",
    ),
    "other weights that the configuration names": Hostile(
        both(
            write("other.safetensors.index.json", '{"metadata": {}, "weight_map": {"a": "other.bin"}}'),
            pickled("other.bin", keep=True),
            set_in(CONFIG, transformers_weights="other.safetensors.index.json"),
        ),
        "other.bin.*not a safetensors",
    ),
    "other weights outside that the configuration names": Hostile(
        set_in(CONFIG, transformers_weights="../outside.safetensors"), "outside of the folder"
    ),
    "a part of a checkpoint of many processes": Hostile(
        lambda folder: (folder / "shard-00001-model-00001-of-00001.safetensors").write_bytes(
            (folder / WEIGHTS).read_bytes()
        ),
        "shard-00001.*in place of",
    ),
    "pickled weights beside the others": Hostile(pickled("pytorch_model.bin", keep=True), "", "train", code=0),
    "pickled weights that are called safetensors": Hostile(pickled(WEIGHTS, keep=True), WEIGHTS),
    "an index that names a pickle": Hostile(
        both(pickled("pytorch_model-1.bin", keep=True), sharded("pytorch_model-1.bin")), "pytorch_model-1.bin"
    ),
    "an index that names a file outside": Hostile(sharded("../outside.safetensors"), "outside"),
    "an index that names an absolute path": Hostile(sharded("/etc/passwd"), "/etc/passwd|outside"),
    "an index that names what is not there": Hostile(sharded("model-9.safetensors"), "model-9"),
    "an index that is not a JSON": Hostile(both(sharded("x"), write(INDEX, "{")), "index"),
    "an index without a map": Hostile(both(sharded("x"), write(INDEX, "{}")), "index"),
    # --- the configuration --------------------------------------------------------------------------------------------
    "a configuration that is cut": Hostile(cut(CONFIG, 40), CONFIG),
    "a configuration that is a list": Hostile(write(CONFIG, "[1]"), CONFIG),
    "a configuration of nothing": Hostile(write(CONFIG, "{}"), "model_type|config"),
    "a configuration nested 100,000 deep": Hostile(
        write(CONFIG, '{"a": ' * 100_000 + "1" + "}" * 100_000), CONFIG, "check"
    ),
    "a kind of model that nobody knows": Hostile(set_in(CONFIG, model_type="owned"), "owned"),
    "a million layers": Hostile(set_in(CONFIG, num_hidden_layers=1_000_000), "layers"),
    "layers without end of another name": Hostile(set_in(CONFIG, hidden_size=2**40), "shape|size|bytes|no model"),
    "a size that is a text": Hostile(set_in(CONFIG, hidden_size="64"), "hidden_size' expected int"),
    "fewer than no words": Hostile(set_in(CONFIG, vocab_size=-5), "make no model|vocab"),
    "no heads": Hostile(set_in(CONFIG, num_attention_heads=0), "make no model|configuration of .*cannot be loaded"),
    "code that comes with the model": Hostile(code(CONFIG), "", "train", code=0),
    "a kernel of the Hub": Hostile(
        set_in(CONFIG, _attn_implementation="someone/kernel", attn_implementation="someone/kernel"), "kernel", "check"
    ),
    "a quantization that nobody knows": Hostile(
        set_in(CONFIG, quantization_config={"quant_method": "owned"}), "quantized by 'owned', which transformers"
    ),
    "a quantization without a name": Hostile(set_in(CONFIG, quantization_config={"bits": 4}), "quantized by None"),
    # --- the tokenizer ------------------------------------------------------------------------------------------------
    "a tokenizer that is cut": Hostile(cut(TOKENIZER, 400), "tokenizer"),
    "a tokenizer of nothing": Hostile(write(TOKENIZER, "{}"), "tokenizer"),
    "a tokenizer with a token of nothing": Hostile(with_a_token_of_nothing, "", code=0),
    "a length that is not a number": Hostile(
        set_in("tokenizer_config.json", model_max_length="long"), "`model_max_length` is 'long', which is not a number"
    ),
    "a tokenizer that is gone": Hostile(lambda folder: (folder / TOKENIZER).unlink(), "tokenizer"),
    "settings of the tokenizer that are cut": Hostile(write("tokenizer_config.json", "{"), "tokenizer"),
    "code that comes with the tokenizer": Hostile(code("tokenizer_config.json"), "code|trust_remote_code|", code=0),
    "a template without end": Hostile(
        write("chat_template.jinja", "{% for a in range(99999) %}{% for b in range(99999) %}x{% endfor %}{% endfor %}"),
        "stopped",
    ),
    # --- what is generated --------------------------------------------------------------------------------------------
    "settings of generation that are cut": Hostile(write("generation_config.json", "{"), "generation_config"),
    "sampling without sampling": Hostile(
        set_in("generation_config.json", do_sample=False, temperature=0.6, top_p=0.9), "", "train", code=0
    ),
}
