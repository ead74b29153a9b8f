from sftplug import Quantization, hookimpl, require

CODE = """import torch
for part in [part for part in model.modules() if isinstance(part, torch.nn.Linear)]:
    if part is not model.get_output_embeddings():
        scale = part.weight.data.abs().amax(1, keepdim=True).clamp(min=1e-12) / 31
        part.weight.data = (part.weight.data / scale).round() * scale"""


class Grid6(Quantization):
    """Linear layers on a grid of 63 levels, one scale a row; held as the floats that these are."""

    type: str = "beta_grid6"
    bits = 6

    def load_kwargs(self):
        return {"dtype": require("torch", needed_by=self.type).float32}

    def quantized(self, model):
        return frozenset()  # the levels take as many bytes as floats do

    def prepare_model(self, model):
        exec(CODE, {"model": model})

    def loading_code(self):
        return CODE


@hookimpl
def sftplug_quantizations():
    return [Grid6]
