"""An account of every row: what was read, what was kept, and why the rest was not.

Rows read = rows kept + rows dropped, always; rows that were added (a divergent turn trained in a row of its own) are
counted apart. Where row processors make several rows of one, or one of several, rows read + made - joined is that sum.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from sftplug.types.reasons import Reason, RowGroups

MOST_ORIGINS = 20
"""How many origins are kept for each reason; the count is always complete."""

MOST_OPTIONS = 50
"""So many values of an option are offered."""

STAGES = ("bad", "refused", "unsafe", "empty", "too long")
"""Where a row may end, beside the row processors."""


@dataclass(slots=True)
class Processed:
    """What a row processor did to the rows of a source."""

    processor: str
    """Its name."""
    read: int = 0
    """Rows that came to it."""
    changed: int = 0
    """Rows that went on with other columns or values than they came with, or as several."""
    made: int = 0
    """Rows that went on beyond those that came, where it made several of one."""
    joined: int = 0
    """Rows that became part of another one."""
    dropped: int = 0
    """Rows that ended here, those included that do not fit."""

    @property
    def out(self) -> int:
        """Rows that went on."""
        return self.read + self.made - self.joined - self.dropped

    def in_words(self) -> str:
        """Return ``1,203 rows in, 1,003 out: 200 dropped``."""
        counts = {"dropped": self.dropped, "joined to others": self.joined, "made": self.made, "changed": self.changed}
        said = ", ".join(f"{count:,} {what}" for what, count in counts.items() if count)
        return f"{self.read:,} rows in, {self.out:,} out{f': {said}' if said else ''}"

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON holds it."""
        return {**asdict(self), "out": self.out}


@dataclass(slots=True)
class Account:
    """What became of the rows of one source."""

    source: str
    """The source as the recipe names it."""
    read: int = 0
    """Rows that were read."""
    kept: int = 0
    """Rows of those that reach the trainer."""
    added: int = 0
    """Rows beyond those read: one for each turn that inference renders differently."""
    tokens: int = 0
    """Tokens of the rows that reach the trainer."""
    trained: float = 0
    """Sum of the loss weights of the rows kept."""
    trained_tokens: int = 0
    """How many of their tokens have a loss weight."""
    lost: float = 0
    """Sum of the loss weights of the rows that are too long."""
    lost_at: dict[int, float] = field(default_factory=dict)
    """Length in tokens that would hold such a row whole -> what of `lost` is lost with rows of that length."""
    unmeasured: int = 0
    """Rows that are so long that they were left out before they were tokenized; what they lose is an estimate."""
    lengths: Counter[int] = field(default_factory=Counter)
    """Length in tokens -> rows, over all rows that were tokenized, kept or not."""
    dropped: Counter[str] = field(default_factory=Counter)
    """Stage -> rows: ``bad``, ``refused`` (by the chat template), ``unsafe``, ``empty``, ``too long``, or the name of
    the row processor."""
    noted: Counter[str] = field(default_factory=Counter)
    """Kind of finding -> rows that were kept with it, such as ``divergent_header``."""
    processed: list[Processed] = field(default_factory=list)
    """What each row processor did, in their order: those of the source, then those of all training rows."""
    said: tuple[str, ...] = ()
    """What the source says of its rows beforehand, such as the split that it reads and the files that it leaves out."""
    columns: tuple[str, ...] = ()
    """Columns that hold something in any of the first rows."""
    unread: tuple[str, ...] = ()
    """Columns that the format did not read in any of the first rows, though they hold something."""
    false: tuple[str, ...] = ()
    """Columns of those that are false in any of the first rows: some say so which replies are bad."""
    unread_keys: Counter[str] = field(default_factory=Counter)
    """Key within a column, such as ``messages[].annotations``, that the format does not read -> rows that have it."""
    options: dict[str, dict[str, str]] = field(default_factory=dict)
    """Option of the format -> what it would have to be for rows that do not fit: ``roles`` -> ``{bing: assistant}``."""
    filled: Counter[str] = field(default_factory=Counter)
    """Text of the source's ``replace`` -> how often it was replaced."""
    filled_rows: int = 0
    """Rows in which any was."""
    plain: int = 0
    """Rows that no chat template renders."""
    documents: int = 0
    """Rows of those that are a document, in which nobody speaks."""
    led: int = 0
    """Rows that got the source's ``system`` turn."""
    picture: tuple[tuple[str, str], ...] = ()
    """The first unsafe row as (text, style) pieces."""
    reasons: dict[str, list[str]] = field(default_factory=dict)
    """Stage or kind -> the first lines ``origin: reason``."""
    groups: dict[str, RowGroups] = field(default_factory=dict)
    """Stage or kind -> the rows by their reasons, values apart."""

    def drop(self, stage: str, origin: str, reason: str, reasons: Sequence[Reason] = ()) -> None:
        """A row ends here; `reasons` are those that its `reason` is put together from, if it is of several."""
        self.dropped[stage] += 1
        self._remember(stage, origin, reason, reasons)

    def note(self, kind: str, origin: str, reason: str, reasons: Sequence[Reason] = ()) -> None:
        """A row goes on, but the user should know something about it; `reasons` as `drop` takes them."""
        self.noted[kind] += 1
        self._remember(kind, origin, reason, reasons)

    def offer(self, options: Mapping[str, Mapping[str, str]]) -> None:
        """Options of the format would let a row in that did not fit."""
        for name, values in options.items():
            known = self.options.setdefault(name, {})
            known.update(
                {key: value for key, value in values.items() if key not in known and len(known) < MOST_OPTIONS}
            )

    def keep(self, tokens: int, trained: float, trained_tokens: int, *, added: bool) -> None:
        """A row reaches the trainer with so many tokens, so much loss weight, and so many tokens that have some."""
        # `balanced` counts each row that was read once: one that was added is not among those kept.
        self.kept += not added
        self.added += added
        self.tokens += tokens
        self.trained += trained
        self.trained_tokens += trained_tokens

    def keep_all(self, lengths: Sequence[int], trained: float, trained_tokens: int) -> None:
        """Rows of such lengths, each the whole of a row that was read, reach the trainer."""
        self.lengths.update(lengths)
        self.kept += len(lengths)
        self.tokens += sum(lengths)
        self.trained += trained
        self.trained_tokens += trained_tokens

    def lose(self, trained: float, length: int) -> None:
        """So much loss weight is lost with a row of which every piece fits into `length` tokens, and no less."""
        self.lost += trained
        self.lost_at[length] = self.lost_at.get(length, 0.0) + trained

    @property
    def rows(self) -> int:
        """Rows that there were to keep or to drop: those read, but for what row processors made or joined."""
        return self.read + sum(step.made - step.joined for step in self.processed)

    def balanced(self) -> bool:
        """Whether every row that was read is accounted for."""
        return self.rows == self.kept + sum(self.dropped.values())

    def _remember(self, key: str, origin: str, reason: str, reasons: Sequence[Reason] = ()) -> None:
        lines = self.reasons.setdefault(key, [])
        if len(lines) < MOST_ORIGINS:
            lines.append(f"{origin}: {reason}")
        self.groups.setdefault(key, RowGroups()).add(origin, reasons or [("", reason)])

    def to_dict(self) -> dict[str, Any]:
        """Return the account as JSON holds it."""
        return {
            "source": self.source,
            "read": self.read,
            "kept": self.kept,
            "added": self.added,
            "dropped": dict(self.dropped),
            "noted": dict(self.noted),
            "tokens": self.tokens,
            "trained": self.trained,
            "trained_tokens": self.trained_tokens,
            "lost": self.lost,
            "unmeasured": self.unmeasured,
            "trained_share": self.trained_tokens / self.tokens if self.tokens else 0.0,
            "length_quantiles": length_quantiles(self.lengths, self.unmeasured),
            "processed": [step.to_dict() for step in self.processed],
            "said": list(self.said),
            "unread_columns": list(self.unread),
            "unread_keys": dict(self.unread_keys),
            "replaced": dict(self.filled),
            "replaced_rows": self.filled_rows,
            "plain": self.plain,
            "system_given": self.led,
            "reasons": self.reasons,
            "by_reason": {key: groups.to_state() for key, groups in self.groups.items()},
        }


@dataclass(frozen=True, slots=True)
class Mixed:
    """What of a source is in the mix."""

    source: str
    """The source as the recipe names it."""
    rows: int
    """Rows in the mix, repeated ones counted again."""
    passes: float
    """Rows in the mix for each row that the source has."""
    share: float
    """Share of the mix that was wanted; 0 where none was."""
    realised: float
    """Share that it has."""
    unused: int
    """Rows of the source that are not in the mix."""


@dataclass(frozen=True, slots=True)
class Packing:
    """How well documents fitted."""

    documents: int
    """Rows of the dataset, before they were packed."""
    rows: int
    """Rows that the trainer gets."""
    fill: float
    """Share of the rows' positions that are not padding."""


@dataclass(slots=True)
class Ledger:
    """The accounts of a run, by split and in the order of the recipe's sources."""

    splits: dict[str, list[Account]] = field(default_factory=dict)
    """Split, ``train`` or ``eval`` -> an account for each of its sources, in the order of the recipe."""
    mixed: list[Mixed] = field(default_factory=list)
    """What of each training source is in the mix, where shares or epochs were asked for."""
    engine: str = ""
    """What turned text into ids."""
    preamble: str = ""
    """What the template puts before rows that have no system turn, where that is a prompt of its own."""
    reused: bool = False
    """Whether the rows had been prepared before, so that nothing was read or tokenized."""
    packed: dict[str, Packing] = field(default_factory=dict)
    """Split -> how its documents fitted into rows, where they were packed."""
    stop_ids: Counter[int] = field(default_factory=Counter)
    """Id of the last trained token of a turn -> turns: what the model learns to stop with."""
    stops: dict[str, int] = field(default_factory=dict)
    """The same by the token's text."""

    def open(self, split: str, source: str) -> Account:
        """Return a new account for `source` in `split`."""
        account = Account(source)
        self.splits.setdefault(split, []).append(account)
        return account

    def accounts(self) -> Iterator[tuple[str, Account]]:
        """Yield (split, account) for every source."""
        for split, accounts in self.splits.items():
            yield from ((split, account) for account in accounts)

    def to_dict(self) -> dict[str, Any]:
        """Return the ledger as it is written to ``ledger.json``."""
        splits = {split: [account.to_dict() for account in accounts] for split, accounts in self.splits.items()}
        packed = {split: asdict(packing) for split, packing in self.packed.items()}
        mixed = [asdict(item) for item in self.mixed]
        facts = {"stops": self.stops, "preamble": self.preamble, "engine": self.engine}
        return {"splits": splits, "mixed": mixed, "packed": packed, **facts}

    def to_state(self) -> dict[str, Any]:
        """Return all that the ledger knows, as JSON can hold it; `from_state` reads it."""
        return {
            "splits": {split: [_state(account) for account in accounts] for split, accounts in self.splits.items()},
            "mixed": [asdict(item) for item in self.mixed],
            "engine": self.engine,
            "packed": {split: asdict(packing) for split, packing in self.packed.items()},
            "stop_ids": dict(self.stop_ids),
            "stops": self.stops,
            "preamble": self.preamble,
        }

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Ledger:
        """Return the ledger that `to_state` wrote. JSON has made texts of the numbers that were keys."""
        splits = {split: [_account(item) for item in accounts] for split, accounts in state["splits"].items()}
        return cls(
            splits=splits,
            mixed=[Mixed(**item) for item in state["mixed"]],
            engine=state["engine"],
            packed={split: Packing(**item) for split, item in state["packed"].items()},
            stop_ids=_numbered(state["stop_ids"]),
            stops=state["stops"],
            preamble=state["preamble"],
        )


def _state(account: Account) -> dict[str, Any]:
    state = {item.name: getattr(account, item.name) for item in fields(account)}
    state["processed"] = [asdict(step) for step in account.processed]
    return {**state, "groups": {key: groups.to_state() for key, groups in account.groups.items()}}


def _account(state: dict[str, Any]) -> Account:
    counters = {name: Counter(state[name]) for name in ("dropped", "noted", "filled", "unread_keys")}
    # The picture is of a row for which the run stops. What is read here was written by one that went on.
    texts: dict[str, Any] = {
        "unread": tuple(state["unread"]),
        "false": tuple(state["false"]),
        "said": tuple(state["said"]),
        "columns": tuple(state["columns"]),
        "picture": (),
    }
    texts["processed"] = [Processed(**step) for step in state["processed"]]
    texts["groups"] = {key: RowGroups.from_state(groups) for key, groups in state["groups"].items()}
    # JSON has no numbers as keys: {512: 3.0} comes back as {"512": 3.0}.
    lost_at = {int(length): lost for length, lost in state["lost_at"].items()}
    return Account(**{**state, **counters, **texts, "lengths": _numbered(state["lengths"]), "lost_at": lost_at})


def _numbered(counts: dict[str, int]) -> Counter[int]:
    return Counter({int(key): count for key, count in counts.items()})


def length_quantiles(lengths: Counter[int], longer: int = 0) -> dict[str, int]:
    """Return the lengths in tokens below which 50, 90, 99 and 100 % of the rows lie.

    `longer` rows are longer than all of them, nobody knows how long: what lies among them is left out.
    """
    total, seen, found = sum(lengths.values()) + longer, 0, {}
    wanted = {"50%": 0.5, "90%": 0.9, "99%": 0.99, "100%": 1.0}
    for length in sorted(lengths):
        seen += lengths[length]
        for name, share in wanted.items():
            if name not in found and seen >= share * total:
                found[name] = length
    return found
