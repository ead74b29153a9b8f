"""Generate samples without touching the training: no gradient, no random number drawn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import rich
import torch  # noqa: TID253 - loaded only when a trainer exists
from rich.markup import escape
from rich.table import Table
from transformers import TrainerCallback  # noqa: TID253 - loaded only when a trainer exists

from sftplug import RunDirectory

if TYPE_CHECKING:
    from sftplug_callbacks.samples import Samples


class SampleCallback(TrainerCallback):  # type: ignore[misc]
    """Answers the prompts when training begins and when it ends."""

    def __init__(self, options: Samples) -> None:
        self._options = options

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Answer with the base model; a run that goes on has its answers already."""
        if state.global_step == 0:
            self._keep(
                RunDirectory.open(args.output_dir), 0, self._answers(kwargs["model"], kwargs["processing_class"])
            )

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Answer with the trained model; show and keep both."""
        directory, after = (
            RunDirectory.open(args.output_dir),
            self._answers(kwargs["model"], kwargs["processing_class"]),
        )
        self._keep(directory, state.global_step, after)
        before = {sample["prompt"]: sample["answer"] for sample in directory.samples() if sample["step"] == 0}
        prompts = self._options.prompts
        show([(prompt, before.get(prompt, ""), now) for prompt, now in zip(prompts, after, strict=True)])

    def _keep(self, directory: RunDirectory, step: int, answers: Sequence[str]) -> None:
        for prompt, answer in zip(self._options.prompts, answers, strict=True):
            directory.add_sample(step, prompt, answer)

    def _answers(self, model: Any, tokenizer: Any) -> list[str]:
        was_training = model.training
        model.eval()
        try:
            # The run must draw the same random numbers whether or not it shows samples.
            with torch.random.fork_rng(), torch.no_grad():
                return [self._answer(model, tokenizer, prompt) for prompt in self._options.prompts]
        finally:
            model.train(was_training)

    def _answer(self, model: Any, tokenizer: Any, prompt: str) -> str:
        text, special = prompt, True
        if self._options.chat:
            message = {"role": "user", "content": prompt}
            text = tokenizer.apply_chat_template([message], tokenize=False, add_generation_prompt=True)
            special = False
        inputs = tokenizer(text, return_tensors="pt", add_special_tokens=special).to(model.device)
        out = model.generate(
            **inputs,
            max_new_tokens=self._options.max_new_tokens,
            do_sample=False,
            eos_token_id=_ends(tokenizer, model),
            pad_token_id=tokenizer.pad_token_id,
        )
        return str(tokenizer.decode(out[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)).strip()


def _ends(tokenizer: Any, model: Any) -> list[int]:
    """Return the tokens that end an answer: the model's own, and whatever ends a turn in the chat template."""
    known = model.generation_config.eos_token_id
    ends = set(known if isinstance(known, list) else [known]) | {tokenizer.eos_token_id}
    if tokenizer.chat_template:
        turn = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
        text = tokenizer.apply_chat_template(turn, tokenize=False).rstrip()
        ends.add(tokenizer(text, add_special_tokens=False)["input_ids"][-1])
    return sorted(end for end in ends if end is not None)


def show(rows: Sequence[tuple[str, str, str]]) -> None:
    """Print prompts and answers side by side."""
    table = Table("prompt", "before", "after", show_lines=True)
    for row in rows:
        table.add_row(*(escape(text) for text in row))
    rich.get_console().print(table)
