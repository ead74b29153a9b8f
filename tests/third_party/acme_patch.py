from sftplug import ModelPatch, hookimpl


class ReluGate(ModelPatch):
    type: str = "relu_gate"
    changes_logits = True

    def after_loading(self, model):
        exec(self.loading_code(), {"model": model})

    def loading_code(self):
        return (
            "import torch\nfor m in model.modules():\n    if hasattr(m, 'act_fn'):\n        m.act_fn = torch.nn.ReLU()"
        )


@hookimpl
def sftplug_model_patches():
    return [ReluGate]
