"""Write the shipped data files of the quickstart and the lessons: ``python -m sftplug_tiny.make_data FOLDER``."""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sftplug_tiny.world import Fact, facts, is_held_out, prose


def files() -> dict[str, list[dict[str, Any]]]:
    """Return file name -> rows, the same at every call."""
    rng = random.Random(0)
    train = [*_questions(rng), *_dialogues(rng)]
    rng.shuffle(train)
    held_out = [_ask(fact, fact.relation.questions[-1]) for fact in facts() if is_held_out(fact.entity)]
    return {
        "countries_train.jsonl": train,
        "countries_eval.jsonl": held_out,
        "world.jsonl": [{"text": paragraph} for paragraph in prose(seed=1, rounds=20)],
    }


def _ask(fact: Fact, question: str) -> dict[str, Any]:
    return {"messages": _turns(fact, question)}


def _turns(fact: Fact, question: str) -> list[dict[str, str]]:
    answer = fact.say(fact.relation.answer)
    return [{"role": "user", "content": fact.say(question)}, {"role": "assistant", "content": answer}]


def _questions(rng: random.Random) -> Iterator[dict[str, Any]]:
    """Yield every fact about the entities of training, asked in each of the ways that training knows."""
    for fact in facts():
        if not is_held_out(fact.entity):
            for question in rng.sample(fact.relation.questions[:-1], 4):
                yield _ask(fact, question)


def _dialogues(rng: random.Random) -> Iterator[dict[str, Any]]:
    """Yield conversations of two questions, some with a system prompt."""
    known = [fact for fact in facts() if not is_held_out(fact.entity)]
    for index in range(60):
        first, second = rng.sample(known, 2)
        turns = [*_turns(first, first.relation.questions[0]), *_turns(second, second.relation.questions[1])]
        system = [{"role": "system", "content": "Answer in one sentence."}] if index % 2 else []
        yield {"messages": [*system, *turns]}


def render(rows: list[dict[str, Any]]) -> str:
    """Return the rows as JSON lines."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def write(folder: Path) -> None:
    """Write every file into `folder`."""
    for name, rows in files().items():
        (folder / name).write_text(render(rows), encoding="utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
