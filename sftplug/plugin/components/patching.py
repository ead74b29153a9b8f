"""The kind that changes how the model computes, and nothing of what is trained."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, ClassVar

from sftplug.plugin.components.base import Component

if TYPE_CHECKING:
    from torch import nn
    from transformers import PretrainedConfig, PreTrainedModel


class ModelPatch(Component):
    """Changes how the model computes: its kernels, its attention, what is done to its logits.

    The patches of a recipe are applied in its order, each to what the one before has made. What is trained, and with
    which numbers, is said by adapter and quantization: a patch brings no parameters, and leaves their names and shapes.

    What whoever loads the result gets must be what was trained. So a run compares the model with a plain one that has
    the same weights, before it is trained and when it is saved: they must compute the same, but for `tolerance`; or the
    patch says `changes_logits`, and its `loading_code` does to a plain model what the patch does.
    """

    changes_logits: ClassVar[bool] = False
    """Whether the model computes something else than a plain one. Then `loading_code` is demanded, and the patch is
    applied wherever sftplug loads a result; one that does not change them is applied in training alone."""
    tolerance: ClassVar[float] = 1e-4
    """By how much logits in 32-bit floats may differ from those of a plain model: the mean of the absolute difference,
    as a share of their standard deviation. Of a base in 16 bits the rounding of 16 bits is allowed."""

    def before_loading(self, config: PretrainedConfig) -> AbstractContextManager[Any]:
        """Return a context in which the model is loaded and computes, and which leaves everything as it was.

        For classes and functions that the model is made of, such as
        ``unittest.mock.patch.object(modeling_llama, "LlamaMLP", MyMLP)``; by default nothing. It is entered anew for
        each run in a process, and left while a plain model is compared with; `sftplug.restoring` puts back what other
        libraries change for good. `config` is the model's configuration, which is not to be changed.
        """
        return nullcontext()

    def after_loading(self, model: PreTrainedModel) -> PreTrainedModel | None:
        """Change the loaded base `model` in place, or return the one that takes its place; by default nothing.

        Its weights are in the numbers of the quantization, and no adapter is there yet. The model keeps its class, and
        its parameters keep names and shapes.
        """
        return None

    def loading_code(self) -> str:
        """Return Python that does to a loaded ``model`` what the patch does, without sftplug; empty by default.

        It stands in the code of the model card. There ``model`` may be PEFT's, with the adapter in it: reach modules by
        ``model.modules()`` or ``model.get_output_embeddings()``. The run executes it before it is called finished.
        """
        return ""

    def check_model(self, model: nn.Module) -> Iterable[str]:
        """Yield a sentence for everything because of which `model`, on the meta device, can't be patched here.

        Called by ``sftplug check`` and before weights are loaded, not by ``sftplug plan``: a machine without the GPU
        that the patch needs can plan the run.
        """
        return ()
