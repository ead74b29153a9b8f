from sftplug.testing import assistant_spans, check_template

from frozen_template import FrozenTemplate

MESSAGES = [{"role": "user", "content": "One?"}, {"role": "assistant", "content": "Two."}]


def test_it_keeps_the_laws_of_chat_templates() -> None:
    check_template(FrozenTemplate)


def test_what_is_rendered_and_what_of_it_is_trained() -> None:
    text, spans = assistant_spans(FrozenTemplate().source(None), MESSAGES, eos_token="</s>")
    assert text == "<|user|>\nOne?</s>\n<|assistant|>\nTwo.</s>\n"
    assert [text[start:end] for start, end in spans] == ["Two.</s>"]
