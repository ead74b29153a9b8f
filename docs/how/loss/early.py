"""A loss in which the beginning of a reply counts more than its end."""

import numpy as np

from sftplug import Field, Masking, hookimpl


class Early(Masking):
    """Halve the weight of a trained token every so many tokens of its reply."""

    type: str = "early"
    every: int = Field(8, gt=0)
    """After so many tokens a token counts half as much."""

    def weights(self, tokens):
        row, message = tokens.row[tokens.trainable], tokens.message[tokens.trainable]
        # A reply begins where the row or the message changes; how far is each token from there?
        first = np.flatnonzero((np.diff(row, prepend=-2) != 0) | (np.diff(message, prepend=-2) != 0))
        place = np.arange(len(row)) - np.repeat(first, np.diff(first, append=len(row)))
        weights = np.zeros(len(tokens.ids))
        weights[tokens.trainable] = 0.5 ** (place // self.every)
        return weights


@hookimpl
def sftplug_maskings():
    return [Early]
