"""Masking strategies: which tokens count in the loss, and how much.

Some *select* (their weights are true or false); some *modify* (their weight is 1 everywhere but on the tokens they
speak of). A recipe lists them; the weights multiply.
"""

import sftplug
from sftplug_masking.modify import EmptyThink, EndOfTurn, MessageWeights, Reasoning, Regex, ToolCalls
from sftplug_masking.select import All, Assistant, Completion, LastAssistant, Roles, Turns


@sftplug.hookimpl
def sftplug_maskings() -> list[type[sftplug.Masking]]:
    """Offer the built-in strategies."""
    select: list[type[sftplug.Masking]] = [All, Assistant, Completion, LastAssistant, Roles, Turns]
    return [*select, Reasoning, EmptyThink, ToolCalls, Regex, EndOfTurn, MessageWeights]
