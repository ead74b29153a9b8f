from sftplug import Adapter, hookimpl, require

LOADING = """from safetensors.torch import load_file
trained = load_file(files / "adapter.safetensors")
for name in {name.rpartition(".")[0] for name in trained}:
    parts = [trained[f"{name}.{part}"].to(model.device) for part in ("scale", "shift")]
    model.get_submodule(name).register_forward_hook(lambda _, x, y, parts=parts: y * parts[0] + parts[1])"""


class Scale(Adapter):
    """Multiply and shift what the linear layers of a Llama put out."""

    type: str = "acme_scale"

    def peft_config(self):
        return None

    def prepare_model(self, model):
        nn = require("torch", needed_by=self.type).nn
        for module in [part for part in model.requires_grad_(False).model.modules() if isinstance(part, nn.Linear)]:
            module.scale = nn.Parameter(module.weight.new_ones(module.out_features).float())
            module.shift = nn.Parameter(module.weight.new_zeros(module.out_features).float())
            module.register_forward_hook(lambda module, x, y: y * module.scale + module.shift)

    def loading_code(self):
        return LOADING

    def merge(self, model):
        model.config.attention_bias = model.config.mlp_bias = True
        for module in [part for part in model.modules() if hasattr(part, "shift")]:
            module.weight.data *= module.scale[:, None]
            module.bias = module.shift.requires_grad_(False)
            del module.scale, module.shift, module._forward_hooks[next(iter(module._forward_hooks))]
        return model


@hookimpl
def sftplug_adapters():
    return [Scale]
