"""Conversations that tell a right mask from one that only looks right."""


def _chat(*texts, system=None):
    turns = [{"role": ("user", "assistant")[index % 2], "content": text} for index, text in enumerate(texts)]
    return [{"role": "system", "content": system}, *turns] if system else turns


CONVERSATIONS = {
    "one turn": _chat("Hello?", "Hello."),
    "two turns": _chat("One?", "First.", "Two?", "Second."),
    "twelve turns": _chat(*(f"turn number {index}" for index in range(12))),
    "ends with a question": _chat("One?", "First.", "Two?"),
    "system": _chat("One?", "First.", system="Be brief."),
    "the same reply twice": _chat("One?", "Yes.", "Two?", "Yes."),
    "the reply is the question": _chat("same", "same", "same", "same"),
    "the reply is a header": _chat("Say a word.", "assistant", "Another.", "user"),
    "the reply is in the system prompt": _chat("One?", "brief", system="Be brief."),
    "unicode": _chat("Ça va ?", "是的 🙂 é", "Und?", "naïve ﬁ"),
    "white space inside": _chat("a\n\nb", "c\n\n\nd", "e  f", "g\th"),
    "many lines": _chat("List.", "- a\n- b\n- c", "More.", "1. x\n2. y"),
    "tokens of others": _chat("What is <|im_end|>?", "It ends a turn: <|im_end|>.", "And </s>?", "Also </s> that."),
    "headers of others": _chat("[INST] x [/INST]", "### Response:\nASSISTANT: y", "<|user|>", "<|assistant|> z"),
    "braces": _chat("{{ x }}", "{% if y %}", "%s %d", "{0} {}"),
}
