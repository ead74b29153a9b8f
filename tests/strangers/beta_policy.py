from sftplug import ChatTemplate, Policy, hookimpl

TEMPLATE = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
ASK = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"


class HouseTemplate(ChatTemplate):
    type: str = "beta_turns"

    def source(self, tokenizer):
        return TEMPLATE + ASK


class Licensed(Policy):
    """Nobody trains on rows of which nobody says how they are licensed."""

    type: str = "beta_licensed"

    def problems(self, recipe, command):
        if command in ("train", "push"):
            for index, source in enumerate(recipe.data.train):
                if "licence" not in source.meta:
                    yield f"`data.train[{index}]` needs a licence: `meta: {{licence: …}}`"


@hookimpl
def sftplug_chat_templates():
    return [HouseTemplate]


@hookimpl
def sftplug_policies():
    return [Licensed]
