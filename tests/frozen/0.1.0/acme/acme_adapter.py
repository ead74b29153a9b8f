from sftplug import Adapter, hookimpl, require


class IA3(Adapter):
    type: str = "acme_ia3"
    targets: list[str] = ["q_proj", "v_proj"]  # noqa: RUF012 - pydantic copies defaults

    def peft_config(self):
        return require("peft", needed_by="acme_ia3").IA3Config(target_modules=self.targets, feedforward_modules=[])


@hookimpl
def sftplug_adapters():
    return [IA3]
