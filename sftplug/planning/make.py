"""From a recipe and a device to a plan."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any

from sftplug.errors import ModelError
from sftplug.planning import closed_form
from sftplug.planning.notes import notes_of
from sftplug.planning.optimizer import KNOWN
from sftplug.planning.result import Memory, Plan, Range
from sftplug.planning.settings import Settings, settings_of
from sftplug.planning.share import ProcessShare, share_of
from sftplug.planning.weights import ModelWeights, count_teacher, count_weights
from sftplug.planning.work import TrainingRows, processes_of, work_of

if TYPE_CHECKING:
    from sftplug.planning.rehearse import FakeModel, Rehearsal
    from sftplug.recipe.model import Recipe
    from sftplug.util.device import Device

MARGIN = 0.10
"""How much more than was counted an allocator and the libraries' work spaces may take."""
_GPU_OVERHEAD = Range(300 * 10**6, 900 * 10**6)
"""A GPU's context and loaded kernels, outside of what torch counts; assumed."""
_LIBRARIES = Range(500 * 10**6, 650 * 10**6)
"""Python and its libraries in a process that trains on a CPU, pages of their code included; measured."""
_KEPT_BY_GLIBC = {False: 1.25, True: 3.5}
"""What glibc keeps of freed memory on CPUs, as a share of the activations, without and with checkpointing: fitted to
what was measured. Checkpointing frees and takes blocks of all sizes all the time, and the gaps add up."""
_TOP = 64 * 2**20
"""What glibc keeps free at the end of its heap: ``M_TRIM_THRESHOLD``, at most twice ``DEFAULT_MMAP_THRESHOLD_MAX``."""


def make_plan(recipe: Recipe, device: Device, rows: TrainingRows | None = None) -> Plan:
    """Return what a run of `recipe` costs on `device`; `rows` are None where they were not read.

    Raises ModelError when the model's configuration cannot be had, or the adapter does not fit the model.
    """
    return Planner(recipe, device, rows).plan()


@dataclass(frozen=True, slots=True)
class StepMemory:
    """What a batch takes beside weights and optimizer state, gradients left out."""

    activations: Range
    logits: Range
    flops: float


class Planner:
    """A recipe's model without weights, on which batches of any size can be tried."""

    def __init__(self, recipe: Recipe, device: Device, rows: TrainingRows | None, like: Planner | None = None) -> None:
        """Plan `recipe`. Of a study `like` this one, what their recipes have in common is taken over."""
        self.recipe, self.device, self.rows = recipe, device, rows
        self.settings: Settings = settings_of(recipe, on_cpu=device.on_cpu)
        self.length = _length(recipe, rows)
        self._model: Any = None
        self._stages: dict[Any, Any] = {}
        self.weights: ModelWeights
        if like is not None and _same_model(like, self):
            self.weights, self._stages = like.weights, like._stages
        else:
            self._model, self.weights = count_weights(recipe, self.settings)
        self.processes = processes_of(recipe)
        strategy = recipe.launch.strategy if recipe.launch is not None else "ddp"
        self.share: ProcessShare = share_of(self.weights, self.settings, strategy, self.processes)
        self._by_formula: str | None = None
        self._teacher = count_teacher(recipe, self.settings)[1]
        self.step = cache(self._step)

    def plan(self, batch: int | None = None) -> Plan:
        """Return the plan for the recipe's batch, or for another one."""
        size = self.settings.batch if batch is None else batch
        settings = replace(self.settings, batch=size)
        step = self.step(size)
        per_token = step.flops / (size * self.length)
        return Plan(
            device=self.device.name,
            settings=_shown(self.recipe, settings, self.length),
            trainable=self.weights.trainable,
            total=self.weights.total,
            memory=self._memory(step),
            work=work_of(settings, self.rows, self.length, per_token, self.device, self.processes),
            notes=tuple(self._notes()),
            size=self.weights.size,
        )

    def largest_batch(self, memory: int) -> int:
        """Return the most rows of a batch that certainly fit into `memory`; 0 if not even one does."""
        one = self._most(1)
        if one > memory:
            return 0
        # What a row takes is nearly the same for each: a line through two sizes says where to look next.
        fits, size, too_many, most = 1, 2, 0, self._most(2)
        for _ in range(8):
            fits, too_many = (max(fits, size), too_many) if most <= memory else (fits, size)
            guess = 1 + (memory - one) * (size - 1) // max(most - one, 1)
            size = min(guess, too_many - 1) if too_many else guess
            if size <= fits:
                break
            most = self._most(size)
        return int(fits)

    def _most(self, batch: int) -> int:
        return self._memory(self.step(batch)).total.high

    def _memory(self, step: StepMemory) -> Memory:
        share = self.share
        overhead = _overhead(step, self.settings.checkpointing) if self.device.on_cpu else _GPU_OVERHEAD
        return Memory(
            Range(share.base, share.base + self.weights.constants),
            share.adapter,
            share.gradients,
            share.optimizer,
            step.activations,
            step.logits,
            overhead,
            share.communication,
            self._teacher,
        )

    def _step(self, batch: int) -> StepMemory:
        """Rehearse a batch; by formula where the model's code does not run without numbers."""
        most = self.length - 1
        least = round(most * (self.rows.trained if self.rows and self.rows.trained is not None else 0.0))
        if self._by_formula is None:
            try:
                return self._rehearse(batch, least, most)
            except ModelError:
                raise
            except Exception as error:  # noqa: BLE001 - it is the model's own code, and fails in its own ways
                self._by_formula = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        config = self._config()
        passes = int(self.recipe.loss.reads_base) + bool(self._teacher)  # without a gradient, of base and teacher
        logits = closed_form.logits(config, self.settings, batch, most) * (1 + passes)
        return StepMemory(
            closed_form.activations(config, self.settings, batch, self.length),
            Range(logits * least // max(most, 1), logits),
            closed_form.flops(self.weights, self.settings, batch * self.length) * (1 + passes / 3),
        )

    def _rehearse(self, batch: int, least: int, most: int) -> StepMemory:
        try:
            # With a single position there are next to no logits: what the others take beyond that is what logits take.
            none, some, every = self._rehearsals(self._stage(whole=False), batch, (1, max(least, 1), most))
        except Exception:  # noqa: BLE001 - the same fails again, unless leaving layers out was to blame
            none, some, every = self._rehearsals(self._stage(whole=True), batch, (1, max(least, 1), most))
        low = max(none.peak - self.weights.gradients, 0)
        logits = Range(some.peak - none.peak, every.peak - none.peak)
        return StepMemory(
            Range(low, round(low * (1 + MARGIN))),
            Range(logits.low, round(logits.high * (1 + MARGIN))),
            every.flops,
        )

    def _rehearsals(self, stage: FakeModel, batch: int, scored: tuple[int, int, int]) -> list[Rehearsal]:
        # Gradients that are shared out do not pile up while activations go.
        again = self.settings.accumulation > 1 or self.share.gradients < self.weights.gradients
        return [stage.rehearse(batch, self.length, positions, accumulate=again) for positions in scored]

    def _stage(self, *, whole: bool) -> FakeModel:
        from sftplug.planning.fake_loss import FakeLoss
        from sftplug.planning.rehearse import FakeModel

        key = (self.settings.checkpointing, self.settings.autocast, whole, repr(self.recipe.loss))
        if key not in self._stages:
            model, self._model = self._model, None
            # A model that was on stage is changed.
            model = count_weights(self.recipe, self.settings)[0] if model is None else model
            # Each stage has tensors of its own.
            teacher = count_teacher(self.recipe, self.settings)[0]
            loss = FakeLoss(self.recipe, on_cpu=self.settings.on_cpu, teacher=teacher)
            self._stages[key] = FakeModel(model, self.settings, loss, whole=whole)
        stage: FakeModel = self._stages[key]
        return stage

    def _config(self) -> Any:
        from sftplug.model.loading import model_config

        return model_config(self.recipe)

    def _unknown_state(self) -> str:
        name = self.settings.optimizer
        if self.settings.chosen is not None:
            return (
                f"unknown optimizer state: '{name}' does not say what it keeps, and takes no step without numbers, so "
                "the widest range is given."
            )
        return (
            f"unknown optimizer state: `train.optim: {name}` is not in the table, so the widest range is given. Known: "
            f"{', '.join(KNOWN)}."
        )

    def _not_rehearsed(self) -> Iterator[str]:
        """Yield what was counted another way, because its code does not run without numbers."""
        if self._by_formula is not None:
            yield (
                "activations are by formula, because the model's code does not run without numbers "
                f"({self._by_formula})"
            )
        if failed := next((stage.loss.failed for stage in self._stages.values() if stage.loss.failed), ""):
            yield (
                f"the loss '{self.recipe.loss.type}' does not run without numbers ({failed}), so what it makes of its "
                "logits is taken for what `cross_entropy` makes"
            )

    def _notes(self) -> list[str]:
        notes, kind = [], self.recipe.quantization.type
        if not self.share.known:
            notes.append(self._unknown_state())
        notes += self._not_rehearsed()
        if self.recipe.quantization.bits < 16 and not self.weights.quantized:
            notes.append(
                f"quantization {kind} names no module that it quantizes on this machine, so all weights are counted in "
                f"{str(self.settings.dtype).removeprefix('torch.')}: less if it does quantize where it trains"
            )
        if self.weights.constants:
            notes.append(
                f"quantization {kind} says {self.recipe.quantization.bits} bits a weight and nothing of its scales; up "
                "to 1 bit more is assumed"
            )
        if self.processes > 1:
            notes.append(f"memory is that of the first of {self.processes} processes, the work that of all")
        elif self.recipe.launch is not None and self.recipe.launch.processes is None:
            notes.append(
                "`launch.processes` is not set, and there are no accelerators here to count: one process is planned"
            )
        if self.rows is None:
            notes.append("rows were not read: every one is taken to be as long as `data.max_length` allows")
        return [*notes, *notes_of(self.recipe, self.weights)]


def _same_model(one: Planner, other: Planner) -> bool:
    """Whether two recipes hold the same model in memory."""
    parts = [(s.recipe.model, s.recipe.quantization, s.recipe.adapter, s.settings.dtype) for s in (one, other)]
    return parts[0] == parts[1] and one.settings.on_cpu == other.settings.on_cpu


def _length(recipe: Recipe, rows: TrainingRows | None) -> int:
    """Return the tokens of the longest row."""
    longest, limit = rows.longest if rows is not None else None, recipe.data.max_length
    if longest is None and limit is None:
        raise ModelError(
            "the length of the rows is unknown: they were not read, and `data.max_length` is null. Set it."
        )
    length = longest if limit is None else min(limit, longest or limit)
    multiple = int(recipe.train.get("pad_to_multiple_of") or 1)
    return max(-(-(length or 2) // multiple) * multiple, 2)


def _overhead(step: StepMemory, checkpointing: bool) -> Range:
    """Return what libraries take on a CPU, and what its allocator keeps of freed memory.

    That is nothing where large blocks are handed back to the system at once.
    """
    if "MALLOC_MMAP_THRESHOLD_" in os.environ:
        return _LIBRARIES
    kept = _KEPT_BY_GLIBC[checkpointing] * (step.activations.high + step.logits.high)
    return _LIBRARIES + Range(0, _TOP + round(kept))


def _shown(recipe: Recipe, settings: Settings, length: int) -> dict[str, Any]:
    """Return what the figures are for."""
    return {
        "batch": settings.batch,
        "accumulation": settings.accumulation,
        "length": length,
        "checkpointing": settings.checkpointing,
        "optimizer": settings.optimizer,
        "quantization": recipe.quantization.type,
        "adapter": recipe.adapter.type,
        "dtype": str(settings.dtype).removeprefix("torch."),
        "autocast": str(settings.autocast).removeprefix("torch.") if settings.autocast else None,
        "attention": recipe.model.attn_implementation or "sdpa",
    }
