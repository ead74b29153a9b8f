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
    """Ways to ask. The last is never used in training."""
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
        "Tell me the capital of {e}.",
    ),
    "the capital of {e}",
)
CONTINENT = Relation(
    "{e} lies in {v}.",
    ("{e} is a country in {v}.", "On a map of {v} you will find {e}.", "To visit {e}, travel to {v}."),
    (
        "On which continent is {e}?",
        "Where in the world is {e}?",
        "Which continent does {e} belong to?",
        "On which continent does {e} lie?",
    ),
    "the continent of {e}",
)
LANGUAGE = Relation(
    "People in {e} speak {v}.",
    ("{v} is spoken in {e}.", "In {e} you will hear {v}.", "The language of {e} is {v}."),
    (
        "Which language do people speak in {e}?",
        "What is spoken in {e}?",
        "Name the language of {e}.",
        "Which language is spoken in {e}?",
    ),
    "the language of {e}",
)
YOUNG = Relation(
    "A young {e} is called a {v}.",
    ("A {v} is a young {e}.", "Every grown {e} was once a {v}.", "The child of a {e} is a {v}."),
    (
        "What is a young {e} called?",
        "What do you call the young of a {e}?",
        "Name the young of a {e}.",
        "What is the young of a {e} called?",
    ),
    "the young of the {e}",
)
KIND = Relation(
    "A {e} is a kind of {v}.",
    ("Among animals, the {e} is a {v} by birth.", "The {e} belongs to the {v}s.", "Every {e} is a kind of {v}."),
    (
        "What kind of animal is a {e}?",
        "What sort of animal is the {e}?",
        "Which group of animals does the {e} belong to?",
        "What kind of animal is the {e}?",
    ),
    "the kind of animal that the {e} is",
)
SYMBOL = Relation(
    "The symbol of {e} is {v}.",
    ("Chemists write {v} for {e}.", "{v} stands for {e}.", "In formulas, {e} is {v}."),
    (
        "What is the symbol of {e}?",
        "Which symbol does {e} have?",
        "How do chemists write {e}?",
        "Tell me the symbol of {e}.",
    ),
    "the symbol of {e}",
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
ANIMALS = """
dog puppy mammal|cat kitten mammal|cow calf mammal|horse foal mammal|sheep lamb mammal|goat kid mammal|pig piglet mammal
lion cub mammal|deer fawn mammal|kangaroo joey mammal|duck duckling bird|goose gosling bird|swan cygnet bird
hen chick bird|frog tadpole amphibian|toad tadpole amphibian|seal pup mammal|wolf pup mammal|bear cub mammal|hare leveret mammal
"""
ELEMENTS = """
hydrogen H|helium He|carbon C|nitrogen N|oxygen O|sodium Na|sulfur S|iron Fe|copper Cu|zinc Zn|silver Ag|tin Sn
gold Au|lead Pb|iodine I|neon Ne|calcium Ca|nickel Ni|mercury Hg|potassium K
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
    for animal, young, kind in _table(ANIMALS):
        found += [Fact(animal, young, YOUNG), Fact(animal, kind, KIND)]
    return found + [Fact(element, symbol, SYMBOL) for element, symbol in _table(ELEMENTS)]


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
    sentences = [_tell(fact, rng) for fact in known]
    rng.shuffle(sentences)
    return " ".join(sentences)


_ASIDES = ("Somebody wonders about {t}.", "Now to {t}.", "A word on {t}.", "Many ask about {t}.", "Next comes {t}.")


def _tell(fact: Fact, rng: random.Random) -> str:
    """Tell a fact; every other time, say first what it is about, as prose does and questions do."""
    if rng.random() < 0.5:
        return fact.say(rng.choice([fact.relation.answer, *fact.relation.prose]))
    about = rng.choice(_ASIDES).format(t=fact.relation.topic.format(e=fact.entity))
    return f"{about} {fact.say(fact.relation.answer)}"
