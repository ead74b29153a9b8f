from typing import Any, Literal

from sftplug import Field, Head, OutputLayer, hookimpl


class SmallPieces(Head):
    """The logits of a few tokens at a time, made once more in the backward pass: what a small GPU has room for."""

    type: Literal["small_pieces"] = "small_pieces"
    tokens: int = Field(128, gt=0, description="Tokens whose logits are in memory at once.")

    def nll(self, states: Any, layer: OutputLayer, labels: Any) -> Any:
        import torch.utils.checkpoint

        def piece(states: Any, labels: Any) -> Any:
            return torch.nn.functional.cross_entropy(layer.logits(states), labels, reduction="none")

        pieces = zip(states.split(self.tokens), labels.split(self.tokens), strict=True)
        return torch.cat([torch.utils.checkpoint.checkpoint(piece, *both, use_reentrant=False) for both in pieces])


@hookimpl
def sftplug_heads() -> list[type[Head]]:
    return [SmallPieces]
