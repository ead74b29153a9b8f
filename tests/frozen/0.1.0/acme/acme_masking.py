from sftplug import Masking, hookimpl


class EndOnly(Masking):
    """Train nothing but the token that ends a turn."""

    type: str = "end_only"

    def weights(self, tokens):
        return tokens.trainable & (tokens.part == tokens.part_code("end_of_turn"))


@hookimpl
def sftplug_maskings():
    return [EndOnly]
