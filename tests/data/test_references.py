"""The implementation against references written by hand, without Jinja, for fifteen families."""

from pathlib import Path

import pytest
import trl
from references.conversations import CONVERSATIONS
from references.families import FAMILIES
from transformers.utils.chat_template_utils import render_jinja_template

from sftplug import MaskError
from sftplug.testing import assistant_spans

KWARGS = {"bos_token": "<s>", "eos_token": "</s>"}
PAIRS = [(family, name) for family in FAMILIES for name in CONVERSATIONS]


def source(template):
    file = Path(trl.__file__).parent / "chat_templates" / f"{template}.jinja"
    return template if "{" in template else file.read_text()


@pytest.mark.parametrize(("family", "name"), PAIRS)
def test_spans_are_those_of_the_reference(family, name):
    template, reference = FAMILIES[family]
    messages = CONVERSATIONS[name]
    page = reference(messages)
    if page is None:
        with pytest.raises(MaskError):
            assistant_spans(source(template), messages, **KWARGS)
        return
    (text,), _ = render_jinja_template([messages], chat_template=source(template), **KWARGS)
    assert text == page.text, "the reference itself is wrong"
    found = assistant_spans(source(template), messages, **KWARGS)
    trained = [text[start:end] for start, end in found[1]]
    assert trained == [page.text[start:end] for start, end in page.spans]
    assert found == (page.text, page.spans)


def test_enough_was_compared():
    assert len(FAMILIES) >= 15
    assert len(PAIRS) >= 200
