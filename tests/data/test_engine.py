"""Both engines give the tokenizer's own ids, and tokens cover the characters that they spell."""

import json
import unicodedata
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from sftplug import ModelError
from sftplug.data.engine import Encoders, TokenizersEngine
from sftplug.data.engine.bpe import ADVERSARIAL, agrees, agrees_on_vocabulary, tiktoken_engine
from sftplug.data.engine.token_bytes import spelling_of

QWEN = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
CORPUS = [
    "The quick brown fox's 12 tails.",
    "naïve café 漢字かな 🙂 e\u0301",
    "def f(x):\n\treturn x\n",
    "It's 2024!",
] * 20
SPECIAL = ["<|end|>", "<|start|>"]


def byte_level(split=QWEN, nfc=False):
    tokenizer = Tokenizer(models.BPE())
    bytes_ = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=split is None)
    if split is None:
        tokenizer.pre_tokenizer = bytes_
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(split), "isolated"), bytes_])
    tokenizer.normalizer = normalizers.NFC() if nfc else None
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


def byte_fallback():
    """A tokenizer in the manner of Llama 2 and Gemma: spaces are ▁, unknown characters are bytes."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    special = ["<unk>", *SPECIAL, *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=500, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


TOKENIZERS = {
    "qwen": byte_level(),
    "qwen, composed": byte_level(nfc=True),
    "gpt2": byte_level(split=None),
    "byte fallback": byte_fallback(),
}
BYTE_LEVEL = [name for name in TOKENIZERS if name != "byte fallback"]
TEXT = st.text(st.one_of(st.characters(exclude_categories=["Cs"]), st.sampled_from(" \n'a1é漢🙂")), max_size=30)
TEXTS = st.lists(st.one_of(TEXT, st.sampled_from([*SPECIAL, *ADVERSARIAL])), min_size=1, max_size=5)


def state(name):
    return json.loads(TOKENIZERS[name].to_str())


def offsets(name, texts):
    return TokenizersEngine(TOKENIZERS[name]).with_offsets(texts)


@pytest.mark.parametrize("name", TOKENIZERS)
@given(texts=TEXTS)
def test_tokens_cover_what_the_tokenizer_says_they_cover(name, texts):
    ours = Encoders(TokenizersEngine(TOKENIZERS[name])).encode(texts)
    theirs = offsets(name, texts)
    assert ours.ids.tolist() == theirs.ids.tolist()
    assert ours.counts.tolist() == theirs.counts.tolist()
    for at, (low, high) in enumerate(zip(ours.bounds(), ours.bounds()[1:], strict=False)):
        if unicodedata.normalize("NFC", texts[at]) == texts[at]:
            covered = np.zeros(len(texts[at]), dtype=bool)
            for start, end in zip(ours.start[low:high], ours.end[low:high], strict=True):
                assert 0 <= start < end <= len(texts[at])
                covered[start:end] = True
            assert covered.all()


@pytest.mark.parametrize("name", BYTE_LEVEL)
@given(texts=TEXTS)
def test_tiktoken_gives_the_same_ids_and_places(name, texts):
    fast = tiktoken_engine(state(name))
    slow = TokenizersEngine(TOKENIZERS[name])
    assert [ids.tolist() for ids in fast.ids(texts)] == [ids.tolist() for ids in slow.ids(texts)]
    both = [Encoders(slow, engine=engine, spelling=None) for engine in (slow, fast)]
    for encoders, engine in zip(both, (slow, fast), strict=True):
        encoders.engine, encoders.chosen = engine, True
    one, other = (encoders.encode(texts) for encoders in both)
    assert one.start.tolist() == other.start.tolist()
    assert one.end.tolist() == other.end.tolist()


@pytest.mark.parametrize("name", BYTE_LEVEL)
def test_the_engines_agree_on_the_adversarial_strings_and_the_whole_vocabulary(name):
    fast, slow = tiktoken_engine(state(name)), TokenizersEngine(TOKENIZERS[name])
    assert len(ADVERSARIAL) > 40
    assert agrees(fast, [*ADVERSARIAL, *CORPUS], slow.ids([*ADVERSARIAL, *CORPUS]))
    assert agrees_on_vocabulary(fast, slow)


def test_tiktoken_is_chosen_once_a_thousand_rows_are_seen():
    few, many = (Encoders(TokenizersEngine(TOKENIZERS["qwen"])) for _ in range(2))
    few.encode(["text"] * 999)
    first = many.encode(["text"] * 500)
    assert (few.name, many.name) == ("tokenizers", "tokenizers")
    second = many.encode(["text"] * 500)
    assert many.name == "tiktoken"
    assert all(map(np.array_equal, first, second))


def test_batches_encoded_in_several_threads_get_the_ids_of_one():
    alone, shared = (Encoders(TokenizersEngine(TOKENIZERS["qwen"])) for _ in range(2))
    batches = [[f"{number} {text}" for text in CORPUS for _ in range(20)] for number in range(12)]
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(shared.encode, batches))
    for batch, encoded in zip(batches, found, strict=True):
        assert all(map(np.array_equal, alone.encode(batch), encoded))
    assert shared.name == "tiktoken"


def test_tiktoken_that_gives_other_ids_is_not_used(monkeypatch):
    encoders = Encoders(TokenizersEngine(TOKENIZERS["qwen"]))
    monkeypatch.setattr("sftplug.data.engine.choose.agrees", lambda *_: False)
    encoders.encode(["text"] * 1000)
    assert encoders.name == "tokenizers"
    wanted = Encoders(TokenizersEngine(TOKENIZERS["qwen"]), wanted="tiktoken")
    with pytest.raises(
        ModelError, match=r"data\.engine: tiktoken cannot stand in for this tokenizer: it gives other ids"
    ):
        wanted.encode(["text"])


def test_a_tokenizer_that_tiktoken_cannot_run_is_refused_when_it_is_demanded():
    wanted = Encoders(TokenizersEngine(TOKENIZERS["byte fallback"]), wanted="tiktoken")
    with pytest.raises(ModelError, match=r"it runs only plain byte-level BPE\. Leave it to `auto`"):
        wanted.encode(["text"])


def test_the_proof_for_a_vocabulary_is_made_once(tmp_path, monkeypatch):
    asked = []
    prove = agrees_on_vocabulary
    monkeypatch.setattr(
        "sftplug.data.engine.choose.agrees_on_vocabulary", lambda *both: asked.append(1) or prove(*both)
    )
    for _ in range(2):
        encoders = Encoders(TokenizersEngine(TOKENIZERS["qwen"]), proofs=tmp_path / "engines")
        encoders.encode(["text"] * 1000)
        assert encoders.name == "tiktoken"
    assert len(asked) == 1


def test_a_text_that_holds_what_parts_texts_is_encoded_alone():
    fast, slow = tiktoken_engine(state("qwen")), TokenizersEngine(TOKENIZERS["qwen"])
    texts = ["a", "b \ue000sftplug\ue000 c", "d"]
    ours, theirs = fast.ids(texts), slow.ids(texts)
    assert [ids.tolist() for ids in ours] == [ids.tolist() for ids in theirs]


@pytest.mark.parametrize("name", TOKENIZERS)
def test_every_token_has_bytes(name):
    spelling = spelling_of(state(name))
    assert len(spelling.length) == TOKENIZERS[name].get_vocab_size()
    assert spelling.length.sum() == len(spelling.table)


def test_both_engines_prepare_the_same_rows(recipe_file, prepared):
    file = recipe_file()
    one, other = prepared(file, "data.engine=tokenizers"), prepared(file, "data.engine=tiktoken")
    assert one.train.to_dict() == other.train.to_dict()
    assert (one.ledger.engine, other.ledger.engine) == ("tokenizers", "tiktoken")


def test_a_vocabulary_of_another_alphabet_stays_with_its_own_engine():
    other = state("qwen")
    other["model"]["vocab"]["\u4e2d\u4e2d"] = len(other["model"]["vocab"]) + 1000
    other["model"]["merges"].append(["\u4e2d", "\u4e2d"])
    assert tiktoken_engine(other) is None
    assert spelling_of(other).length[other["model"]["vocab"]["\u4e2d\u4e2d"]] == 0
