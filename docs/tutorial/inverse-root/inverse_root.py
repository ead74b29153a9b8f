from typing import Literal

from sftplug import Field, Horizon, Schedule, hookimpl


class InverseRoot(Schedule):
    """After the warmup the rate falls with the root of the number of updates, however long the run is."""

    type: Literal["inverse_root"] = "inverse_root"
    half: int = Field(300, gt=0)
    """Updates after the warmup until half of the rate is left."""

    def multiplier(self, step: int, horizon: Horizon) -> float:
        if step < horizon.warmup:
            return step / horizon.warmup
        return float((1 + 3 * (step - horizon.warmup) / self.half) ** -0.5)


@hookimpl
def sftplug_schedules() -> list[type[Schedule]]:
    return [InverseRoot]
