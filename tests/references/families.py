"""Fifteen families. A template comes from the installed TRL by name, or stands here in the family's format."""

from references import Messages, Page, Reference

FAMILIES: dict[str, tuple[str, Reference]] = {}
"""Family -> (file of TRL's templates, or Jinja source; reference)."""


def family(name, template):
    def register(reference):
        FAMILIES[name] = (template, reference)
        return reference

    return register


def _roles(messages: Messages):
    return [(message["role"], message["content"]) for message in messages]


@family("qwen2.5", "qwen2_5")
def qwen2_5(messages):
    """ChatML. The prompt ends `assistant\\n`; the stop is `<|im_end|>`; a default system prompt is injected."""
    page = Page()
    if messages[0]["role"] != "system":
        page.say("<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n")
    for role, content in _roles(messages):
        page.say(f"<|im_start|>{role}\n")
        page.train(f"{content}<|im_end|>") if role == "assistant" else page.say(f"{content}<|im_end|>")
        page.say("\n")
    return page


@family("qwen3", "qwen3")
def qwen3(messages):
    """As ChatML; the turns after the last question open with a think block that the prompt does not hold: trained."""
    page, last = Page(), max(index for index, message in enumerate(messages) if message["role"] == "user")
    for index, (role, content) in enumerate(_roles(messages)):
        page.say(f"<|im_start|>{role}\n")
        if role != "assistant":
            page.say(f"{content}<|im_end|>")
        else:
            thought = "<think>\n\n</think>\n\n" if index > last else ""
            page.train(thought + content.lstrip("\n") * bool(thought) + content * (not thought) + "<|im_end|>")
        page.say("\n")
    return page


@family("llama3", "llama3")
def llama3(messages):
    """Contents are trimmed; the stop is `<|eot_id|>`, with no white space after it."""
    page = Page("<s>")
    for role, content in _roles(messages):
        page.say(f"<|start_header_id|>{role}<|end_header_id|>\n\n")
        reply = content.strip() + "<|eot_id|>"
        page.train(reply) if role == "assistant" else page.say(reply)
    return page


@family("gemma", "gemma")
def gemma(messages):
    """The assistant is called model; `<end_of_turn>` is the stop and the line break after it is not."""
    if messages[0]["role"] == "system":
        return None
    page = Page("<s>")
    for role, content in _roles(messages):
        page.say(f"<start_of_turn>{'model' if role == 'assistant' else role}\n")
        reply = content.strip() + "<end_of_turn>"
        page.train(reply) if role == "assistant" else page.say(reply)
        page.say("\n")
    return page


@family("phi3", "phi3")
def phi3(messages):
    """`<|end|>` is the stop; the `</s>` after the last turn ends the document, not the turn."""
    page = Page()
    for role, content in _roles(messages):
        page.say(f"<|{role}|>\n")
        page.train(f"{content}<|end|>") if role == "assistant" else page.say(f"{content}<|end|>")
        page.say("\n")
    return page.say("</s>")


@family("deepseek-v3", "deepseekv3")
def deepseek_v3(messages):
    """No line breaks; system prompts come first, without a tag."""
    page = Page("<s>" + "".join(content for role, content in _roles(messages) if role == "system"))
    for role, content in _roles(messages):
        if role == "user":
            page.say(f"<｜User｜>{content}")
        if role == "assistant":
            page.say("<｜Assistant｜>").train(f"{content}<｜end▁of▁sentence｜>")
    return page


@family("cohere", "cohere")
def cohere(messages):
    """The stop is `<|END_OF_TURN_TOKEN|>`; contents are trimmed."""
    page = Page("<s>")
    names = {"system": "SYSTEM", "user": "USER", "assistant": "CHATBOT"}
    for role, content in _roles(messages):
        page.say(f"<|START_OF_TURN_TOKEN|><|{names[role]}_TOKEN|>")
        reply = content.strip() + "<|END_OF_TURN_TOKEN|>"
        page.train(reply) if role == "assistant" else page.say(reply)
    return page


@family("glm-4.5", "glm4moe")
def glm4(messages):
    """The next message's `<|user|>` is the stop; the last turn has none. The empty thought is the model's to write."""
    page = Page("[gMASK]<sop>")
    turns = _roles(messages)
    for index, (role, content) in enumerate(turns):
        if role != "assistant":
            opened = index > 0 and turns[index - 1][0] == "assistant"
            page.say(f"\n{content}" if opened else f"<|{role}|>\n{content}")
            continue
        stop = f"<|{turns[index + 1][0]}|>" if index + 1 < len(turns) else ""
        said = f"\n{content.strip()}" if content.strip() else ""
        page.say("<|assistant|>").train(f"\n<think></think>{said}{stop}")
    return page


@family(
    "llama2",
    "{% for m in messages %}{% if m.role == 'user' %}{{ bos_token + '[INST] ' + m.content + ' [/INST]' }}"
    "{% elif m.role == 'assistant' %}{{ ' ' + m.content + ' ' + eos_token }}{% else %}"
    "{{ raise_exception('no system') }}{% endif %}{% endfor %}",
)
def llama2(messages):
    """No generation prompt: the reply begins right after `[/INST]`, and the space before it is the model's."""
    if messages[0]["role"] == "system":
        return None
    page = Page()
    for role, content in _roles(messages):
        page.train(f" {content} </s>") if role == "assistant" else page.say(f"<s>[INST] {content} [/INST]")
    return page


@family(
    "mistral",
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }}[/INST]"
    "{% elif m.role == 'assistant' %} {{ m.content }}{{ eos_token }}{% else %}[SYSTEM_PROMPT]{{ m.content }}"
    "[/SYSTEM_PROMPT]{% endif %}{% endfor %}",
)
def mistral(messages):
    """As Llama 2, with one BOS and a system prompt of its own."""
    page = Page("<s>")
    for role, content in _roles(messages):
        if role == "assistant":
            page.train(f" {content}</s>")
        else:
            page.say(f"[INST] {content}[/INST]" if role == "user" else f"[SYSTEM_PROMPT]{content}[/SYSTEM_PROMPT]")
    return page


@family(
    "zephyr",
    "{% for m in messages %}{{ '<|' + m.role + '|>\n' + m.content + eos_token + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}",
)
def zephyr(messages):
    """EOS ends every turn; the line break after it is not trained."""
    page = Page()
    for role, content in _roles(messages):
        page.say(f"<|{role}|>\n")
        page.train(f"{content}</s>") if role == "assistant" else page.say(f"{content}</s>")
        page.say("\n")
    return page


@family(
    "vicuna",
    "{% for m in messages %}{% if m.role == 'system' %}{{ m.content }} {% elif m.role == 'user' %}USER: {{ m.content }} "
    "{% else %}ASSISTANT: {{ m.content }}</s>{% endif %}{% endfor %}{% if add_generation_prompt %}ASSISTANT:{% endif %}",
)
def vicuna(messages):
    """The prompt ends `ASSISTANT:`, so the space after it is the model's."""
    page = Page()
    for role, content in _roles(messages):
        if role == "assistant":
            page.say("ASSISTANT:").train(f" {content}</s>")
        else:
            page.say(f"{content} " if role == "system" else f"USER: {content} ")
    return page


@family(
    "alpaca",
    "{% for m in messages %}{% if m.role == 'system' %}{{ m.content }}\n\n{% elif m.role == 'user' %}### Instruction:\n"
    "{{ m.content }}\n\n{% else %}### Response:\n{{ m.content }}{{ eos_token }}\n\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}### Response:\n{% endif %}",
)
def alpaca(messages):
    """Headers are words; EOS is the stop."""
    page = Page()
    for role, content in _roles(messages):
        if role == "assistant":
            page.say("### Response:\n").train(f"{content}</s>").say("\n\n")
        else:
            page.say(f"{content}\n\n" if role == "system" else f"### Instruction:\n{content}\n\n")
    return page


@family(
    "granite",
    "{% for m in messages %}<|start_of_role|>{{ m.role }}<|end_of_role|>{{ m.content }}<|end_of_text|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|start_of_role|>assistant<|end_of_role|>{% endif %}",
)
def granite(messages):
    """The header has no line break; `<|end_of_text|>` ends a turn."""
    page = Page()
    for role, content in _roles(messages):
        page.say(f"<|start_of_role|>{role}<|end_of_role|>")
        page.train(f"{content}<|end_of_text|>") if role == "assistant" else page.say(f"{content}<|end_of_text|>")
        page.say("\n")
    return page


@family(
    "thinking prompt",
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}",
)
def thinking_prompt(messages):
    """The prompt opens a thought that the history lacks: the span begins where both still agree."""
    page = Page()
    for role, content in _roles(messages):
        page.say(f"<|im_start|>{role}\n")
        page.train(f"{content}<|im_end|>") if role == "assistant" else page.say(f"{content}<|im_end|>")
        page.say("\n")
    return page
