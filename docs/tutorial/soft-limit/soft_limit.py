from typing import Any, Literal

from sftplug import Field, Loss, TrainedTokens, hookimpl


class SoftLimit(Loss):
    """Cross-entropy that is lenient: a token so unlikely that the row may be wrong pulls less."""

    type: Literal["soft_limit"] = "soft_limit"
    most: float = Field(5.0, gt=0)
    """The negative log-likelihood, in nats, from which on the loss grows as its logarithm only."""

    def token_losses(self, tokens: TrainedTokens) -> Any:
        nll = tokens.nll()
        return nll.clamp(max=self.most) + self.most * (nll / self.most).clamp(min=1).log()


@hookimpl
def sftplug_losses() -> list[type[Loss]]:
    return [SoftLimit]
