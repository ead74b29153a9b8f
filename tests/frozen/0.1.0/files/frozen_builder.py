from pathlib import Path
from typing import Literal

from sftplug import Field, ModelBuilder, hookimpl, require


class FrozenBuilder(ModelBuilder):
    """A GPT-2 with random weights, whose tokens are single characters."""

    type: Literal["frozen_builder"] = "frozen_builder"
    width: int = Field(32, gt=0, multiple_of=4)
    """Width of the model."""

    def build(self, directory: Path) -> None:
        tokenizers, transformers = (require(name, needed_by=self.type) for name in ("tokenizers", "transformers"))
        letters = tokenizers.pre_tokenizers.ByteLevel.alphabet()
        names = ["<|end|>", "<|pad|>", "<|im_start|>", "<|im_end|>", *sorted(letters)]
        model = tokenizers.models.BPE({name: index for index, name in enumerate(names)}, [])
        made = tokenizers.Tokenizer(model)
        made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
        made.decoder = tokenizers.decoders.ByteLevel()
        tokenizer = transformers.PreTrainedTokenizerFast(
            tokenizer_object=made, eos_token="<|end|>", pad_token="<|pad|>", extra_special_tokens=names[2:4]
        )
        ids = {"bos_token_id": None, "eos_token_id": 0, "pad_token_id": 1}
        config = transformers.GPT2Config(vocab_size=len(names), n_embd=self.width, n_layer=1, n_head=2, **ids)
        transformers.GPT2LMHeadModel(config).save_pretrained(directory)
        tokenizer.save_pretrained(directory)


@hookimpl
def sftplug_model_builders() -> list[type[ModelBuilder]]:
    return [FrozenBuilder]
