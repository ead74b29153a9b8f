from sftplug import Metric, hookimpl


class Brief(Metric):
    type: str = "brief"
    most: int = 100

    def scores(self, replies):
        return [float(len(reply.text) <= self.most) for reply in replies]


@hookimpl
def sftplug_metrics():
    return [Brief]
