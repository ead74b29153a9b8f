from sftplug import Optimizer, hookimpl, require


class Patient(Optimizer):
    type: str = "patient"
    beta: float = 0.95

    def optimizer(self, trained, learning_rate):
        optim = require("torch.optim", needed_by="optimizer patient")
        return optim.AdamW(trained.groups(), lr=learning_rate, betas=(self.beta, 0.999))


@hookimpl
def sftplug_optimizers():
    return [Patient]
