from sftplug import Loss, hookimpl


class NearBase(Loss):
    """Cross-entropy, and `weight` times the distance KL(base || model)."""

    type: str = "beta_kl"
    weight: float = 0.1
    reads_base = True

    def token_losses(self, tokens):
        base = tokens.base_logits.log_softmax(-1)
        return tokens.nll() + self.weight * (base.exp() * (base - tokens.log_probs())).sum(-1)


@hookimpl
def sftplug_losses():
    return [NearBase]
