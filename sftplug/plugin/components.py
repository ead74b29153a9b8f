"""The kinds of component: what a recipe chooses by name, and what a plugin offers.

A component *is* its options: a frozen pydantic model whose ``type`` is the name that recipes use, and one method
that does the work. Field docstrings become the descriptions in the schema. Heavy libraries are imported inside
methods, so that listing plugins stays instant.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, cast

from pydantic import ConfigDict

from sftplug.errors import ModelError
from sftplug.util.strict_model import StrictModel

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from peft import PeftConfig, PeftModel
    from torch import Tensor, nn
    from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback

    from sftplug.recipe.model import Recipe
    from sftplug.types.conversation import Conversation, Reply, Row
    from sftplug.types.tokens import LongRow, LossSums, TokenBatch
    from sftplug.types.trained_tokens import TrainedTokens
    from sftplug.util.device import Device


class Component(StrictModel, ABC):
    """Base of every kind. Subclass a kind, not this."""

    # A plugin's default of the wrong type is found before it does harm.
    model_config = ConfigDict(validate_default=True)

    type: str
    """The name that recipes use; a subclass narrows it to a ``Literal`` with a default."""

    shorthand: ClassVar[str | None] = None
    """The option that ``{name: value}`` sets in a recipe, so that ``roles: [user]`` can be written."""

    def check(self, recipe: Recipe) -> Iterable[str]:
        """Yield a sentence for everything in `recipe` that does not go together with this component.

        Called before anything is downloaded or loaded; must be quick and must not import a heavy library.
        """
        return ()


@dataclass(frozen=True, slots=True)
class Deferred:
    """A component class that is made when a recipe names it.

    For a plugin that offers everything of a large library: to list the names must cost nothing, and only the one that
    is chosen need be made.
    """

    name: str
    """The name that recipes use."""
    make: Callable[[], type[Component]]
    """Returns the class; called at most once in a process."""
    library: str
    """The library whose it is; what it offers is known only where it is installed."""


class DatasetSource(Component):
    """Says where rows come from. In a recipe its options stand beside ``format``: ``{path: …, format: …}``."""

    @property
    def remote(self) -> bool:
        """Whether reading the rows goes over the network; ``sftplug plan`` then leaves them unread."""
        return False

    @abstractmethod
    def rows(self) -> Iterator[Row]:
        """Yield every row, in the same order each time, with its origin.

        Raises DataError saying what cannot be read, and where.
        """

    @abstractmethod
    def label(self) -> str:
        """Return the source's name for the ledger and for messages."""

    def fingerprint(self) -> str | None:
        """Return what changes whenever a row does; None if that cannot be told without reading.

        Rows without a fingerprint are prepared again in every run.
        """
        return None

    def stamp(self) -> str | None:
        """Return what changes as soon as something that is read is written to, told without reading it; else None.

        Such as sizes and times of files. It is asked for before and after the rows are read: rows that changed
        meanwhile are refused. Of a source without a stamp, the fingerprint is asked for a second time.
        """
        return None


class DatasetFormat(Component):
    """Turns one row of a dataset into a conversation."""

    @abstractmethod
    def to_conversation(self, row: Mapping[str, Any]) -> Conversation:
        """Return the conversation that `row` holds, without changing `row`.

        Raises `RowError` naming the field and the reason when the row does not fit.
        """


class ChatTemplate(Component):
    """Says which Jinja chat template renders conversations."""

    @abstractmethod
    def source(self, tokenizer: PreTrainedTokenizerBase) -> str:
        """Return the template's Jinja source; it is saved with the model, so that inference renders the same."""


class Masking(Component):
    """Says how much each token counts in the loss."""

    selects: ClassVar[bool] = True
    """Whether it says by itself what is trained; False where it only weighs what another strategy selects."""
    reads_weights: ClassVar[bool] = False
    """Whether it reads the weights that rows give themselves, their messages and parts: `Conversation.weight`,
    `Message.weight`. Rows that have some are refused where no strategy reads them."""

    @property
    def trains(self) -> frozenset[str]:
        """Roles (of `ROLE_CODES`) that it trains beyond what the model itself must produce; none by default.

        Override it in a strategy that is meant to train what users, tools or the template say.
        """
        return frozenset()

    @abstractmethod
    def weights(self, tokens: TokenBatch) -> NDArray[np.bool_] | NDArray[np.floating[Any]]:
        """Return an array of shape (N,) over the flat batch: bool, or float >= 0."""


class LengthPolicy(Component):
    """Says what becomes of a row that is longer than ``data.max_length``."""

    refuses: ClassVar[bool] = False
    """Whether one such row stops the run."""
    limited: ClassVar[bool] = True
    """Whether ``data.max_loss`` limits how much of what would be trained may be lost by it."""
    shortens: ClassVar[bool] = True
    """Whether it may keep a part of a row. Where it never does, a row whose messages alone are certainly too long is
    left out before it is rendered."""

    @abstractmethod
    def shorten(self, row: LongRow) -> Sequence[Conversation] | slice:
        """Return what is trained in place of `row`.

        Either conversations, each with fewer messages; they are rendered again, and those that are still too long come
        back to this method. None drops the row. Or the stretch of the row's own tokens that is kept.
        """


class Quantization(Component):
    """Says the dtype or quantization of the base model's weights."""

    trainable: ClassVar[bool] = False
    """Whether the weights themselves can be trained; False for weights that only an adapter can be trained on."""
    bits: ClassVar[int]
    """Bits of one weight, for components that demand, say, a 4-bit base."""
    merges_in_place: ClassVar[bool] = False
    """Whether an adapter can be merged into the quantized weights themselves and the result saved as such; it is then
    rounded to them. False unless somebody has seen that it works: some backends do it silently wrong."""
    keeps_inputs: ClassVar[bool] = False
    """Whether products with the weights hold on to their input until the backward pass even where activations are
    checkpointed, as a ``torch.autograd.Function`` does that sets it on its context; `sftplug plan` counts them."""

    @property
    def bytes_per_parameter(self) -> float:
        """Bytes of one weight of a quantized module; override to add its share of the quantization constants."""
        return self.bits / 8

    def weight_bytes(self, shape: Sequence[int]) -> int:
        """Return the bytes of one quantized weight of `shape`, quantization constants and all.

        By default `bytes_per_parameter` for each of its numbers; override where a backend rounds up to whole blocks.
        """
        return math.ceil(math.prod(shape) * self.bytes_per_parameter)

    def quantized(self, model: nn.Module) -> frozenset[str]:
        """Return the names of the parameters of `model` that are held in `bits`; the others stay in the dtype.

        `model` is on the meta device, a copy that may be changed. By default transformers' own quantizer says so, for
        the ``quantization_config`` of `load_kwargs`; override for a backend that quantizes in `prepare_model`.
        """
        config = self.load_kwargs().get("quantization_config")
        if config is None:
            return frozenset()
        from transformers.quantizers import AutoHfQuantizer

        quantizer = AutoHfQuantizer.from_config(config)
        quantizer.preprocess_model(model=model, device_map=None)
        names = [name for name, _ in model.named_parameters()]
        return frozenset(name for name in names if quantizer.param_needs_quantization(model, name))

    @abstractmethod
    def load_kwargs(self) -> dict[str, Any]:
        """Return keyword arguments for ``from_pretrained``: ``dtype`` and, when needed, ``quantization_config``."""

    @property
    def adaptable(self) -> bool:
        """Whether an adapter can be trained on the weights; override it where they are for inference only."""
        return True

    def for_device(self, device: Device) -> Quantization:
        """Return the backend with every option set that it leaves to the device that the recipe is trained on.

        An option whose default says so, such as ``compute_dtype: ComputeDtype | None = None``, is set here from what
        `device` does fast, with ``self.model_copy(update=…)``. The record of the run holds it, so that the weights are
        computed with as they were in training wherever the result is loaded. By default nothing is left open.
        """
        return self

    def prepare_model(self, model: nn.Module) -> None:
        """Change the loaded model in place where the backend needs it; nothing by default."""

    def loading_code(self) -> str:
        """Return Python that does to a loaded ``model`` what `prepare_model` does; empty by default.

        It stands in the code of the model card, which loads a run's result where there is no sftplug.
        """
        return ""

    def dequantize(self, model: PreTrainedModel) -> PreTrainedModel:
        """Return `model` with its weights as floats: the very numbers that an adapter was trained on.

        Float weights are returned as they are; of others, transformers' own quantizer makes floats. Raises ModelError
        when it cannot; override where a backend has a way of its own.
        """
        quantizer = getattr(model, "hf_quantizer", None)
        if quantizer is None:
            return model
        try:
            return cast("PreTrainedModel", quantizer.dequantize(model))
        except NotImplementedError as error:
            raise ModelError(f"{self.type} weights cannot be made floats again: {error}") from error


class Adapter(Component):
    """Says which parameters are trained."""

    default_quantization: ClassVar[str | None] = None
    """The quantization a recipe gets that names this adapter and no quantization; None for floats of the type that the
    device trains fastest in."""
    trains_base: ClassVar[bool] = False
    """Whether weights of the base model itself are trained."""

    def quantization_for(self, device: Device) -> str:
        """Return the name of the quantization that a recipe gets on `device` that names this adapter and no other.

        By default `default_quantization`; where that is None ``bf16``, on a GPU without units for bfloat16 ``fp16``,
        on a CPU without them ``fp32``. The record of the run holds what was chosen.
        """
        return self.default_quantization or device.float_quantization

    def train_defaults(self, recipe: Recipe) -> Mapping[str, Any]:
        """Return options of the ``train`` section that suit it: ``learning_rate``, ``lr_scheduler_type``,
        ``warmup_steps`` …; what the recipe says itself comes first, then what its callbacks mean.

        The rate is meant for Adam and its kin, and is left out where the recipe names an optimizer of another sort; so
        is the warmup where it names a schedule without one. `sftplug check` tells of a rate that is ten times as high,
        or a tenth. `recipe` holds what was written. Must be quick and must not import a heavy library.

        By default 2e-5 where `trains_base`, TRL's own rate and that of Alpaca (Taori et al. 2023), and ten times as
        much for everything that is trained beside a frozen base: "LoRA Without Regret" (Schulman et al. 2025,
        https://thinkingmachines.ai/blog/lora) found the best rate of LoRA at ten times that of full fine-tuning,
        whatever the rank. Linear decay to zero, after a warmup over 3 % of the updates.
        """
        rate = 2e-5 if self.trains_base else 2e-4
        return {"learning_rate": rate, "lr_scheduler_type": "linear", "warmup_steps": 0.03}

    @property
    def mergeable(self) -> bool:
        """Whether what is trained can be merged into the weights of the base; for adapters of PEFT."""
        return True

    @abstractmethod
    def peft_config(self) -> PeftConfig | None:
        """Return the PEFT configuration, or None when the model's own parameters are trained."""

    def prepare_model(self, model: nn.Module) -> None:
        """Choose what is trained when `peft_config` returns None; called on the loaded model."""

    def check_model(self, model: nn.Module) -> Iterable[str]:
        """Yield a sentence for everything that does not fit `model`, whose weights are on the meta device."""
        return ()

    def check_merge(self, quantization: Quantization, *, in_place: bool) -> Iterable[str]:
        """Yield a sentence for every reason why this adapter, once trained, cannot become part of the weights.

        Called before weights are loaded. `quantization` is the base's; `in_place` says that its weights stay quantized,
        otherwise they are made floats before. By default what PEFT's configuration tells.
        """
        config = self.peft_config()
        if config is None:
            yield f"there is nothing to merge: '{self.type}' trains the weights themselves, and they are saved whole."
        elif config.is_prompt_learning:
            yield f"'{self.type}' trains a prompt, which no weight can stand for. Load it with PEFT beside the base."

    def merge(self, model: PeftModel) -> PreTrainedModel:
        """Return the base of `model` with the trained update in its weights; changes them in place.

        By default PEFT merges. Raises ModelError when it cannot.
        """
        try:
            return cast("PreTrainedModel", model.merge_and_unload(safe_merge=True))
        except (NotImplementedError, ValueError, AttributeError, RuntimeError) as error:
            raise ModelError(f"PEFT cannot merge '{self.type}': {error}") from error


class Loss(Component):
    """Says what each trained token costs, by the model's logits before it.

    The core does the rest: the loss of an update is ``sum(w * loss) / sum(w)`` over all its tokens, whatever the
    batches and processes, with the weights ``w`` of `masking`; that of held-out rows is the same over theirs.
    """

    reads_base: ClassVar[bool] = False
    """Whether it asks for the logits of the base model without its adapter, `TrainedTokens.base_logits`: a second
    forward pass, without gradients and without dropout. Refused where the base's own weights are trained."""
    reads_provenance: ClassVar[bool] = False
    """Whether it asks of which source, role and part each token is, `TrainedTokens.provenance`."""

    @property
    def is_nll(self) -> bool:
        """Whether it is the negative log-likelihood: a head that computes that without logits may stand in for it."""
        return False

    @abstractmethod
    def token_losses(self, tokens: TrainedTokens) -> Tensor:
        """Return (N,) the loss of each of `tokens`, which depends on that token alone: they come in pieces of any size.

        Its gradient must reach `tokens.logits`. What is not finite stops the run, and names the rows of the batch.
        """


class Callback(Component):
    """Watches the training loop."""

    reads_provenance: ClassVar[bool] = False
    """Whether it asks of which source, role and part the tokens of the loss are: then `loss_metrics` is called."""

    def train_options(self, recipe: Recipe) -> Mapping[str, Any]:
        """Return options of the ``train`` section that go with it; what the recipe says itself comes first.

        Called with `check`, before anything is loaded. Two callbacks of a recipe that mean two values of one option
        are refused.
        """
        return {}

    def loss_metrics(self, sums: LossSums) -> Mapping[str, float]:
        """Return what is logged beside the loss of the last steps, and as ``eval_…`` beside that of held-out rows.

        Called on every process, with the sums over all of them, if `reads_provenance` says so.
        """
        return {}

    @abstractmethod
    def trainer_callback(self) -> TrainerCallback:
        """Return the transformers callback that the trainer calls."""


class Metric(Component):
    """Says what the trained model's own replies are worth."""

    @property
    def label(self) -> str:
        """What its results are called; the name by default. No two metrics of a recipe may share one."""
        return self.type

    @abstractmethod
    def scores(self, replies: Sequence[Reply]) -> Sequence[float]:
        """Return a finite number for each of `replies`, in their order; what is reported is the mean.

        A reply's score depends on that reply alone: they come in batches of any size. Raises `RowError` naming
        ``reference`` and the reason for a row by which nothing can be scored.
        """


class ModelBuilder(Component):
    """Makes a base model on the spot, for work without a download."""

    @abstractmethod
    def build(self, directory: Path) -> None:
        """Write tokenizer, configuration and safetensors weights into `directory`, which exists and is empty."""
