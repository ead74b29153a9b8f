"""What inference shows before the turns of a conversation, as many of them as it has.

The prompts of a long conversation are rendered by a walk (see `walk`), which runs only what differs between them; the
others one by one.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field
from functools import cached_property

from sftplug.data.render.call import Call
from sftplug.data.render.check import lost_texts, texts_of
from sftplug.data.render.output import PromptText, agreement
from sftplug.data.render.renderer import Renderer
from sftplug.data.render.spans import LONGEST_TOKEN, WORDS, content_before, whole_before
from sftplug.data.render.walk import FollowedConversation, Walk
from sftplug.errors import TemplateError

MANY = 8
"""From so many turns on it is worth to follow what the template does."""
MOST = 2_000_000
"""So many messages are rendered for the prompts of one conversation, which takes some 20 seconds."""


@dataclass
class Prompts:
    """What is shown before each turn of one conversation."""

    renderer: Renderer
    walks: Walks
    call: Call
    text: str
    """The conversation, as it is trained."""
    ran: int = 0
    """How many messages were rendered for them, one prompt after the other."""
    _wholes: dict[tuple[bool, bool], FollowedConversation | None] = field(default_factory=dict)

    def afford(self, turn: int) -> None:
        """Raise TemplateError where to render the prompts up to that of `turn` takes too long."""
        turns = self.call.assistants
        if len(turns) >= MANY and self._whole(asks=True, traced=False) is None:
            # The prompts of the turns 1, 3 and 5, rendered whole, are 1 + 3 + 5 messages.
            ran = sum(turns)
        else:
            ran = turn + self.ran + sum(whole.ran for whole in self._wholes.values() if whole is not None)
        if ran > MOST:
            raise TemplateError(
                f"what the chat template prints of a message depends on those after it, so the prompts of "
                f"{len(turns):,} turns have to be rendered one by one: {ran:,} messages, and {MOST:,} are rendered for "
                f"one conversation. Cut it into shorter ones."
            )

    def shown(self, message: int, *, asks: bool = True) -> PromptText:
        """Return the text of the messages before `message`, with what `asks` for a reply or without.

        Raises TemplateError where the template refuses them.
        """
        output = self._follow(message, asks=asks, traced=False)
        if output is None:
            output = PromptText(self.text)
            self.ran += message
            output.add(self.renderer.text(self.call.until(message), add_generation_prompt=asks))
        return output

    def followed(self, message: int) -> PromptText:
        """Return the text of the messages up to and with `message` and of a question after them."""
        output = PromptText(self.text)
        self.ran += message
        output.add(self.renderer.text(self.call.followed(message)))
        return output

    def wanted(self, message: int) -> str:
        """Return what is shown before `message` after the last text that a message says."""
        output = self._follow(message, asks=True, traced=True)
        if output is not None:
            return output.text(output.said())
        self.ran += message
        layout = self.renderer.layout(self.call.until(message), add_generation_prompt=True)
        return layout.text[content_before(layout, len(layout.text), message) :]

    def loses(self, end: int, message: int, key: str, *, asks: bool) -> bool:
        """Whether the text of the messages before `end` does not hold what `message` says under `key`.

        Raises TemplateError where the template refuses them.
        """
        # Messages before `end` do not include it.
        if end <= message:
            return True
        output, said = self._follow(end, asks=asks, traced=True), self.call.messages[message]
        if output is None:
            self.ran += end
            layout = self.renderer.layout(self.call.until(end), add_generation_prompt=asks)
            pieces, whole = layout.content(message), layout.text
        else:
            pieces, whole = output.around(message, max((len(text) for _, text in texts_of(said)), default=0))
        return any(lost == key for lost, _ in lost_texts(said, pieces, whole))

    def added(self, message: int) -> str:
        """Return what the template adds to ask for the turn of `message`."""
        asking, before = self.shown(message), self.shown(message, asks=False)
        # Both begin as the conversation does. Only where they leave it at the same place may they have more in common.
        common = min(asking.shared, before.shared)
        if asking.shared == before.shared:
            common += agreement(asking.text(common), before.text(common))
        return asking.text(min(self._whole_before(asking, common), self._whole_before(before, common)))

    def _whole_before(self, output: PromptText, at: int) -> int:
        """Return `at`, or the start of the special token or word of `output` that it would split.

        A word that ends so long before `output` becomes another text ends there in both: it is enough to look from
        there on.
        """
        index = bisect_right(self._word_ends, min(at, output.shared) - LONGEST_TOKEN - 1) - 1
        start = self._word_ends[index] if index >= 0 else 0
        return start + whole_before(output.text(start), at - start)

    @cached_property
    def _word_ends(self) -> list[int]:
        return [match.end() for match in WORDS.finditer(self.text)]

    def _follow(self, message: int, *, asks: bool, traced: bool) -> PromptText | None:
        if len(self.call.assistants) < MANY:
            return None
        whole = self._whole(asks=asks, traced=traced)
        return None if whole is None else whole.until(message)

    def _whole(self, *, asks: bool, traced: bool) -> FollowedConversation | None:
        key = asks, traced
        if key not in self._wholes:
            walk = self.walks.of(traced=traced)
            begun = None if walk is None else walk.begin(self.call, self.text, add_generation_prompt=asks)
            # None is kept, too: what cannot be followed is not tried again at each turn.
            self._wholes[key] = begun
        return self._wholes[key]


@dataclass(slots=True)
class Walks:
    """The walks through a template, made when the first long conversation comes."""

    renderer: Renderer
    _made: dict[bool, Walk | None] = field(default_factory=dict)

    def of(self, *, traced: bool) -> Walk | None:
        """Return the walk with plain texts or traced ones; None for a template that cannot be followed."""
        if traced not in self._made:
            renderer = self.renderer
            self._made[traced] = Walk.through(renderer.source, renderer.budget, renderer.rendering, traced=traced)
        return self._made[traced]
