"""Metrics of the calls that a reply makes to tools."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Literal

from sftplug import Message, Metric, Reply, RowError, ToolCall
from sftplug_metrics.structure import same


class ToolCallsEqual(Metric):
    """1 for a reply that calls the row's tools with the row's arguments, else 0; two replies without calls match.

    Calls are read by inverting the chat template (`sftplug.decode`), and compared by name and by arguments as values of
    JSON: order of keys, white space and escapes aside; ids are not compared. A reply with a call that is not whole
    is wrong. Words and reasoning beside the calls are not looked at. A row whose own reply cannot be read back is an
    error.
    """

    type: Literal["tool_calls_equal"] = "tool_calls_equal"
    any_order: bool = False
    """Take calls that are made at once in any order."""

    def scores(self, replies: Sequence[Reply]) -> list[float]:
        """Compare calls with calls."""
        return [float(self._equal(reply)) for reply in replies]

    def _equal(self, reply: Reply) -> bool:
        wanted, said = reply.decoded_reference, reply.decoded
        if wanted is None or said is None:
            raise RowError("reference", "is no reply that the run's chat template writes after such a prompt")
        if wanted.problem:
            raise RowError("reference", f"cannot be read back: {wanted.problem.removesuffix('.')}")
        if said.problem:
            return False
        calls, expected = _calls(said.message), _calls(wanted.message)
        if not self.any_order:
            return same(calls, expected)
        for call in expected:
            match = next((index for index, other in enumerate(calls) if same(call, other)), None)
            if match is None:
                return False
            calls.pop(match)
        return not calls


def _calls(message: Message) -> list[Any]:
    return [[call.name, _arguments(call)] for call in message.tool_calls]


def _arguments(call: ToolCall) -> Any:
    return json.loads(call.arguments) if isinstance(call.arguments, str) else call.arguments
