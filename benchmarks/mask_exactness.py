"""Exact, refused and wrong loss masks: sftplug and TRL's ``assistant_only_loss`` on TRL's chat templates.

    python benchmarks/mask_exactness.py

The truth is made without either of them, by brute force from the definition: a span starts where the prompt of
inference ends, and ends with the template's stop token, which the table below lists by hand. Pairs in which the prompt
is not a prefix of the text (the template renders history otherwise than inference) have no such simple truth and are
left out; they are counted. A mask of TRL's that stands in a text other than the model's own counts as another text.
"""

from __future__ import annotations

import platform
from collections import Counter
from functools import cache
from importlib.metadata import version
from pathlib import Path

import trl
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast
from transformers.utils.chat_template_utils import render_jinja_template
from trl.chat_template_utils import get_training_chat_template, has_generation_markers

import sftplug
from sftplug.testing import assistant_spans

FOLDER = Path(trl.__file__).parent / "chat_templates"
KWARGS = {"bos_token": "<s>", "eos_token": "</s>"}
CHATML, GEMMA4 = "<|im_end|>", "<turn|>"
STOPS = {
    "cohere": "<|END_OF_TURN_TOKEN|>",
    "cohere2": "<|END_OF_TURN_TOKEN|>",
    "deepseek_r1_distill": "<｜end▁of▁sentence｜>",
    "deepseekv3": "<｜end▁of▁sentence｜>",
    "diffusion_gemma": GEMMA4,
    "gemma": "<end_of_turn>",
    "gemma3": "<end_of_turn>",
    **dict.fromkeys(["gemma4", "gemma4_v2", "gemma4_v3", "gemma4_v4", "gemma4_v5"], GEMMA4),
    "glm4moe": "<|user|>",
    "gptoss": ("<|end|>", "<|return|>"),
    "llama3": "<|eot_id|>",
    "llama3_1": "<|eot_id|>",
    "llama3_2": "<|eot_id|>",
    "muse_glimmer": "<|eot|>",
    "phi3": "<|end|>",
    "phi3_5": "<|end|>",
}


def conversations() -> list[list[dict]]:
    """Return conversations of one to twelve turns, some with a system prompt, unicode, or tokens of other families."""
    texts = [
        ["Hello?", "Hello."],
        ["One?", "First.", "Two?", "Second."],
        [f"turn number {index}" for index in range(12)],
        ["same", "same", "same", "same"],
        ["Ça va ?", "是的 🙂", "Und?", "naïve"],
        ["What is </s>?", "It ends a text: </s>.", "And [INST]?", "[/INST] closes it."],
        ["List.", "- a\n- b\n\n- c", "Code?", "def f():\n\treturn 1"],
    ]
    roles = ("user", "assistant")
    chats = [[{"role": roles[i % 2], "content": text} for i, text in enumerate(turns)] for turns in texts]
    system = {"role": "system", "content": "Be brief."}
    return [*chats, *([system, *chat] for chat in chats)]


def render(template: str, messages: list[dict], **kwargs) -> tuple[str, list]:
    """Return the text and the spans of ``{% generation %}`` blocks."""
    texts, spans = render_jinja_template([messages], chat_template=template, **KWARGS, **kwargs)
    return texts[0], spans


def truth(name: str, template: str, messages: list[dict]) -> tuple[str, list] | None:
    """Return text and spans by brute force; None where this simple way does not reach."""
    text, _ = render(template, messages)
    stops = STOPS.get(name, CHATML)
    spans = []
    for index, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        prompt, _ = render(template, messages[:index], add_generation_prompt=True)
        if not text.startswith(prompt):
            return None
        after = text.find(message["content"].strip(), len(prompt)) + len(message["content"].strip())
        ends = [
            text.find(stop, after) + len(stop)
            for stop in (stops if isinstance(stops, tuple) else (stops,))
            if text.find(stop, after) >= 0
        ]
        if not ends and name != "glm4moe":
            return None
        spans.append((len(prompt), min(ends) if ends else after))
    return text, spans


def tokenizer_with(template: str) -> PreTrainedTokenizerFast:
    """Return a tokenizer with the template; TRL asks it which template it has and what that renders."""
    words = Tokenizer(models.WordLevel({"x": 0, "<s>": 1, "</s>": 2}, unk_token="x"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, bos_token="<s>", eos_token="</s>", unk_token="x")
    tokenizer.chat_template = template
    return tokenizer


@cache
def trl_template(template: str) -> str | None:
    """Return the template that TRL renders with ``assistant_only_loss``; None when it refuses."""
    if has_generation_markers(template):
        return template
    try:
        return get_training_chat_template(tokenizer_with(template))
    except ValueError:
        return None


def trl_mask(template: str, messages: list[dict]) -> tuple[str, list] | None:
    """Return the text and spans that TRL trains with ``assistant_only_loss``; None when it refuses the template."""
    training = trl_template(template)
    if training is None:
        return None
    text, spans = render(training, messages, return_assistant_tokens_mask=True)
    return text, [tuple(span) for span in spans[0]]


def judge(found: tuple[str, list] | None, expected: tuple[str, list]) -> str:
    """Say what a mask is worth."""
    if found is None:
        return "refused"
    if found[0] != expected[0]:
        return "another text"
    return "exact" if found[1] == expected[1] else "wrong"


def sftplug_mask(template: str, messages: list[dict]) -> tuple[str, list] | None:
    """Return the text and spans that sftplug trains; None when it refuses."""
    try:
        return assistant_spans(template, messages, **KWARGS)
    except sftplug.MaskError:
        return None


def main() -> None:
    """Print the table."""
    counts = {"sftplug": Counter(), "TRL assistant_only_loss": Counter()}
    skipped = Counter()
    files = [file for file in sorted(FOLDER.glob("*.jinja")) if not file.stem.endswith("_training")]
    for file in files:
        template = file.read_text()
        for messages in conversations():
            try:
                expected = truth(file.stem, template, messages)
            except Exception as error:  # noqa: BLE001 - a template refuses a conversation in any way it likes
                skipped[f"the template raises ({type(error).__name__})"] += 1
                continue
            if expected is None or not all(m["content"].strip() in expected[0] for m in messages):
                skipped["no truth by brute force"] += 1
                continue
            counts["sftplug"][judge(sftplug_mask(template, messages), expected)] += 1
            counts["TRL assistant_only_loss"][judge(trl_mask(template, messages), expected)] += 1
    versions = ", ".join(f"{name} {version(name)}" for name in ("sftplug", "trl", "transformers"))
    print(
        f"{len(files)} templates x {len(conversations())} conversations; {versions}, Python {platform.python_version()}"
    )
    print(f"left out: {dict(skipped)}\n")
    kinds = ("exact", "refused", "wrong", "another text")
    print(f"| | {' | '.join(kinds)} |\n|---|{'---|' * len(kinds)}")
    for name, count in counts.items():
        print(f"| {name} | {' | '.join(str(count[kind]) for kind in kinds)} |")


if __name__ == "__main__":
    main()
