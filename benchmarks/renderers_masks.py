"""Token ids and loss masks: sftplug, from the chat template alone, and `renderers`, from a class by hand per family.

    pip install renderers
    python benchmarks/renderers_masks.py

`renderers` (PrimeIntellect) writes the text of some thirty families in Python, and marks what the model itself writes.
Each of its classes is put beside the template of the same family in TRL's collection, on the conversations of
`mask_exactness.py`, with a tokenizer of the family's special tokens and single bytes. Ids are compared with those of
``apply_chat_template``; where both have these, so are the masks. Where masks differ, the truth by brute force says who
is right: a turn is trained from the end of the prompt that inference shows to the stop. Where inference shows something
else than the text has (a thought opened in the prompt that history lacks), there is no such truth.
"""

from __future__ import annotations

import platform
import re
from collections import Counter
from importlib.metadata import version
from typing import Any, NamedTuple

import renderers.configs
from mask_exactness import CHATML, FOLDER, conversations, truth
from renderers.base import build_training_sample, create_renderer
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

import sftplug


class Family(NamedTuple):
    """A class of `renderers`, and what its tokenizer calls the two ends of a text."""

    renderer: str
    eos: str = CHATML
    bos: str | None = None


DEEPSEEK = "<｜end▁of▁sentence｜>", "<｜begin▁of▁sentence｜>"
LLAMA = "<|eot_id|>", "<|begin_of_text|>"
FAMILIES = {
    "qwen3": Family("Qwen3"),
    "qwen3_5_think": Family("Qwen35"),
    "qwen3_6": Family("Qwen36"),
    "qwen3_8": Family("Qwen38"),
    "qwen3_vl": Family("Qwen3VL"),
    "gemma4": Family("Gemma4", "<turn|>", "<bos>"),
    "gemma4_v5": Family("Gemma4", "<turn|>", "<bos>"),
    "glm4moe": Family("GLM45", "<|user|>"),
    "deepseek_r1_distill": Family("DeepSeekR1", *DEEPSEEK),
    "deepseekv3": Family("DeepSeekV3", *DEEPSEEK),
    "llama3_1": Family("Llama3", *LLAMA),
    "llama3_2": Family("Llama3", *LLAMA),
    "nemotron_3_nano": Family("Nemotron3"),
    "nemotron_3_super": Family("Nemotron3"),
    "nemotron_3_ultra": Family("Nemotron3Ultra"),
}
"""Template of TRL's collection -> family. gpt-oss is left out: its class downloads a vocabulary."""
SPECIAL = re.compile(r"<\|[^|<>\s]{1,60}\|>|<\|?/?[a-z_]{2,30}\|?>|<｜[^｜<>]{1,60}｜>|\[gMASK\]|<sop>")
BESIDE = [
    *("<|endoftext|>", "<|im_start|>", "<|system|>", "<|observation|>", "<think>", "</think>", "<eos>"),
    *("<|image|>", "<|image>", "<image|>", "<|audio>", "<audio|>", "<|end_of_text|>", "<|eom_id|>", "<|python_tag|>"),
    *("<|start_header_id|>", "<|end_header_id|>"),
]
"""Tokens that classes of `renderers` look up although not every template writes them."""


def tokenizer_of(template: str, family: Family) -> PreTrainedTokenizerFast:
    """Return a tokenizer of single bytes and the special tokens of the family."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    inner = Tokenizer(models.BPE(vocab={char: number for number, char in enumerate(alphabet)}, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    inner.decoder = decoders.ByteLevel()
    special = sorted({*SPECIAL.findall(template), *BESIDE, *re.findall(r"<\|?tool\w*\|?>", template)})
    made = PreTrainedTokenizerFast(
        tokenizer_object=inner, eos_token=family.eos, bos_token=family.bos, additional_special_tokens=special
    )
    made.chat_template = template
    return made


def theirs(renderer: Any, messages: list[dict]) -> tuple[list[int], list[bool]] | None:
    """Return ids and mask of `renderers`; None where it refuses."""
    try:
        sample = build_training_sample(renderer, messages)
    except Exception:  # noqa: BLE001 - whatever it raises is its refusal
        return None
    return list(sample.token_ids), [bool(trained) for trained in sample.loss_mask]


def ours(tokenizer: PreTrainedTokenizerFast, messages: list[dict]) -> sftplug.Encoded | None:
    """Return what sftplug encodes, the text as rendered; None where it refuses."""
    try:
        return sftplug.encode(tokenizer, messages, on_divergence="warn", missing_stop="warn")
    except sftplug.SftplugError:
        return None


def true_mask(stem: str, tokenizer: PreTrainedTokenizerFast, messages: list[dict], encoded: Any) -> list[bool] | None:
    """Return the mask by brute force, in tokens; None where there is none."""
    found = truth(stem, tokenizer.chat_template, messages)
    if found is None or found[0].replace("<s>", tokenizer.bos_token or "") != encoded.text:
        return None
    moved = len(encoded.text) - len(found[0])  # the name of BOS is another, and stands before everything
    spans = [(start + moved, end + moved) for start, end in found[1]]
    return [any(low <= start < high for low, high in spans) for start, _ in encoded.offsets]


def compare(stem: str, family: Family) -> Counter:
    """Return how often ids and masks of one family agree, and who is right where they do not."""
    tokenizer = tokenizer_of((FOLDER / f"{stem}.jinja").read_text(), family)
    renderer = create_renderer(tokenizer, getattr(renderers.configs, f"{family.renderer}RendererConfig")())
    count: Counter = Counter()
    for messages in conversations():
        try:
            ids = tokenizer.apply_chat_template(messages, return_dict=False)
        except Exception:  # noqa: BLE001 - a template refuses a conversation in any way it likes
            continue
        count["conversations"] += 1
        own, other = ours(tokenizer, messages), theirs(renderer, messages)
        count["ids of sftplug"] += own is not None and own.input_ids == ids
        count["ids of renderers"] += other is not None and other[0] == ids
        if own is None or other is None or not own.input_ids == other[0] == ids:
            continue
        mask, true = [weight > 0 for weight in own.weights], true_mask(stem, tokenizer, messages, own)
        if mask == other[1]:
            count["masks equal"] += 1
        elif true is None:
            count["no simple truth"] += 1
        else:
            count["only sftplug's right"] += mask == true
            count["only renderers' right"] += other[1] == true
            count["neither right"] += true not in (mask, other[1])
    return count


COLUMNS = (
    "conversations",
    "ids of sftplug",
    "ids of renderers",
    "masks equal",
    "only sftplug's right",
    "only renderers' right",
    "neither right",
    "no simple truth",
)


def main() -> None:
    """Print the table."""
    names = ("sftplug", "renderers", "trl", "transformers")
    print(", ".join(f"{name} {version(name)}" for name in names) + f", Python {platform.python_version()}\n")
    print(f"| template | {' | '.join(COLUMNS)} |\n|---|{'---|' * len(COLUMNS)}")
    for stem, family in FAMILIES.items():
        count = compare(stem, family)
        print(f"| {stem} | {' | '.join(str(count[name]) for name in COLUMNS)} |", flush=True)


if __name__ == "__main__":
    main()
