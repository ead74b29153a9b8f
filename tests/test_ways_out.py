"""Advice is true: every way out that an error offers is gone, word for word, and leads out."""

from pathlib import Path

import pytest
import torch
from test_launch import needs_deepspeed
from ways_out import for_data, for_models, for_optimization, for_plugins, for_recipes, for_rows, for_runs
from ways_out.advice import all_advice, all_texts
from ways_out.cases import go
from ways_out.elsewhere import CANNOT, FOLLOWED, FOLLOWED_FILES, NO_ADVICE

has_muon = pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="torch has Muon from 2.9 on")
CASES = [
    *for_recipes.CASES,
    *for_optimization.CASES,
    *for_data.CASES,
    *for_rows.CASES,
    *for_models.CASES,
    *for_plugins.CASES,
    *for_runs.CASES,
]
WAYS = [(case, phrase) for case in CASES for phrase in case.ways]


def way(case, phrase):
    """DeepSpeed builds a part of itself when it is tried: where there is no compiler, that way leads nowhere."""
    marks = [needs_deepspeed] if "zero2" in phrase else [has_muon] if "adamw_learning_rate" in phrase else []
    return pytest.param(case, phrase, marks=marks, id=f"{case.says[:40]} / {phrase[:40]}")


@pytest.mark.parametrize(("case", "phrase"), [way(case, phrase) for case, phrase in WAYS])
def test_a_way_out_leads_out(case, phrase, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    go(case, phrase, tmp_path)


def test_every_way_out_is_gone():
    """A new error that tells what to do needs a case here, or a reason why it can't be followed on this machine."""
    advice = all_advice()
    assert len(advice) > 100
    tried = [case.says for case in CASES] + [*FOLLOWED, *CANNOT, *NO_ADVICE]
    apart = [item for item in advice if item.place.rpartition(":")[0] not in FOLLOWED_FILES]
    left = [f"{item.place}: {item.text}" for item in apart if not any(says in item.text for says in tried)]
    assert not left, "\n".join(left)


def test_no_case_outlives_its_error():
    texts = [item.text for item in all_texts()]
    known = [*(case.says for case in CASES), *FOLLOWED, *CANNOT, *NO_ADVICE]
    assert not [says for says in known if not any(says in text for text in texts)]


def test_the_tests_that_follow_advice_elsewhere_are_there():
    written = "\n".join(file.read_text(encoding="utf-8") for file in Path(__file__).parent.rglob("test_*.py"))
    assert not [name for name in {*FOLLOWED.values(), *FOLLOWED_FILES.values()} if f"def {name}(" not in written]
