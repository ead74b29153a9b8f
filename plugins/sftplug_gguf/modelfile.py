"""Ollama's Modelfile: where the weights are, what stands around each turn, and where a reply ends.

Ollama renders a conversation in the language of Go's templates, and a chat template is written in Jinja's. What most of
them do is found out by asking: a conversation whose words are unmistakable is rendered, and what stands between these
words is what the template writes around a turn. That is tried on others; a template that does more is refused.
The language: https://github.com/ollama/ollama/blob/main/docs/modelfile.md
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from sftplug import ModelError, TemplateError, render_prompt
from sftplug_gguf.description import ends_of

if TYPE_CHECKING:
    from transformers import GenerationConfig, PreTrainedTokenizerBase

FILE = "model.gguf"
Messages = Sequence[Mapping[str, str]]


@dataclass(frozen=True)
class Turns:
    """What a template writes around the words of each turn."""

    start: str
    """Before all when no system turn comes first; a default system prompt of the template's own is in it."""
    user: tuple[str, str]
    """Before and after."""
    assistant: tuple[str, str]
    opening: str
    """Before the reply that is asked for."""
    system: tuple[str, str] | None = None
    """Before and after a system prompt, which comes first; None where the template refuses one."""
    follows_system: str = ""
    """Before a user's turn that follows it: Gemma 3 writes the prompt into that turn."""

    def text(self, messages: Messages) -> str:
        """Return a conversation as Ollama renders it."""
        around = {"system": self.system or ("", ""), "user": self.user, "assistant": self.assistant}
        has_system = messages[0]["role"] == "system"
        text = "" if has_system else self.start
        for index, message in enumerate(messages):
            before, after = around[message["role"]]
            before = self.follows_system if has_system and index == 1 else before
            text += before + message["content"] + after
        return text + self.opening

    def template(self) -> str:
        """Return it in Ollama's language."""
        first = '(index .Messages 0).Role "system"'
        start = f"{{{{ if ne {first} }}}}{self.start}{{{{ end }}}}" if self.start else ""
        begins = self.user[0]
        if self.system is not None and self.follows_system != begins:
            after = f'{{{{ if and (eq $i 1) (eq (index $.Messages 0).Role "system") }}}}{self.follows_system}'
            begins = f"{after}{{{{ else }}}}{begins}{{{{ end }}}}"
        turns = {"user": (begins, self.user[1]), "assistant": self.assistant}
        if self.system is not None:
            turns = {"system": self.system, **turns}
        cases = "".join(
            f'{{{{ if eq $m.Role "{role}" }}}}{before}{{{{ $m.Content }}}}{after}{{{{ end }}}}'
            for role, (before, after) in turns.items()
        )
        return f"{start}{{{{ range $i, $m := .Messages }}}}{cases}{{{{ end }}}}{self.opening}"


def modelfile(tokenizer: PreTrainedTokenizerBase, generation: GenerationConfig, system: str | None) -> str:
    """Return the text of a Modelfile. `system` is the system prompt of rows that had none, if there was one.

    Raises ModelError for a model without a chat template, and for one that cannot be said in Ollama's language.
    """
    if not isinstance(tokenizer.chat_template, str):
        raise ModelError(
            "exporter ollama: the model has no chat template, and Ollama answers turns. Use exporter gguf."
        )
    if "strftime_now" in tokenizer.chat_template:
        raise ModelError(f"exporter ollama: the chat template writes today's date, and a Modelfile cannot. {_INSTEAD}")
    lines = [f"FROM ./{FILE}", f'TEMPLATE """{_checked(turns_of(tokenizer).template())}"""']
    if system is not None:
        lines.append(f'SYSTEM """{_checked(system)}"""')
    stops = [tokenizer.decode([index]) for index in ends_of(tokenizer, generation)]
    lines += [f'PARAMETER stop "{_checked(stop)}"' for stop in stops]
    if generation.do_sample:
        named = {name: getattr(generation, name, None) for name in ("temperature", "top_k", "top_p", "min_p")}
        lines += [f"PARAMETER {name} {value}" for name, value in named.items() if value is not None]
    else:
        lines.append("PARAMETER temperature 0")
    return "\n".join(lines) + "\n"


def _checked(text: str) -> str:
    """Return a text that stands between three quotes. Raises ModelError for one that would end there."""
    if '"""' in text or text.endswith('"'):
        raise ModelError(
            "exporter ollama: a Modelfile cannot hold a text with three quotation marks, or that ends in one."
        )
    return text


# --- what a template writes -------------------------------------------------------------------------------------------

SYSTEM, USER, REPLY, AGAIN = "SYSTEMSAYS", "USERSAYS", "ASSISTANTSAYS", "USERSAYSAGAIN"


def turns_of(tokenizer: PreTrainedTokenizerBase) -> Turns:
    """Return what the chat template writes around turns. Raises ModelError where that is not all that it does."""
    first = tokenizer.bos_token or ""

    def rendered(*turns: tuple[str, str], reply: bool = False) -> str:
        messages = [{"role": role, "content": content} for role, content in turns]
        # Ollama puts the token of a beginning before a prompt by itself, where the file says so.
        return render_prompt(tokenizer, messages, reply=reply).removeprefix(first)

    try:
        found = _with_system(_without_system(rendered), rendered)
    except (TemplateError, ValueError) as error:
        raise ModelError(f"{_MORE} ({error}). {_INSTEAD}") from error
    _try(found, rendered)
    return found


_MORE = "exporter ollama: the chat template does more than to write something around each turn"
_INSTEAD = (
    "Use exporter gguf: the file holds the template itself, which llama.cpp's server obeys (`llama-server --jinja`)."
)


def _without_system(rendered: Any) -> Turns:
    """Return what stands around turns of user and assistant.

    All is rendered up to the opening of a reply: some templates write an end of the text behind a last turn.
    """
    talk = (("user", USER), ("assistant", REPLY), ("user", AGAIN))
    begin, before_reply, again, end = _parted(rendered(*talk, reply=True), USER, REPLY, AGAIN)
    # begin = start + user.before, again = assistant.after + user.before: what both end in is of the user's turn.
    before_user = _common_end(begin, again)
    # before_reply = user.after + assistant.before, end = user.after + opening: what both begin with is of the user's.
    after_user = _common_end(before_reply[::-1], end[::-1])[::-1]
    return Turns(
        start=begin.removesuffix(before_user),
        user=(before_user, after_user),
        assistant=(before_reply.removeprefix(after_user), again.removesuffix(before_user)),
        opening=end.removeprefix(after_user),
    )


def _common_end(one: str, other: str) -> str:
    length = next((at for at in range(len(one)) if not other.endswith(one[len(one) - at - 1 :])), len(one))
    return one[len(one) - length :]


def _with_system(found: Turns, rendered: Any) -> Turns:
    """Return `found` with a system prompt, where the template takes one."""
    try:
        text = rendered(("system", SYSTEM), ("user", USER), reply=True)
    except TemplateError:
        return found
    before, between, _ = _parted(text, SYSTEM, USER)
    follows = found.user[0] if between.endswith(found.user[0]) else ""
    return replace(found, system=(before, between.removesuffix(follows)), follows_system=follows)


def _parted(text: str, *words: str) -> list[str]:
    """Return what stands before, between and after the words. Raises ValueError where one is not there just once."""
    parts = []
    for word in words:
        before, found, text = text.partition(word)
        if not found or (word in text and word != USER):
            raise ValueError(f"it writes what a turn says {'twice' if found else 'otherwise'}")
        parts.append(before)
    return [*parts, text]


def _try(found: Turns, rendered: Any) -> None:
    """Raise ModelError where the template and what was found of it part."""
    system, talk = (
        ("system", "Be brief."),
        (("user", "One?"), ("assistant", "Two."), ("user", "Three\nlines.\n\nOr 4?")),
    )
    tried: list[tuple[tuple[str, str], ...]] = [talk[:1], talk, (*talk, ("assistant", "Five."), ("user", "Six?"))]
    if found.system is not None:
        tried += [(system, *talk[:1]), (system, *talk)]
    for turns in tried:
        messages = [{"role": role, "content": content} for role, content in turns]
        if found.text(messages) != rendered(*turns, reply=True):
            raise ModelError(f"{_MORE}: a conversation of {len(turns)} turns is rendered otherwise. {_INSTEAD}")
