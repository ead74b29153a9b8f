from sftplug import Schedule, hookimpl


class Stairs(Schedule):
    type: str = "stairs"
    every: int = 1
    warms_up = False

    def multiplier(self, step, horizon):
        return 0.5 ** (step // self.every)


@hookimpl
def sftplug_schedules():
    return [Stairs]
