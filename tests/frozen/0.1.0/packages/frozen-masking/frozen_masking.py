import re
from typing import Any, Literal

from sftplug import Field, Masking, TokenBatch, hookimpl


class FrozenMasking(Masking):
    """Train what the assistant says, and weigh the numbers in it more: a wrong one spoils the answer."""

    type: Literal["frozen_masking"] = "frozen_masking"
    weight: float = Field(3.0, ge=0, allow_inf_nan=False)
    """Loss weight of a token with a digit in it; the others have 1."""

    def weights(self, tokens: TokenBatch) -> Any:
        digits = tokens.matching(re.compile("[0-9]"))
        return tokens.trainable * (1 + digits * (self.weight - 1))


@hookimpl
def sftplug_maskings() -> list[type[Masking]]:
    return [FrozenMasking]
