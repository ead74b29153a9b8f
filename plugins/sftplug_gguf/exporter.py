"""The exporter: model, tokenizer, template, stops and generation parameters in one file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from sftplug import Exporter, FinishedModel, MissingLibraryError, ModelError, Recipe, ServedModel
from sftplug_gguf.description import described, described_sampling, described_tokenizer
from sftplug_gguf.engines import INSTALL_LLAMA, LlamaCppModel, TransformersModel, has_llama_cpp
from sftplug_gguf.families import FAMILIES, family_of
from sftplug_gguf.modelfile import FILE, modelfile
from sftplug_gguf.vocabulary import vocabulary
from sftplug_gguf.weights import stored_type, weights
from sftplug_gguf.writing import write

if TYPE_CHECKING:
    from transformers import GenerationConfig, PretrainedConfig, PreTrainedTokenizerBase

ROUNDED = 0.5
"""Half the deviation of the logits: rounding stays below, and a file that was written wrongly is a whole one away."""
INSTALL = "pip install 'sftplug[gguf]'"


class _WritesGguf(Exporter):
    """What both exporters have in common."""

    outtype: Literal["auto", "f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0"] = "auto"
    """The type of the matrices; norms stay in fp32. ``auto`` is that of the model's own weights, which loses nothing.
    The quantized types round in blocks of 32 with one scale: 8.5, 6, 5.5, 5 and 4.5 bits a weight."""

    compare: Literal["auto", "llama.cpp", "transformers", "no"] = "auto"
    """By what the file is read again to be compared with the trained model: llama.cpp (the library llama-cpp-python),
    or transformers' own reader of GGUF. ``auto`` takes the first one that is installed."""

    shorthand: ClassVar[str | None] = "outtype"

    @property
    def needs_merged(self) -> bool:
        """The file holds whole weights."""
        return True

    def check(self, recipe: Recipe) -> Iterator[str]:
        """Say what lacks to write it."""
        if find_spec("gguf") is None:
            yield f"needs the library gguf, which is not installed. Run: {INSTALL}"
        if self.compare == "llama.cpp" and not has_llama_cpp():
            yield f"`compare: llama.cpp` needs llama-cpp-python, which is not installed. Run: {INSTALL_LLAMA}"

    def check_config(self, config: PretrainedConfig) -> Iterable[str]:
        """Say what of a model llama.cpp does not compute."""
        family = family_of(config.get_text_config())
        if family is None:
            known = ", ".join(sorted(name for family in FAMILIES for name in family.model_types))
            yield (
                f"models of the type {config.model_type} cannot be written as GGUF by sftplug: their mapping is not "
                f"proven ({known} are). llama.cpp's own convert_hf_to_gguf.py takes the folder of a merged model."
            )
            return
        for limit in family.limits(config.get_text_config()):
            yield f"the model cannot be written as GGUF: its {limit}."

    def _write(self, model: FinishedModel, target: Path) -> tuple[PreTrainedTokenizerBase, GenerationConfig]:
        """Write the file; the same model gives the same bytes. Return the tokenizer, and how replies are generated.

        Raises MissingLibraryError without the library, ModelError for a model or a tokenizer that llama.cpp cannot be
        shown to have, and for weights that 16-bit floats cannot hold.
        """
        if find_spec("gguf") is None:
            raise MissingLibraryError(
                f"exporter {self.type} needs the library gguf, which is not installed. Run: {INSTALL}"
            )
        from transformers import AutoConfig, AutoTokenizer, GenerationConfig

        folder = model.merged()
        whole = AutoConfig.from_pretrained(folder)
        for text in self.check_config(whole):
            raise ModelError(f"exporter {self.type}: {text}")
        config = whole.get_text_config()
        family = family_of(config)
        assert family is not None  # else it was refused
        tokenizer, generation = AutoTokenizer.from_pretrained(folder), GenerationConfig.from_pretrained(folder)
        outtype = stored_type(folder) if self.outtype == "auto" else self.outtype
        keys = {
            **described(model.folder.name, family, config, outtype),
            **described_tokenizer(vocabulary(tokenizer, config.vocab_size), tokenizer, generation),
            **described_sampling(generation),
        }
        write(target, family.name, keys, weights(folder, family, config), outtype)
        return tokenizer, generation

    def _read(self, file: Path, model: FinishedModel) -> Iterator[ServedModel]:
        """Yield the file as llama.cpp reads it, or else as transformers does."""
        if self.compare == "llama.cpp" or (self.compare == "auto" and has_llama_cpp()):
            yield LlamaCppModel(file)
        elif self.compare != "no":
            yield TransformersModel(file, model.merged())

    @property
    def tolerance(self) -> float | None:
        """Return how far the logits may be apart: a type that rounds is kept from nonsense, and its distance told."""
        return ROUNDED if self.outtype.startswith("q") else None


class GgufExport(_WritesGguf):
    """Write a GGUF file, which llama.cpp, Ollama and LM Studio run: the merged model with tokenizer and template.

    Of the families whose mapping is proven: Llama and Mistral (SmolLM2 among them), Qwen2, Qwen3, Qwen3-MoE, Gemma 3
    and Phi-3. The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. Needs the extra `gguf`.
    """

    type: Literal["gguf"] = "gguf"

    suffix: ClassVar[str] = ".gguf"

    def export(self, model: FinishedModel, target: Path) -> None:
        """Write the file."""
        self._write(model, target)

    def served(self, target: Path, model: FinishedModel) -> Iterator[ServedModel]:
        """Yield the file as it is read."""
        yield from self._read(target, model)


class OllamaExport(_WritesGguf):
    """Write a folder for `ollama create`: the GGUF file, and a Modelfile with template, system prompt and stops.

    The template is the chat template of training in Ollama's language, for texts without tools: what stands before and
    after each turn, tried on conversations before it is kept. Needs the extra `gguf`.
    """

    type: Literal["ollama"] = "ollama"

    def export(self, model: FinishedModel, target: Path) -> None:
        """Write both files. Raises ModelError for a template that Ollama's language cannot be shown to say."""
        tokenizer, generation = self._write(model, target / FILE)
        text = modelfile(tokenizer, generation, model.recipe.data.system if model.recipe is not None else None)
        (target / "Modelfile").write_text(text, encoding="utf-8")

    def served(self, target: Path, model: FinishedModel) -> Iterator[ServedModel]:
        """Yield the file as it is read."""
        yield from self._read(target / FILE, model)
