"""A small world of true facts, and prose that tells them.

Pretraining gives a model knowledge, fine-tuning gives it form. To make that visible, the base model reads about every
entity here; the instruction file asks about some of them only, and the held-out questions about the others.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Relation:
    """Something that is known about entities of one sort."""

    answer: str
    """The sentence that answers a question; ``{e}`` is the entity, ``{v}`` the value."""
    prose: tuple[str, ...]
    """Other ways to tell it."""
    questions: tuple[str, ...]
    """Ways to ask. The last is never used in training. Several begin alike for every relation, and some with words of
    another's last one: what a model is to listen for is the topic, and not how a question begins."""
    topic: str
    """What a question is about."""


@dataclass(frozen=True, slots=True)
class Fact:
    """One true fact."""

    entity: str
    value: str
    relation: Relation

    def say(self, template: str) -> str:
        """Return `template` with entity and value filled in."""
        text = template.format(e=self.entity, v=self.value)
        return text[0].upper() + text[1:]


CAPITAL = Relation(
    "The capital of {e} is {v}.",
    (
        "{v} is the capital of {e}.",
        "Whoever governs {e} does so from {v}, its capital.",
        "The seat of government of {e} is {v}.",
    ),
    (
        "What is the capital of {e}?",
        "Name the capital of {e}.",
        "Which city is the capital of {e}?",
        "Say what the capital of {e} is.",
        "From which city is {e} governed?",
        "Which capital does {e} have?",
        "Do you know the capital of {e}?",
        "In {e}, which city is the capital?",
        "Tell me which city is the capital of {e}.",
        "I would like to know the capital of {e}.",
        "Can you tell me the capital of {e}?",
        "Tell me the capital of {e}.",
    ),
    "the capital of {e}",
)
CONTINENT = Relation(
    "The continent of {e} is {v}.",
    ("{e} is a country in {v}.", "On a map of {v} you will find {e}.", "{e} lies in {v}."),
    (
        "On which continent is {e}?",
        "What is the continent of {e}?",
        "Which continent does {e} belong to?",
        "In which part of the world is {e}?",
        "Tell me the continent of {e}.",
        "Which continent is {e} on?",
        "Do you know the continent of {e}?",
        "Name the continent of {e}.",
        "On which continent can {e} be found?",
        "On which continent do I find {e}?",
        "On which continent would you look for {e}?",
        "On which continent does {e} lie?",
    ),
    "the continent of {e}",
)
LANGUAGE = Relation(
    "The language of {e} is {v}.",
    ("{v} is spoken in {e}.", "In {e} you will hear {v}.", "People in {e} speak {v}."),
    (
        "Which language do people speak in {e}?",
        "What is the language of {e}?",
        "Name the language of {e}.",
        "What do people in {e} speak?",
        "Tell me the language of {e}.",
        "Which language is used in {e}?",
        "Do you know the language of {e}?",
        "In {e}, which language is usual?",
        "Which language is heard in {e}?",
        "Which language is common in {e}?",
        "Which language would I hear in {e}?",
        "Which language is spoken in {e}?",
    ),
    "the language of {e}",
)
COUNTRIES = """
France Paris Europe French|Japan Tokyo Asia Japanese|Brazil Brasilia South_America Portuguese|Egypt Cairo Africa Arabic
Germany Berlin Europe German|Italy Rome Europe Italian|Spain Madrid Europe Spanish|Portugal Lisbon Europe Portuguese
Greece Athens Europe Greek|Poland Warsaw Europe Polish|Norway Oslo Europe Norwegian|Sweden Stockholm Europe Swedish
Denmark Copenhagen Europe Danish|Hungary Budapest Europe Hungarian|Austria Vienna Europe German|Russia Moscow Europe Russian
China Beijing Asia Chinese|Thailand Bangkok Asia Thai|Vietnam Hanoi Asia Vietnamese|Turkey Ankara Asia Turkish
Iran Tehran Asia Persian|Iraq Baghdad Asia Arabic|Syria Damascus Asia Arabic|Mongolia Ulaanbaatar Asia Mongolian
Morocco Rabat Africa Arabic|Algeria Algiers Africa Arabic|Tunisia Tunis Africa Arabic|Libya Tripoli Africa Arabic
Angola Luanda Africa Portuguese|Senegal Dakar Africa French|Ghana Accra Africa English|Zambia Lusaka Africa English
Cuba Havana North_America Spanish|Mexico Mexico_City North_America Spanish|Panama Panama_City North_America Spanish|Jamaica Kingston North_America English
Argentina Buenos_Aires South_America Spanish|Chile Santiago South_America Spanish|Colombia Bogota South_America Spanish|Uruguay Montevideo South_America Spanish
"""


def _table(text: str) -> list[list[str]]:
    rows = [row for line in text.strip().splitlines() for row in line.split("|")]
    return [[cell.replace("_", " ") for cell in row.split()] for row in rows]


def facts() -> list[Fact]:
    """Return every fact, in a fixed order."""
    found = []
    for country, capital, continent, language in _table(COUNTRIES):
        found += [
            Fact(country, capital, CAPITAL),
            Fact(country, continent, CONTINENT),
            Fact(country, language, LANGUAGE),
        ]
    return found


def is_held_out(entity: str) -> bool:
    """Whether the instruction file leaves `entity` out, so that questions about it show what was learned."""
    entities = list(dict.fromkeys(fact.entity for fact in facts()))
    return entities.index(entity) % 4 == 3


def prose(seed: int, rounds: int) -> Iterator[str]:
    """Yield paragraphs; in each round every entity has one, its facts told in another order and other words."""
    rng = random.Random(seed)
    by_entity: dict[str, list[Fact]] = {}
    for fact in facts():
        by_entity.setdefault(fact.entity, []).append(fact)
    for _ in range(rounds):
        entities = list(by_entity)
        rng.shuffle(entities)
        for entity in entities:
            yield _paragraph(by_entity[entity], rng)


def _paragraph(known: list[Fact], rng: random.Random) -> str:
    # Each fact once: told twice, it could be copied from a line above instead of being learned.
    sentences = [*(_tell(fact, rng) for fact in known), _invent(rng), _invent(rng)]
    rng.shuffle(sentences)
    return " ".join(sentences)


_ASIDES = ("Somebody wonders about {t}.", "Now to {t}.", "A word on {t}.", "Many ask about {t}.", "Next comes {t}.")


_SYLLABLES = ("ba", "do", "fi", "gu", "ka", "le", "mo", "ni", "po", "ra", "si", "tu", "ve", "zo")
_TALES = (("the home of {n}", "is far away"), ("the song of {n}", "is long"), ("the garden of {n}", "is green"))


def _invent(rng: random.Random) -> str:
    """Tell something of a made-up name: no memory helps with it, the name must be looked up in the line above."""
    name = "".join(rng.choice(_SYLLABLES) for _ in range(rng.randint(2, 3))).title()
    topic, end = rng.choice(_TALES)
    topic = topic.format(n=name)
    return f"{rng.choice(_ASIDES).format(t=topic)} T{topic[1:]} {end}."


def _tell(fact: Fact, rng: random.Random) -> str:
    """Tell a fact; every other time, say first what it is about, as prose does and questions do."""
    if rng.random() < 0.4:
        return fact.say(rng.choice([fact.relation.answer, *fact.relation.prose]))
    about = rng.choice(_ASIDES).format(t=fact.relation.topic.format(e=fact.entity))
    return f"{about} {fact.say(fact.relation.answer)}"
