"""The page of the trainer's options, written from the table that recipes are held to."""

from __future__ import annotations

from collections.abc import Iterator

from sftplug.recipe.train_table import REFUSED, SUPPORTED


def train_options_page() -> str:
    """Return the page: what is obeyed, under its headings, then what is refused, with reason and way out."""
    return "\n".join([*_HEAD, *_supported(), *_refused()])


_HEAD = (
    "# Options of the trainer",
    "",
    "The section `train` of a recipe holds the fields of [`trl.SFTConfig`]"
    "(https://huggingface.co/docs/trl/sft_trainer#trl.SFTConfig), most of which are those of `TrainingArguments` of "
    "transformers. A field is obeyed, or it is refused with the reason and what to do: none is taken and not used. A "
    "test goes through every field of the installed libraries. One that is newer than this page is given to the "
    "trainer, with a warning that nobody has tried it here.",
    "",
    "`sftplug check`, and `sftplug train` before anything else, also refuse what nothing would use beside the other "
    "options (`eval_steps` where evaluations come with epochs, `warmup_steps` with `lr_scheduler_type: constant`, "
    "`adam_beta1` with an optimizer that has none, a key in `optim_args` that the optimizer does not take, a cache to "
    "empty on a CPU), a metric that no evaluation measures, and what cannot be made here: the optimizer is made for a "
    "small model and takes a step, the schedule is gone through, trackers are started.",
    "",
    "What the adapter means by default (rate, warmup, schedule) is shown by `sftplug explain`.",
    "",
    "## Obeyed",
    "",
)


def _supported() -> Iterator[str]:
    yield from ("| | options |", "|---|---|")
    for heading, names in SUPPORTED.items():
        yield f"| {heading} | {', '.join(map(_option, names))} |"


def _option(name: str) -> str:
    """Return the name, with the values that it may not have."""
    wrong = REFUSED[name].values if name in REFUSED else ()
    return f"`{name}`{f' (not `{str(wrong[0]).lower()}`)' if wrong else ''}"


def _refused() -> Iterator[str]:
    yield from ("", "## Refused", "", "| option | why | instead |", "|---|---|---|")
    for name, refusal in sorted(REFUSED.items()):
        value = f": {str(refusal.values[0]).lower()}" if refusal.values else ""
        yield f"| `{name}{value}` | {refusal.reason} | {refusal.instead} |"
    yield ""
