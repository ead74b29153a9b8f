from sftplug import Policy, hookimpl


class Cautious(Policy):
    type: str = "cautious"
    most: float = 0.02

    def problems(self, recipe, command):
        if command == "train" and recipe.train["learning_rate"] > self.most:
            yield f"ACME is cautious: {self.most} is the largest rate"


@hookimpl
def sftplug_policies():
    return [Cautious]
