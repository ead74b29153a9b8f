"""Generate samples without touching the training: no gradient, no random number drawn."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import rich
import torch  # noqa: TID253 - loaded only when a trainer exists
from rich.markup import escape
from rich.table import Table
from transformers import TrainerCallback  # noqa: TID253 - loaded only when a trainer exists

from sftplug import RunDirectory, encode_prompt, render_prompt, visible, without_secrets

if TYPE_CHECKING:
    from sftplug_callbacks.samples import Samples


class SampleCallback(TrainerCallback):  # type: ignore[misc]
    """Answers the prompts when training begins, when it is due, and when training ends."""

    trackers: Sequence[TrainerCallback] = ()
    """What ``train.report_to`` names; see `trackers_of`."""

    def __init__(self, options: Samples) -> None:
        self._options = options
        self._given: dict[int, dict[str, str]] = {}
        """Step -> prompt -> answer."""
        self._said: dict[str, Any] = {}
        """What prompts may hold besides words; see `encode_prompt`."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Answer with the base model; a resumed run has its answers already."""
        self._said = said(RunDirectory.open(args.output_dir).recipe())
        if state.global_step == 0:
            self._answer_once(args, state, control, **kwargs)
        else:
            self._given = kept(RunDirectory.open(args.output_dir), self._options.prompts)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Answer where so many steps are done."""
        if self._options.steps and state.global_step % self._options.steps == 0:
            show_now(state, self._answer_once(args, state, control, **kwargs))

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Answer where the epoch ends, and where the last one does: the trackers are still there then."""
        if state.global_step >= state.max_steps or control.should_training_stop:
            self._answer_once(args, state, control, **kwargs)
        elif self._options.every == "epoch":
            show_now(state, self._answer_once(args, state, control, **kwargs))

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Answer where the evaluation has ended the training."""
        if control.should_training_stop:
            self._answer_once(args, state, control, **kwargs)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Show the answers of the model that is saved, beside those before training."""
        best = args.load_best_model_at_end and state.best_model_checkpoint is not None
        step = state.best_global_step if best else state.global_step
        after = self._answer_once(args, state, control, saved_at=step, **kwargs)
        if state.is_world_process_zero:
            before = self._given.get(0, {})
            show([(prompt, before.get(prompt, ""), now) for prompt, now in after.items()])

    def _answer_once(
        self, args: Any, state: Any, control: Any, *, saved_at: int | None = None, **kwargs: Any
    ) -> dict[str, str]:
        """Return the answer to each prompt; give, keep and report them if that was not done yet.

        Every process answers, for the weights may be spread over all of them; the first one keeps the answers. What
        is answered after training (`saved_at`) is not reported: the trackers have closed by then.
        """
        step = state.global_step if saved_at is None else saved_at
        if step in self._given:
            return self._given[step]
        answers = self._given[step] = self._answers(kwargs["model"], kwargs["processing_class"])
        if state.is_world_process_zero:
            directory = RunDirectory.open(args.output_dir)
            for prompt, answer in answers.items():
                directory.add_sample(step, prompt, answer)
        if saved_at is None:
            texts = {f"samples/{index}": "\n\n".join(pair) for index, pair in enumerate(answers.items())}
            for tracker in self.trackers:
                tracker.on_log(args, state, control, logs=dict(texts), **kwargs)
        return answers

    def _answers(self, model: Any, tokenizer: Any) -> dict[str, str]:
        """Return prompt -> answer, as they may be shown, kept and reported."""
        with undisturbed(model):
            answers = {prompt: self._answer(model, tokenizer, prompt) for prompt in self._options.prompts}
        return {without_secrets(prompt): without_secrets(answer) for prompt, answer in answers.items()}

    def _answer(self, model: Any, tokenizer: Any, prompt: str) -> str:
        if self._options.chat:
            ids = encode_prompt(tokenizer, [{"role": "user", "content": prompt}], **self._said)
        else:
            ids = tokenizer(prompt)["input_ids"]
        inputs = torch.tensor([ids], device=model.device)
        out = model.generate(
            input_ids=inputs,
            attention_mask=torch.ones_like(inputs),
            max_new_tokens=self._options.max_new_tokens,
            do_sample=False,
            eos_token_id=_ends(tokenizer, model),
            pad_token_id=tokenizer.pad_token_id,
        )
        return str(tokenizer.decode(out[0, len(ids) :], skip_special_tokens=True)).strip()


@contextmanager
def undisturbed(model: Any) -> Iterator[None]:
    """Let `model` answer; afterwards each of its modules trains or not as before, and so does the random state."""
    modes = {module: module.training for module in model.modules()}
    devices = [model.device] if model.device.type == "cuda" else []
    model.eval()
    try:
        with torch.random.fork_rng(devices), torch.no_grad():
            yield
    finally:
        for module, training in modes.items():
            module.training = training


def trackers_of(trainer: Any) -> list[TrainerCallback]:
    """Return the callbacks of `trainer` that report to what ``train.report_to`` names."""
    from transformers.integrations import get_reporting_integration_callbacks

    kinds = tuple(get_reporting_integration_callbacks(trainer.args.report_to))
    return [callback for callback in trainer.callback_handler.callbacks if isinstance(callback, kinds)]


def said(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Return what texts may hold besides words, as the rows of `recipe` may; see `encode_prompt`."""
    allowed = recipe.get("data", {}).get("special_tokens_in_content") == "allow"
    return {"words": tuple(recipe.get("model", {}).get("add_tokens", ())), "escape": not allowed}


def kept(directory: RunDirectory, prompts: Sequence[str]) -> dict[int, dict[str, str]]:
    """Return step -> prompt -> answer, of the steps after which all `prompts` were answered."""
    found: dict[int, dict[str, str]] = {}
    prompts = [without_secrets(prompt) for prompt in prompts]
    for sample in directory.samples():
        found.setdefault(sample["step"], {})[sample["prompt"]] = sample["answer"]
    whole = {step: answers for step, answers in found.items() if answers.keys() >= {*prompts}}
    return {step: {prompt: answers[prompt] for prompt in prompts} for step, answers in whole.items()}


def _ends(tokenizer: Any, model: Any) -> list[int]:
    """Return the tokens that end an answer: the model's own, and whatever ends a turn in the chat template."""
    known = model.generation_config.eos_token_id
    ends = set(known if isinstance(known, list) else [known]) | {tokenizer.eos_token_id}
    if tokenizer.chat_template:
        # What ends a turn is seen in one that is rendered: the last token of "…b<|im_end|>\n" without the white space.
        turn = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
        text = render_prompt(tokenizer, turn, reply=False).rstrip()
        ends.add(tokenizer(text, add_special_tokens=False)["input_ids"][-1])
    return sorted(end for end in ends if end is not None)


def show_now(state: Any, answers: dict[str, str]) -> None:
    """Print what the model answers so far."""
    if state.is_world_process_zero and state.global_step < state.max_steps:  # at the end they stand beside the first
        table = Table("prompt", f"after {state.global_step} steps", show_lines=True)
        for prompt, answer in answers.items():
            table.add_row(escape(visible(prompt)), escape(visible(answer)))
        rich.get_console().print(table)


def show(rows: Sequence[tuple[str, str, str]]) -> None:
    """Print prompts and answers side by side."""
    table = Table("prompt", "before", "after", show_lines=True)
    for row in rows:
        table.add_row(*(escape(visible(text)) for text in row))
    rich.get_console().print(table)
