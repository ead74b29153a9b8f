from sftplug import Schedule, hookimpl


class InverseRoot(Schedule):
    """Rise over the warmup, then fall as one over the root of the step (Vaswani et al. 2017)."""

    type: str = "beta_root"

    def multiplier(self, step, horizon):
        warmup = max(horizon.warmup, 1)
        return min((step + 1) / warmup, (warmup / (step + 1)) ** 0.5)


@hookimpl
def sftplug_schedules():
    return [InverseRoot]
