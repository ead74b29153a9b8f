"""Keep the libraries beneath from printing what says nothing about the user's run."""

from __future__ import annotations

import logging
import os
import warnings


def quiet_libraries() -> None:
    """Silence, one by one, the messages that every normal run would show; call before the libraries are imported."""
    # Usage pings of the libraries are off unless the user turned them on.
    for switch in ("HF_HUB_DISABLE_TELEMETRY", "DO_NOT_TRACK"):
        os.environ.setdefault(switch, "1")
    # Where the library `kernels` is installed, transformers would fetch code for some layers from the Hub, and run it.
    os.environ.setdefault("USE_HUB_KERNELS", "NO")
    # transformers would ask a service on the Hub, in the background, to convert weights that are not safetensors.
    os.environ.setdefault("DISABLE_SAFETENSORS_CONVERSION", "1")
    # bitsandbytes offers a kernel for faster 4-bit inference on some CPUs; training does not use it.
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
    # One line a layer and forward pass on INT8: "inputs will be cast".
    logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)
    # PEFT asks transformers for an attribute that is about to be renamed.
    warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*", category=FutureWarning)
    # TRL sets this field by its own default.
    warnings.filterwarnings("ignore", message=".*gradient_checkpointing.*", category=FutureWarning)
    # With new tokens the whole table is saved beside the adapter: so it should be.
    warnings.filterwarnings(
        "ignore", message="Setting `save_embedding_layers` to `True` as the embedding layer has been"
    )
    # PEFT looks for them among modules only, and these are the ranks of tensors that hold all experts.
    warnings.filterwarnings(
        "ignore", message=r"The following (rank|alpha)_pattern keys did not match .*(_proj|weight)'\]"
    )
    # `check` says it in its own words, and `sftplug merge` parts the two or keeps them together.
    warnings.filterwarnings("ignore", message="Model (has|with) `tie_word_embeddings=True` and (a|the) tied")
    # Said by `sftplug merge` itself, with how much it is.
    warnings.filterwarnings("ignore", message="Merge lora module to .*-bit linear")
    # In which numbers a base was made floats: `sftplug merge` says it.
    logging.getLogger("transformers.integrations.bitsandbytes").setLevel(logging.ERROR)
    # Which these are, and what becomes of them, is said before training.
    idle = "The following generation flags are not valid"
    logging.getLogger("transformers.generation.configuration_utils").addFilter(
        lambda record: idle not in record.getMessage()
    )
    # Of `logging_steps: 0.01` a checkpoint holds how many steps that came to. A resume compares the recipes itself.
    logging.getLogger("transformers.trainer_utils").addFilter(
        lambda record: "do not match the ones in the `trainer_state.json`" not in record.getMessage()
    )
    # accelerate imports DeepSpeed in every run where it is installed, and it says that it has found no GPU.
    logging.getLogger("DeepSpeed").addFilter(lambda record: "Setting accelerator to CPU" not in record.getMessage())
    # DeepSpeed calls torch by names that are about to change.
    warnings.filterwarnings("ignore", message=".*torch.distributed.*is deprecated.*", category=FutureWarning)


def quiet_progress_bars() -> None:
    """Leave progress to sftplug: the libraries' own bars tell of weights and shards."""
    import datasets
    from transformers.utils import logging as transformers_logging

    datasets.disable_progress_bars()
    transformers_logging.disable_progress_bar()
