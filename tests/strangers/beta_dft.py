from sftplug import Loss, hookimpl


class Dynamic(Loss):
    """Dynamic fine-tuning (Wu et al. 2025, arXiv:2508.05629): each token's loss times its own probability."""

    type: str = "beta_dft"

    def token_losses(self, tokens):
        nll = tokens.nll()
        return nll * (-nll).exp().detach()


@hookimpl
def sftplug_losses():
    return [Dynamic]
