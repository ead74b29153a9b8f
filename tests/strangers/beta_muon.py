from sftplug import Optimizer, hookimpl, require


class Muon(Optimizer):
    """Momentum made orthogonal for hidden matrices (Jordan et al. 2024), AdamW for all else."""

    type: str = "beta_muon"
    momentum: float = 0.95
    adam_like = False

    def optimizer(self, trained, learning_rate):
        torch = require("torch", needed_by=self.type)

        class MatricesThenAdam(torch.optim.AdamW):
            @torch.no_grad()
            def step(this, closure=None):
                for group in [group for group in this.param_groups if group["hidden"]]:
                    for p in [p for p in group["params"] if p.grad is not None]:
                        held = this.state[p].setdefault("momentum", torch.zeros_like(p))
                        held.mul_(self.momentum).add_(p.grad)
                        p.add_(orthogonal(p.grad + self.momentum * held), alpha=-group["lr"])
                        p.grad = None  # done: AdamW, which comes next, passes over it
                return super().step(closure)

        hidden = [p for p in trained.parameters if p.is_hidden_matrix]
        others = [p for p in trained.parameters if not p.is_hidden_matrix]
        groups = trained.groups(hidden, hidden=True) + trained.groups(others, hidden=False)
        return MatricesThenAdam(groups, lr=learning_rate)


def orthogonal(x):
    x = x / (x.norm() + 1e-7)
    for _ in range(5):  # Newton and Schulz
        a = x @ x.T
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    return x


@hookimpl
def sftplug_optimizers():
    return [Muon]
