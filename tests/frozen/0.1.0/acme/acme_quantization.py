from sftplug import Quantization, hookimpl, require


class Int8Attention(Quantization):
    type: str = "int8_attention"
    bits, keeps_inputs = 8, True

    def load_kwargs(self):
        config = require("transformers", needed_by=self.type).BitsAndBytesConfig
        return {"quantization_config": config(load_in_8bit=True, llm_int8_skip_modules=[".*mlp", "lm_head"])}


@hookimpl
def sftplug_quantizations():
    return [Int8Attention]
