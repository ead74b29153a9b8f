"""Messages that answer each other -> conversations, a path of a tree each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from sftplug import Dropped, Made, Row, RowContext, RowError, StreamProcessor, did_you_mean

DELETED = "deleted"
"""Column in which OpenAssistant says that somebody has taken a message back."""


@dataclass(slots=True, eq=False)
class Node:
    """A message, and those that answer it."""

    data: Mapping[str, Any]
    row: Row
    """The row that it stands in: one of its own, or that of its tree."""
    replies: list[Node] = field(default_factory=list)


class MessageTrees(StreamProcessor):
    """Make conversations of messages that answer each other: a message a row, or a whole tree a row (OpenAssistant).

    Each path from a first message to the last reply on it becomes a row with the column `messages`. What its messages
    have in common, such as `lang`, is a column beside it; what they have not stays with each of them. A message that is
    `deleted` is left out with all that answers it, and so is a last question that nobody answers. Messages in rows of
    their own are kept in memory until the last one is read, for their order is not known.
    """

    type: Literal["message_trees"] = "message_trees"
    paths: Literal["best", "all"] = "best"
    """Which paths: the one that follows the reply of the least rank each time, or all. Of all of them, a reply that
    several paths go through is trained in each."""
    id: str = "message_id"
    """What a message is called."""
    parent: str = "parent_id"
    """Column that names the message which is answered; null for a first one."""
    role: str = "role"
    """Whose message it is."""
    text: str = "text"
    """What it says."""
    rank: str = "rank"
    """Column of the rank among those that answer the same message, 0 for the best; those without one come last."""
    tree: str = "prompt"
    """Column that holds the first message of a tree, where a row is a whole one."""
    replies: str = "replies"
    """Key of a message in a tree that holds what answers it."""
    shorthand: ClassVar[str] = "paths"
    holds_rows: ClassVar[bool] = True

    @property
    def reads(self) -> tuple[str, ...]:
        """The columns of a table of messages."""
        return (self.id, self.parent, self.role, self.text, self.rank)

    def stream(self, rows: Iterator[Row], context: RowContext) -> Iterator[Row | Made | Dropped]:
        """Yield the paths of each tree as it comes, and then those of messages that had rows of their own."""
        table: list[Row] = []
        for row in rows:
            if isinstance(row.data.get(self.tree), Mapping):
                try:
                    yield from self._of_tree(row)
                except RowError as error:
                    yield Dropped(error, row)
            elif self.parent in row.data:
                table.append(row)
            else:
                yield Dropped(self._neither(row), row)
        yield from self._of_table(table)

    def _neither(self, row: Row) -> RowError:
        hint, known = did_you_mean(self.parent, row.data), ", ".join(map(str, row.data))
        tree = f"and no `{self.tree}` holds a tree"
        return RowError(self.parent, f"is missing, {tree}.{hint} The row has: {known}.")

    # --- a tree in each row ---

    def _of_tree(self, row: Row) -> Iterator[Made | Dropped]:
        root = self._grown(row)
        shared = {name: value for name, value in row.data.items() if name != self.tree}
        made = [Made({**shared, **self._said(path)}, [row]) for path in self._paths(root)]
        if not made:
            yield Dropped("is a tree of messages in which nobody replies", row)
        yield from made

    def _grown(self, row: Row) -> Node:
        """Return the tree of a row. Raises RowError for what is no message."""
        root = Node(row.data[self.tree], row)
        left = [(root, self.tree)]
        while left:
            node, where = left.pop()
            replies = node.data.get(self.replies) or []
            if not isinstance(replies, list | tuple) or not all(isinstance(reply, Mapping) for reply in replies):
                raise RowError(f"{where}.{self.replies}", "must be a list of messages")
            self._check(node.data, f"{where}.")
            node.replies = [Node(reply, row) for reply in replies]
            left += [(reply, f"{where}.{self.replies}[{index}]") for index, reply in enumerate(node.replies)]
        return root

    # --- a message in each row ---

    def _of_table(self, rows: Sequence[Row]) -> Iterator[Made | Dropped]:
        nodes: dict[Any, Node] = {}
        for row in rows:
            try:
                self._check(row.data, "")
                nodes[self._new_id(row, nodes)] = Node(row.data, row)
            except RowError as error:
                yield Dropped(error, row)
        roots = [node for node in nodes.values() if node.data[self.parent] is None]
        orphans = [node for node in nodes.values() if not self._joins(node, nodes)]
        used: set[Node] = set()
        for root in roots:
            for path in self._paths(root):
                used.update(path)
                yield Made(self._said(path), [node.row for node in path])
        for node in orphans:
            yield Dropped(
                RowError(self.parent, f"names {node.data[self.parent]!r}, which is no message here"), node.row
            )
        used.update(orphans)
        yield from (Dropped(self._left_out(), node.row) for node in nodes.values() if node not in used)

    def _new_id(self, row: Row, nodes: Mapping[Any, Node]) -> str | int:
        name = row.data.get(self.id)
        if not isinstance(name, str | int):
            raise RowError(self.id, "must be a text or a number by which others answer the message")
        if name in nodes:
            raise RowError(self.id, f"is {name!r}, as in {nodes[name].row.origin}: one of them could be answered only")
        return name

    def _joins(self, node: Node, nodes: Mapping[Any, Node]) -> bool:
        """Whether a message is a first one, or was joined to the one that it answers."""
        name = node.data[self.parent]
        if name is None:
            return True
        parent = nodes.get(name) if isinstance(name, str | int) else None
        if parent is None:
            return False
        parent.replies.append(node)
        return True

    def _left_out(self) -> str:
        best = "is not on the best path, " if self.paths == "best" else ""
        return f"{best}is deleted, unanswered, or answers one that is left out"

    # --- paths ---

    def _check(self, data: Mapping[str, Any], where: str) -> None:
        for key in (self.role, self.text):
            if not isinstance(data.get(key), str):
                raise RowError(f"{where}{key}", f"must be text. The message has: {', '.join(map(str, data))}.")

    def _paths(self, root: Node) -> Iterator[list[Node]]:
        """Yield the paths from a first message to the last replies."""
        self._prune(root)
        left = [[root]] if root.replies and root.data.get(DELETED) is not True else []
        while left:
            path = left.pop()
            replies = self._ranked(path[-1].replies)
            if not replies:
                yield path
            chosen = replies[:1] if self.paths == "best" else replies
            left += [[*path, reply] for reply in reversed(chosen)]

    def _prune(self, root: Node) -> None:
        """Take out of a tree what is deleted, and questions that nobody answers."""
        nodes = [root]
        for node in nodes:
            nodes += node.replies  # those that answer a message come after it
        asks = root.data[self.role]
        for node in reversed(nodes):
            kept = [reply for reply in node.replies if reply.data.get(DELETED) is not True]
            node.replies = [reply for reply in kept if reply.replies or reply.data[self.role] != asks]

    def _ranked(self, replies: Iterable[Node]) -> list[Node]:
        def rank(node: Node) -> tuple[bool, float]:
            value = node.data.get(self.rank)
            return (False, value) if isinstance(value, int | float) else (True, 0.0)

        return sorted(replies, key=rank)

    def _said(self, path: Sequence[Node]) -> dict[str, Any]:
        """Return the row of a path: its messages, and beside them what they have in common."""
        own = {self.id, self.parent, self.role, self.text, self.rank, self.replies, DELETED}
        rest = [{name: value for name, value in node.data.items() if name not in own} for node in path]
        shared = {
            name: value for name, value in rest[0].items() if all(name in more and more[name] == value for more in rest)
        }
        messages = [
            {
                "role": node.data[self.role],
                "content": node.data[self.text],
                **{name: value for name, value in more.items() if name not in shared},
            }
            for node, more in zip(path, rest, strict=True)
        ]
        return {**shared, "messages": messages}
