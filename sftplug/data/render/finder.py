"""Find where each turn of an assistant stands in the text, by what the template shows before it and after it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from sftplug.data.render.call import PROBE, Call, make_call
from sftplug.data.render.check import (
    Finding,
    check_interruptions,
    check_iterations,
    check_questions,
    check_spans,
    quote,
)
from sftplug.data.render.pieces import Layout
from sftplug.data.render.prompts import Prompts, Walks
from sftplug.data.render.rendered import Rendered, continue_prompt, cut_after, lost_stop, to_row
from sftplug.data.render.renderer import Renderer
from sftplug.data.render.spans import (
    Start,
    TurnEnd,
    TurnLocation,
    common_start,
    find_opening,
    find_start,
    find_stop,
    turn_locations,
)
from sftplug.data.render.turns import Turn, divergence, spans_of
from sftplug.errors import TemplateError


@dataclass(slots=True, eq=False)
class TurnFinder:
    """Finds the turns in what one template renders."""

    renderer: Renderer
    walks: Walks
    _turn_ends: dict[str, TurnEnd | None] = field(default_factory=dict)

    def turn(self, layout: Layout, prompts: Prompts, message: int) -> Turn:
        """Return the turn of `message` in `layout`: where it stands, and what is to say of it."""
        call = prompts.call
        where = turn_locations(layout, message)
        if not where:
            text = f"message {message}: the template prints nothing for it."
            return Turn(message, [], Start(0, "", "", ""), [Finding("not_located", "error", message, text)])
        start = self._start(layout, prompts, message, where[0])
        if isinstance(start, Finding):
            return Turn(message, [], Start(0, "", "", ""), [start])
        turn = Turn(message, [], start, list(divergence(start, message)))
        for number, stretch in enumerate(where):
            # After a tool's answer within the turn there is no prompt to go by: the rest begins with its first own
            # character.
            begin = start.at if number == 0 else stretch.first
            stop = self._stop(layout, prompts, turn, TurnLocation(message, begin, begin, stretch.last, stretch.end))
            # An empty reply keeps its span, though nothing may be in it; what follows a tool's answer must hold
            # something.
            if stop > begin or number == 0:
                turn.spans.append((begin, stop))
        turn.findings += check_spans(layout, message, turn.spans, start.at)
        turn.findings += check_iterations(layout, message)
        turn.findings += check_questions(layout, message, start.at, call.users)
        turn.findings += check_interruptions(layout, message, call.answers)
        return turn

    def _start(self, layout: Layout, prompts: Prompts, message: int, where: TurnLocation) -> Start | Finding:
        try:
            prompt = prompts.shown(message)
        except TemplateError:
            # A conversation that the assistant opens has no prompt to render; its header must be the usual one.
            return self._start_by_header(layout, prompts.call, message, where)
        # The usual case: the text goes on where the whole prompt of the turn ends, to the character.
        if prompt.shared == prompt.length:
            return Start(prompt.length, "", "", "")
        wanted, asks = prompts.wanted(message), self._generation_prompt(prompts.call)
        start = None if asks is None else find_start(layout, where, wanted, asks, self._goes_on(prompts, message, asks))
        return start or self._start_by_header(layout, prompts.call, message, where)

    def _goes_on(self, prompts: Prompts, message: int, asks: str) -> bool:
        """Whether the template, after a tool's answer, asks for more of the turn and not for a new one."""
        if message == 0 or prompts.call.messages[message - 1].get("role") != "tool":
            return False
        return common_start(prompts.added(message).lstrip(), asks.lstrip()) == 0

    def _start_by_header(self, layout: Layout, call: Call, message: int, where: TurnLocation) -> Start | Finding:
        header = self._generation_prompt(call)
        start = None if header is None else find_opening(layout, where, header)
        if start is not None:
            return start
        shown = quote(layout.text[max(0, where.first - 40) : where.first])
        text = (
            f"message {message}: the template cannot render a prompt for it, and its header {shown} "
            f"is not the generation prompt {quote(header or '')}."
        )
        return Finding("not_located", "error", message, text, where.first, where.last)

    def _generation_prompt(self, call: Call) -> str | None:
        """Return what the template adds for a reply to a user, the white space of the turn before left out.

        None when it cannot render a question alone.
        """
        # A question alone, without tools or turns before it: what is added to ask for a reply is then all that differs.
        probe = replace(call, messages=[dict(PROBE)], tools=None)
        try:
            without, prompt = self.renderer.text(probe), self.renderer.text(probe, add_generation_prompt=True)
        except TemplateError:
            return None
        return prompt[common_start(without, prompt) :]

    def _stop(self, layout: Layout, prompts: Prompts, turn: Turn, where: TurnLocation) -> int:
        call, turn_end = prompts.call, self._turn_end(prompts.call)
        ends = call.ends
        if not ends and turn_end is not None and _followed_by(call, turn.message, "assistant"):
            # GLM's turns stop with the header of the next one, "<|user|>"; that of another reply asks for it.
            ends = frozenset({turn_end.stop})
        stop = find_stop(layout, where, where.first, turn_end, ends)
        end = stop.at
        if _followed_by(call, turn.message, "tool"):
            end = self._stop_before_tool(layout, prompts, turn.message, end)
        if end == stop.at and stop.by == "none":
            end = self._stop_by_renders(layout, prompts, turn.message, end)
        if end == stop.at and stop.by == "none" and (end > where.first or not turn.spans):
            text = f"message {turn.message}: no token marks its end; the model would never learn to stop."
            turn.findings.append(Finding("no_stop", "policy", turn.message, text, where.first, end))
        return end

    def _stop_by_renders(self, layout: Layout, prompts: Prompts, message: int, last: int) -> int:
        """Return the end of what stands after the turn whatever comes next, where no mark says whose text it is."""
        try:
            alone, followed = prompts.shown(message + 1, asks=False), prompts.followed(message)
        except TemplateError:
            return last
        if min(alone.shared, followed.shared) < last:
            return last
        # What stands behind the turn here, where the turn is the last, and where a question follows: what all three
        # share is how the turn ends.
        rest = layout.text[last:]
        tail = rest[: common_start(rest, followed.text(last))]
        return last + len(tail[: common_start(tail, alone.text(last))].rstrip())

    def _stop_before_tool(self, layout: Layout, prompts: Prompts, message: int, end: int) -> int:
        """Return the end of a turn that calls a tool: some templates show its stop only when it is the last turn."""
        turn_end = self._turn_end(prompts.call)
        if turn_end is not None and turn_end.by == "own" and layout.text.endswith(turn_end.tail.strip(), 0, end):
            return end
        try:
            alone = prompts.shown(message + 1, asks=False)
        except TemplateError:
            return end
        length = alone.stripped(alone.length)
        return max(length, end) if alone.shared >= length else end

    # --- a turn apart -----------------------------------------------------------------------------------------------

    def apart(self, rendered: Rendered, call: Call, message: int) -> Rendered:
        """Return the row that shows the turn of `message` as inference does."""
        prompt = self.renderer.layout(call.until(message), add_generation_prompt=True)
        alone = call.until(message + 1)
        text = "".join(rendered.text[span.start : span.end] for span in rendered.spans if span.message == message)
        try:
            layout = self.renderer.layout(alone)
        except TemplateError:
            return continue_prompt(prompt, rendered, message)
        if not layout.text.startswith(prompt.text):
            return continue_prompt(prompt, rendered, message)
        turn = self.turn(layout, Prompts(self.renderer, self.walks, alone, layout.text), message)
        if any(finding.severity == "error" for finding in turn.findings) or not turn.spans:
            return continue_prompt(prompt, rendered, message)
        end = turn.spans[-1][1]
        row = to_row(layout, spans_of([turn]))
        return cut_after(row, end, lost_stop(row.text[row.spans[-1].start : end], text))

    # --- how the template ends a turn -------------------------------------------------------------------------------

    def _turn_end(self, call: Call) -> TurnEnd | None:
        """Return how the template ends a turn, learned from a probe; None when it refuses the probe."""
        # Arguments such as ``enable_thinking`` may decide how a turn ends.
        key = repr(sorted(call.kwargs.items(), key=lambda item: item[0]))
        if key not in self._turn_ends:
            self._turn_ends[key] = self._learn_turn_end(call)
        return self._turn_ends[key]

    def _learn_turn_end(self, call: Call) -> TurnEnd | None:
        probe = [("user", "sftplug asks"), ("assistant", "sftplug replies"), ("user", "sftplug asks again")]
        messages = [{"role": role, "content": text} for role, text in probe]
        try:
            layout = self.renderer.layout(make_call(messages, None, call.kwargs, frozenset()))
        except TemplateError:
            return None
        where = turn_locations(layout, 1)
        if not where:
            return None
        # ChatML prints "<|im_end|>" for the reply itself: ("own", "<|im_end|>"). A template that prints "</s>" ahead of
        # the next question only: ("next", "</s>"). So the second question of the probe is needed.
        stop = find_stop(layout, where[0], where[0].first, None, call.ends)
        return TurnEnd(stop.by, layout.text[where[0].last : stop.at])


def _followed_by(call: Call, message: int, role: str) -> bool:
    """Whether the message after `message` is one of `role`."""
    return message + 1 < len(call.messages) and call.messages[message + 1].get("role") == role
