"""Read a reply: match it against the forms that a template writes, and take what renders to it again."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from sftplug.data.parse.forms import Forms
from sftplug.data.parse.key_order import in_order_of
from sftplug.data.parse.learn import ANSWERED, TOOLS, learn, shortened
from sftplug.data.parse.match import Called, Matcher, Reading, Types
from sftplug.data.parse.replies import Messages, Situation, in_parts
from sftplug.data.parse.tokens import ids_of, text_of, without_marks
from sftplug.data.render import Template, compile_template
from sftplug.data.render.call import PROBE
from sftplug.errors import TemplateError, TemplateStopped
from sftplug.types.conversation import Message, ToolCall
from sftplug.types.decoded import Decoded

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from sftplug.data.control_tokens import Controls

TRIED = 24
"""So many readings of a text in one form are rendered."""
KNOWN = 64
"""The forms of so many situations are remembered."""
_THOUGHT_END = re.compile(r"</think(?:ing)?>")
_THOUGHT = re.compile(r"<think(?:ing)?>\s*\Z")


class _Text(NamedTuple):
    """A reply without its stop."""

    core: str
    stopped: bool

    @property
    def plain(self) -> str:
        return without_marks(self.core)


@dataclass(slots=True)
class ReplyReader:
    """Reads what a model generates with one tokenizer and chat template."""

    tokenizer: PreTrainedTokenizerBase
    template: Template
    controls: Controls
    special_tokens: Mapping[str, Any]
    end_tokens: frozenset[str]
    """Texts of the tokens that end a reply."""
    _known: dict[tuple[Any, ...], Forms] = field(default_factory=dict)

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase, ends: Sequence[int], words: Sequence[str] = ()) -> ReplyReader:
        """Return the reader for the tokenizer's own chat template.

        `ends` are the ids that end a reply, `words` the added tokens that words may hold.
        """
        from sftplug.data.control_tokens import controls_of

        template = compile_template(tokenizer.get_chat_template(), "of the tokenizer")
        special = tokenizer.special_tokens_map
        tokens = frozenset(str(tokenizer.convert_ids_to_tokens(index)) for index in ends)
        return cls(tokenizer, template, controls_of(tokenizer, template, special, words), special, tokens)

    def read(
        self,
        reply: str | Sequence[int],
        messages: Messages | None = None,
        tools: Sequence[Mapping[str, Any]] | None = None,
        kwargs: Mapping[str, Any] | None = None,
    ) -> Decoded:
        """Return a reply to `messages` as a message; without them, to a question alone.

        Raises TemplateError for a template that refuses the messages, DataError for ids that are none.
        """
        arguments = {**self.special_tokens, **(kwargs or {})}
        where = Situation(self.template, list(messages or [PROBE]), tools or None, arguments, self.end_tokens)
        text = reply if isinstance(reply, str) else self._text(reply)
        return self._read(text, where, self.forms(where))

    def read_after(self, prompt: Sequence[int], reply: Sequence[int]) -> Decoded | None:
        """Return a reply to a prompt of which only the ids are known; None where no template asked for it so."""
        # The end of the prompt tells whether it is a question or a tool's answer that is replied to, and whether a
        # thought is opened already; the rest of the conversation has no part in how a reply is written.
        shown = text_of(list(prompt), self.tokenizer, self.controls)
        for where in self._situations():
            try:
                opening = where.opening()
            except TemplateStopped:
                raise
            except TemplateError:
                continue
            if opening and shown.endswith(opening):
                return self._read(self._text(reply), where, self.forms(where))
        return None

    def marks(self, messages: Messages) -> tuple[tuple[str, ...], bool]:
        """Return what no words of a reply to `messages` hold, and whether the prompt opens a thought."""
        where = Situation(self.template, list(messages), None, self.special_tokens, self.end_tokens)
        forms = self.forms(where)
        opened = any(
            form.slots[0] == "reasoning" and form.continues and not form.literals[0].strip() for form in forms.replies
        )
        return forms.marks, opened

    def _situations(self) -> Iterator[Situation]:
        """Yield what may be replied to: a question, then a tool's answer."""
        for tools, messages in ((None, [PROBE]), (TOOLS, [PROBE]), (TOOLS, [PROBE, *ANSWERED])):
            yield Situation(self.template, messages, tools, self.special_tokens, self.end_tokens)

    def forms(self, where: Situation) -> Forms:
        """Return how the template writes replies; learned once for each way in which it asks for one."""
        # What a thought begins with may depend on the question ("/no_think") or on who spoke last: it shows in what the
        # template writes after the last message.
        key = where.opening(), bool(where.tools), repr(where.kwargs), where.messages[-1].get("role")
        if key not in self._known:
            while len(self._known) >= KNOWN:
                self._known.pop(next(iter(self._known)))
            forms = learn(shortened(where))
            self._known[key] = forms if forms.replies else learn(where)
        return self._known[key]

    def _text(self, reply: Sequence[int]) -> str:
        ends = [index for index, text in self.controls.texts.items() if text in self.end_tokens]
        return text_of(ids_of(reply, ends), self.tokenizer, self.controls)

    def _read(self, text: str, where: Situation, forms: Forms) -> Decoded:
        core = _without_stop(text, forms)
        found = self._understood(core, where, forms)
        if found is None or not found.message.tool_calls:
            found = self._in_order(core, where, forms) or found
        if found is None:
            why = _why(core.plain, forms)
            return Decoded(Message("assistant", core.plain), without_marks(text), core.stopped, False, why)
        return replace(found, text=without_marks(text))

    def _understood(self, text: _Text, where: Situation, forms: Forms) -> Decoded | None:
        return self._found(text, where, forms) or self._behind_a_thought(text, where, forms)

    def _in_order(self, text: _Text, where: Situation, forms: Forms) -> Decoded | None:
        """Return a reply with calls whose keys stand in another order than the template's, which JSON does not have."""
        ordered = text.core if forms.call is None else in_order_of(forms.call.sample, text.core)
        found = None if ordered == text.core else self._understood(_Text(ordered, text.stopped), where, forms)
        called = found is not None and found.message.tool_calls and not found.problem
        return replace(found, exact=False) if found is not None and called else None

    def _found(self, text: _Text, where: Situation, forms: Forms) -> Decoded | None:
        """Return what the text says: the first reading in which no word holds what only the template writes, if any."""
        types, doubtful = types_of(where.tools), None
        for loose, form in itertools.product((False, True), forms.replies):
            cut = not text.stopped and form.slots == ("reasoning",) and form.continues
            matcher = Matcher(text.core, types, loose, cut)
            for reading in itertools.islice(matcher.readings(form, forms.call), TRIED):
                foreign = self._foreign(reading, forms)
                if foreign and (doubtful is not None or cut or reading.calls):
                    continue
                decoded = _checked(reading, text, where, forms, cut=cut)
                if decoded is not None and not foreign:
                    return decoded
                doubtful = doubtful or (decoded and replace(decoded, problem=foreign))
        return doubtful

    def _behind_a_thought(self, text: _Text, where: Situation, forms: Forms) -> Decoded | None:
        """Return a reply with a thought that the template opens for the model and leaves out of its rows, as R1's."""
        found = _THOUGHT_END.search(text.core)
        opened = _THOUGHT.search(where.opening()) or re.match(r"\s*<think(?:ing)?>", text.core)
        if found is None or opened is None or any("reasoning" in form.slots for form in forms.replies):
            return None
        rest = self._found(_Text(text.core[found.end() :].lstrip(), text.stopped), where, forms)
        if rest is None:
            return None
        begin = 0 if opened.re is _THOUGHT else opened.end()
        thought = without_marks(text.core[begin : found.start()]).strip()
        message = replace(rest.message, reasoning_content=thought)
        said, alone = where.said(message), where.said(rest.message)
        same = said is not None and alone is not None and said.loses_thought and said.text == alone.text
        return replace(rest, message=message, exact=False) if same and thought else None

    def _foreign(self, reading: Reading, forms: Forms) -> str:
        """Return what is wrong with words that hold what no words do: half of a call, a control token.

        A thought may speak of calls, which come after it; what ends it, it cannot hold.
        """
        for slot, words in reading.texts.items():
            thinks = slot == "reasoning"
            known = self.controls.pattern.findall(words) if self.controls.pattern is not None else []
            spoken = self.controls.spoken_texts if thinks else frozenset()
            marks = [mark for mark in (forms.thought_marks if thinks else forms.marks) if mark in words]
            marks += [token for token in known if token not in spoken]
            if marks:
                return _said_of(marks[0], forms)
        return ""


def _said_of(mark: str, forms: Forms) -> str:
    """Return what is wrong with a text that holds `mark`."""
    unread = forms.unread_calls and mark not in forms.thought_marks
    return (_UNREAD if unread else _NOT_WHOLE).format(mark=mark)


_UNREAD = (
    "'{mark}' stands in it: the chat template writes calls, and not so that name and arguments could be found again."
)
_NOT_WHOLE = "'{mark}' stands in it, and not where the template writes it: what it begins or ends is not whole."


def _why(text: str, forms: Forms) -> str:
    """Return why a text was not understood."""
    if not forms.replies:
        return "the chat template writes no text of an assistant in which what it says could be found again."
    mark = next((mark for mark in forms.marks if mark in text), None)
    if mark is not None:
        return _said_of(mark, forms)
    return "there is no message of which the chat template writes this text."


def _without_stop(text: str, forms: Forms) -> _Text:
    trimmed = text.rstrip()
    for stop in forms.stops:
        if trimmed.endswith(stop):
            return _Text(trimmed.removesuffix(stop), True)
    return _Text(text, False)


def types_of(tools: Sequence[Mapping[str, Any]] | None) -> Types:
    """Return the JSON types of each tool's arguments, as far as the schemas say."""
    found: dict[str, dict[str, frozenset[str]]] = {}
    for tool in tools or ():
        function = tool.get("function", tool)
        properties = (function.get("parameters") or {}).get("properties") or {}
        found[str(function.get("name"))] = {
            key: frozenset(_types(schema)) for key, schema in properties.items() if isinstance(schema, Mapping)
        }
    return found


def _types(schema: Mapping[str, Any]) -> Iterator[str]:
    given = schema.get("type")
    yield from [given] if isinstance(given, str) else given or ()
    for key in ("anyOf", "oneOf"):
        for option in schema.get(key) or ():
            yield from _types(option) if isinstance(option, Mapping) else ()


# --- the proof --------------------------------------------------------------------------------------------------------


def _checked(reading: Reading, text: _Text, where: Situation, forms: Forms, *, cut: bool) -> Decoded | None:
    """Return a reading as a message, if the template renders this text of it."""
    message = _message(reading, forms)
    said = where.said(message)
    if said is None:
        return None
    rendered, generated = _without_stop(said.text, forms), text.plain
    exact = rendered.core == generated
    if not exact and not _same_but_white_space(rendered.core, generated, goes_on=cut and not text.stopped):
        return None
    stopped = text.stopped or (said.ends and not rendered.stopped and _squeezed(rendered.core) == _squeezed(generated))
    whole = exact or (not stopped and rendered.core.startswith(generated))
    untyped = tuple(f"{call.name}.{key}" for call in reading.calls for key in call.untyped)
    return Decoded(message, "", stopped, whole, untyped=untyped)


def _same_but_white_space(rendered: str, generated: str, *, goes_on: bool) -> bool:
    one, other = _squeezed(rendered), _squeezed(generated)
    return one.startswith(other) if goes_on else one == other


def _squeezed(text: str) -> str:
    return "".join(text.split())


def _message(reading: Reading, forms: Forms) -> Message:
    reasoning = reading.texts.get("reasoning")
    message = Message(
        "assistant",
        without_marks(reading.texts.get("content", "")),
        tuple(_call(call, number, forms) for number, call in enumerate(reading.calls)),
        None if reasoning is None else without_marks(reasoning),
    )
    return in_parts(message) if forms.parts and message.content else message


def _call(call: Called, number: int, forms: Forms) -> ToolCall:
    needs = forms.call is not None and forms.call.with_id
    identity = call.id or (f"{number + 1:09d}" if needs else None)
    return ToolCall(without_marks(call.name), _clean(call.arguments), identity)


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return without_marks(value)
    if isinstance(value, dict):
        return {_clean(key): _clean(item) for key, item in value.items()}
    return [_clean(item) for item in value] if isinstance(value, list) else value
