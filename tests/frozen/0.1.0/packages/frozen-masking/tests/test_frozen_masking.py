from sftplug import Conversation, Message
from sftplug.testing import check_masking, token_batch

from frozen_masking import FrozenMasking


def test_it_keeps_the_laws_of_masking_strategies() -> None:
    check_masking(FrozenMasking, weight=2.5)


def test_numbers_weigh_more_and_only_the_assistant_is_trained() -> None:
    tokens = token_batch([Conversation((Message("user", "6 times 7"), Message("assistant", "It is 42.")))])
    weights = FrozenMasking(weight=3.0).weights(tokens)
    words = [tokens.texts[0][start:end] for start, end in zip(tokens.start, tokens.end, strict=True)]
    trained = [(word, weight) for word, weight in zip(words, weights, strict=True) if weight and word.strip()]
    assert trained[:4] == [("It", 1.0), ("is", 1.0), ("42", 3.0), (".", 1.0)]
    assert "6" not in [word for word, _ in trained]
