"""A faulty component of each kind breaks a law, and is told which, what was found, and how to fix it."""

import itertools
import math
import random
import subprocess
import sys
from typing import ClassVar, Literal

import numpy as np
import pytest
import torch
from peft import IA3Config, LoraConfig, PromptTuningConfig
from transformers import TrainerCallback

from sftplug import (
    Adapter,
    Callback,
    ChatTemplate,
    Conversation,
    DatasetFormat,
    DatasetSource,
    Dropped,
    Exporter,
    Head,
    LengthPolicy,
    Loss,
    Masking,
    Message,
    Metric,
    Quantization,
    Recognized,
    Row,
    RowError,
    RowProcessor,
    StreamProcessor,
)
from sftplug.run.files import EXPORTED
from sftplug.testing import (
    LawBroken,
    check_adapter,
    check_callback,
    check_component,
    check_exporter,
    check_format,
    check_head,
    check_length_policy,
    check_loss,
    check_masking,
    check_metric,
    check_quantization,
    check_row_processor,
    check_source,
    check_template,
    check_upgrade,
    exporters,
)

ROWS = [{"question": "One?", "answer": "Two."}]
COUNT = itertools.count()


def broken(check, *arguments, **options):
    """Return (law, what was found and how to fix it) of the law that is broken."""
    with pytest.raises(LawBroken) as caught:
        check(*arguments, **options)
    error = caught.value
    text = str(error)
    assert text.splitlines()[0].endswith(f"breaks the law '{error.law}'")
    assert text.splitlines()[1].startswith("  law:   ")
    assert f"  found: {error.found}\n  fix:   {error.fix}" in text
    return error.law, f"{error.found} | {error.fix}"


# --- every kind -------------------------------------------------------------------------------------------------------


class Faultless(Masking):
    """Train the assistant."""

    type: Literal["faultless"] = "faultless"
    strength: float = 1.0
    """How much."""

    def weights(self, tokens):
        return tokens.trainable * self.strength


class NameOfWords(Faultless):
    """A name that no recipe can write."""

    type: str = "two words"


class NameWithADot(Faultless):
    """A name that could be a path in a recipe."""

    type: str = "my.mask"


class Undescribed(Faultless):
    """An option without a word about it."""

    hidden: int = 1


class Thawed(Faultless, frozen=False):
    """It can be changed."""


class Lenient(Faultless, extra="ignore"):
    """It takes any option."""


class Untold(Faultless):
    """YAML does not hold what it was made of."""

    secret: float = 1.0
    """Kept out of what is written."""

    def model_dump(self, **kwargs):
        return {name: value for name, value in super().model_dump(**kwargs).items() if name != "secret"}


class Unpicklable(Faultless):
    """A copy is another."""

    def __reduce__(self):
        return (Unpicklable, (), {"__dict__": {}})

    def __setstate__(self, state):
        object.__setattr__(self, "strength", 7.0)


class Restless(Faultless):
    """Options of today are changed too."""

    @classmethod
    def upgrade(cls, options, from_version):
        return {"strength": 1.0, **options}


class Renamed(Faultless):
    """`weight` was the name of `strength`; `loud` is gone."""

    @classmethod
    def upgrade(cls, options, from_version):
        options.pop("loud", None)
        if "weight" in options:
            options["strength"] = options.pop("weight")
        return options


class Forgetful(Faultless):
    """`loud` is gone, and still there."""

    @classmethod
    def upgrade(cls, options, from_version):
        return {"strength" if name == "weight" else name: value for name, value in options.items()}


class Again(Faultless):
    """`strength` was a percentage in 1.0, and nothing tells what it is."""

    @classmethod
    def upgrade(cls, options, from_version):
        return {"strength": options["strength"] / 100} if from_version == "1.0" and options else options


class Careless(Faultless):
    """The value of `weight` is lost."""

    @classmethod
    def upgrade(cls, options, from_version):
        return {name: value for name, value in options.items() if name == "strength"}


def test_a_name_that_the_registry_refuses_breaks_the_law_in_the_same_words(tmp_path):
    from sftplug.plugin.manager import load_plugins
    from sftplug.plugin.registry import build_registry

    _, found = broken(check_component, NameWithADot)
    (tmp_path / "dotted.py").write_text(
        "import sftplug\nclass NameWithADot(sftplug.Masking):\n    type: str = 'my.mask'\n"
        "    def weights(self, tokens):\n        return tokens.trainable\n"
        "@sftplug.hookimpl\ndef sftplug_maskings():\n    return [NameWithADot]\n"
    )
    plugins = load_plugins()
    plugins.load_file(tmp_path / "dotted.py")
    build_registry(plugins)
    problem = "is named 'my.mask': use letters, digits, `_` and `-`"
    assert problem in found
    assert problem in str(plugins.broken["dotted"])


@pytest.mark.parametrize(
    ("component", "options", "law", "text"),
    [
        (
            NameOfWords,
            {},
            "is_named",
            "is named 'two words': use letters, digits, `_` and `-` | write",
        ),
        (
            Undescribed,
            {},
            "is_described",
            "the option 'hidden' is not described | write a docstring under `hidden: …`; in a notebook, where Python",
        ),
        (Thawed, {}, "is_frozen", "an option could be assigned to | leave `frozen=True`"),
        (Lenient, {}, "refuses_unknown_options", "`no_such_option: 1` was accepted | leave `extra='forbid'`"),
        (Untold, {"secret": 2.0}, "survives_yaml", "was written as 'type: faultless"),
        (Unpicklable, {}, "survives_pickling", "strength=7.0) | keep state in options alone"),
        (Restless, {}, "upgrades_nothing_of_today", "{} became {'strength': 1.0} | change an option only under a name"),
    ],
)
def test_the_laws_of_every_component(component, options, law, text):
    assert broken(check_component, component, **options) == (law, AnyText(text))


@pytest.mark.parametrize(
    ("component", "old", "law", "text"),
    [
        (
            Forgetful,
            {"weight": 2.0, "loud": True},
            "upgrades_to_what_it_takes",
            "became {'strength': 2.0, 'loud': True}, which is refused: Extra inputs are not permitted (loud) | rename",
        ),
        (
            Again,
            {"strength": 50.0},
            "upgrades_once",
            "{'strength': 0.5} became {'strength': 0.005} when it was upgraded again from version '1.0' | change an",
        ),
        (Careless, {"weight": 2.0}, "upgrades_to_the_same_meaning", "strength=2.0) is expected | carry the value"),
    ],
)
def test_the_laws_of_an_upgrade(component, old, law, text):
    assert broken(check_upgrade, component, old, "1.0", expected={"strength": 2.0}) == (law, AnyText(text))


def test_an_upgrade_that_keeps_the_laws():
    check_component(Renamed)
    check_upgrade(Renamed, {"weight": 2.0, "loud": True}, "1.0", expected={"strength": 2.0})
    check_upgrade(Renamed, {"loud": False})
    check_upgrade(Faultless, {"strength": 3.0})  # nothing was ever renamed
    with pytest.raises(LawBroken, match="upgrade\\(\\) must return a dict"):
        check_upgrade(type("Empty", (Renamed,), {"upgrade": classmethod(lambda *_: None)}), {})


class AnyText:
    """Equal to every text that holds this one."""

    def __init__(self, part):
        self.part = part

    def __eq__(self, other):
        return self.part in other

    __hash__ = None

    def __repr__(self):
        return f"…{self.part}…"


def test_a_component_without_fault_passes_and_options_are_given_by_name():
    check_masking(Faultless, strength=0.5)
    with pytest.raises(ValueError, match=r"Give the check the options by name, as in check_masking"):
        check_masking(Faultless, strenght=0.5)


# --- formats ----------------------------------------------------------------------------------------------------------


def pair(row):
    return Conversation((Message("user", row["question"]), Message("assistant", row["answer"])))


class Careful(DatasetFormat):
    """A question and its answer."""

    type: Literal["pair"] = "pair"

    @classmethod
    def recognizes(cls, rows):
        if all(isinstance(row.get(name), str) for row in rows for name in ("question", "answer")):
            return Recognized("columns question and answer")
        return "no text in question and answer"

    def to_conversation(self, row):
        for name in ("question", "answer"):
            if not isinstance(row.get(name), str):
                raise RowError(name, "must be text")
        return pair(row)


class KeyErrors(Careful):
    """It takes without looking."""

    def to_conversation(self, row):
        return pair(row)


class Greedy(Careful):
    """It takes every table for its own."""

    @classmethod
    def recognizes(cls, rows):
        return Recognized("any columns")


class Elsewhere(Careful):
    """It recognizes rows with an option that it does not have."""

    @classmethod
    def recognizes(cls, rows):
        return Recognized("column question", {"column": "question"}) if "question" in rows[0] else "no question"


class Hasty(Careful):
    """It counts on what rows of other formats do not have."""

    @classmethod
    def recognizes(cls, rows):
        return Recognized("question") if rows[0].get("question", "").endswith("?") else "asks nothing"


class Popping(Careful):
    """It takes the answer out of the row."""

    def to_conversation(self, row):
        conversation = super().to_conversation(row)
        row.pop("answer")
        return conversation


class Shuffling(Careful):
    """It asks another question each time."""

    def to_conversation(self, row):
        super().to_conversation(row)
        return pair({**row, "question": f"{row['question']} {next(COUNT)}"})


class Swallowing(Careful):
    """It takes whatever there is."""

    def to_conversation(self, row):
        return pair({"question": row.get("question", "?"), "answer": row.get("answer", "!")})


class Numbers(Careful):
    """It lets a number stand for a text."""

    def to_conversation(self, row):
        if set(row) != {"question", "answer"}:
            raise RowError("row", "must have question and answer")
        return pair(row)


class Nameless(Careful):
    """It does not say which field."""

    def to_conversation(self, row):
        try:
            return super().to_conversation(row)
        except RowError:
            raise RowError("", "bad row") from None


class Martian(Careful):
    """It knows a role that nobody knows."""

    def to_conversation(self, row):
        return Conversation((Message("martian", super().to_conversation(row).messages[0].content),))


@pytest.mark.parametrize(
    ("component", "law", "text"),
    [
        (KeyErrors, "refuses_an_empty_row", "to_conversation() failed: KeyError: 'question' ("),
        (Popping, "leaves_the_row_alone", "became {'question': 'One?'} | copy what you change, and pop nothing."),
        (Shuffling, "is_deterministic", "let to_conversation depend on the row and the options alone."),
        (Swallowing, "refuses_an_empty_row", "{} became Conversation("),
        (Numbers, "refuses_a_bad_row_by_name", "has the content None | a content is text, a list of parts, or None"),
        (Nameless, "refuses_a_bad_row_by_name", "RowError('', 'bad row') | name the field and the reason"),
        (Greedy, "recognizes_no_others", "it recognizes {}, by Recognized(by='any columns'"),
        (Elsewhere, "reads_what_it_recognizes", "with {'column': 'question'}: column: Extra inputs are not permitted"),
        (Hasty, "answers_whatever_the_rows_are", "recognizes() failed: AttributeError: 'NoneType' object"),
        (Martian, "reads_the_row", "has the role ['martian'] | roles are system, developer, user, assistant, tool"),
    ],
)
def test_formats(component, law, text):
    check_format(Careful, ROWS)
    assert broken(check_format, component, ROWS) == (law, AnyText(text))


def test_a_format_is_checked_on_rows():
    with pytest.raises(ValueError, match="needs at least one row that fits the format"):
        check_format(Careful, [])


# --- masking ----------------------------------------------------------------------------------------------------------


class TooShort(Faultless):
    """One weight is missing."""

    def weights(self, tokens):
        return tokens.trainable[1:]


class Counts(Faultless):
    """Codes in place of weights."""

    def weights(self, tokens):
        return tokens.part


class Negative(Faultless):
    """It unlearns the user."""

    def weights(self, tokens):
        return np.where(tokens.role == tokens.role_code("user"), -1.0, 0.0)


class Random(Faultless):
    """It throws dice."""

    def weights(self, tokens):
        return tokens.trainable * np.random.default_rng().random(len(tokens.ids))


class Writing(Faultless):
    """It writes into the batch."""

    def weights(self, tokens):
        tokens.trainable[:1] ^= True
        return tokens.trainable.copy()


class ByBatch(Faultless):
    """Its weights add up to 1 over the batch."""

    def weights(self, tokens):
        return tokens.trainable / max(1, tokens.trainable.sum())


class Users(Faultless):
    """It trains users too."""

    def weights(self, tokens):
        return tokens.trainable | (tokens.role == tokens.role_code("user"))


class UsersSaidSo(Users):
    """It says that it trains users too."""

    @property
    def trains(self):
        return frozenset({"user"})


class Nothing(Faultless):
    """It compares with a code that no token has."""

    def weights(self, tokens):
        return tokens.role == 77


@pytest.mark.parametrize(
    ("component", "law", "text"),
    [
        (TooShort, "weighs_every_token", "weights() returned an array of shape (141,); expected (142,) ("),
        (Counts, "trains_what_it_says", "has a weight above 0, though the model need not produce it"),
        (Negative, "weighs_every_token", "the weight -1.0; weights are finite and >= 0 ("),
        (Random, "is_deterministic", "of role assistant, has another weight the second time | draw no random numbers"),
        (Writing, "leaves_the_tokens_alone", "`tokens.trainable` changed | copy an array before you assign to it."),
        (ByBatch, "does_not_depend_on_the_batch", "in a batch of 2 rows than alone | look at each row by itself"),
        (Users, "trains_what_it_says", "of role user, has a weight above 0, though the model need not produce it"),
        (Nothing, "trains_something", "| check the comparison: codes of roles and parts come from `tokens.role_code`"),
    ],
)
def test_maskings(component, law, text):
    found = broken(check_masking, component)
    # What writes into the batch is not deterministic either; either law may catch it first.
    assert found == (law, AnyText(text)) or (component is Writing and found[0] == "is_deterministic")


def test_a_strategy_says_whom_it_trains():
    check_masking(UsersSaidSo)


# --- quantization -----------------------------------------------------------------------------------------------------


class Whole(Quantization):
    """32-bit floats."""

    type: Literal["whole"] = "whole"
    bits = 32

    def load_kwargs(self):
        return {"dtype": torch.float32}


class OneDictionary(Whole):
    """It hands out the same dictionary each time."""

    def load_kwargs(self):
        return KWARGS


KWARGS = {"dtype": torch.float32}


class Boastful(Whole):
    """It says 8 bits, and holds 32."""

    bits = 8


class Hoarder(Whole):
    """It says that inputs are kept, and they are not."""

    keeps_inputs = True


class Dead(Whole):
    """It makes infinite weights."""

    def prepare_model(self, model):
        model.model.norm.weight.data.fill_(float("nan"))


class Frozen(Whole):
    """Nothing gets a gradient through it."""

    def prepare_model(self, model):
        for parameter in model.parameters():
            parameter.register_hook(lambda gradient: gradient * 0)
        model.model.register_forward_hook(lambda module, inputs, output: _cut(output))


def _cut(output):
    output.last_hidden_state = output.last_hidden_state.detach()
    return output


class FrozenSaidSo(Frozen):
    """It says that no adapter can be trained on it."""

    @property
    def adaptable(self):
        return False


class Dice(Whole):
    """Its weights are rounded by dice."""

    def prepare_model(self, model):
        weight = model.model.layers[0].mlp.up_proj.weight.data
        weight += 0.1 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(next(COUNT)))


class Marked(Whole):
    """Its weights are others once it is loaded, and nobody who reads the card knows."""

    def prepare_model(self, model):
        model.model.layers[0].mlp.up_proj.weight.data *= 2


class MarkedSaidSo(Marked):
    """It says how to do so without sftplug."""

    def loading_code(self):
        return "model.model.layers[0].mlp.up_proj.weight.data *= 2"


class TrainsWhole(Frozen):
    """It says that the weights are trained, and they are not."""

    trainable = True

    @property
    def adaptable(self):
        return False


@pytest.mark.parametrize(
    ("component", "law", "text"),
    [
        (OneDictionary, "gives_the_same_arguments", "| make the dictionary in the method."),
        (Dead, "loads", "logits that are not finite | see that what is not quantized"),
        (Boastful, "says_how_many_bits", "bytes_per_parameter is 1.0000, and 7 modules hold 4.0000 bytes a weight"),
        (Hoarder, "says_whether_inputs_are_kept", "the input of a product is not kept | set `keeps_inputs = False`"),
        (Frozen, "trains_an_adapter_or_says_it_cannot", "| override `adaptable` to return False"),
        (Dice, "reloads_to_the_same_logits", "| weights must be quantized the same each time they are loaded"),
        (Marked, "is_loaded_by_its_card", "| override loading_code to return Python that does to `model` what"),
        (TrainsWhole, "trains_whole_if_it_says_so", "| set `trainable` to False"),
    ],
)
def test_quantizations(component, law, text):
    assert broken(check_quantization, component) == (law, AnyText(text))


def test_a_backend_says_that_no_adapter_can_be_trained_on_it():
    check_quantization(FrozenSaidSo)


def test_a_backend_that_changes_a_loaded_model_says_how():
    check_quantization(MarkedSaidSo)


# --- adapters ---------------------------------------------------------------------------------------------------------


class Small(Adapter):
    """LoRA of rank 2."""

    type: Literal["small"] = "small"

    def peft_config(self):
        return LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=["q_proj", "v_proj"])


class OneConfiguration(Small):
    """It hands out the same configuration each time."""

    def peft_config(self):
        return CONFIG


CONFIG = LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=["q_proj"])


class Complaining(Small):
    """It finds fault with every model."""

    def check_model(self, model):
        yield "no model is good enough"


class Secretive(Small):
    """It trains the base, and does not say so."""

    def peft_config(self):
        return None


class Idle(Small):
    """It trains nothing."""

    trains_base: ClassVar[bool] = True

    def peft_config(self):
        return None

    def prepare_model(self, model):
        model.requires_grad_(False)


class Useless(Small):
    """What it trains does not change what the model says."""

    trains_base: ClassVar[bool] = True

    def peft_config(self):
        return None

    def prepare_model(self, model):
        model.requires_grad_(False)
        model.model.norm.weight.requires_grad_(True)
        model.model.norm.weight.register_hook(lambda gradient: gradient * 0)


class Noisy(Small):
    """It changes the base otherwise each time."""

    def prepare_model(self, model):
        weight = model.model.layers[0].mlp.up_proj.weight.data
        weight += 0.1 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(next(COUNT)))


class Prompts(Small):
    """It says that a prompt can be merged."""

    def peft_config(self):
        return PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4)


class PromptsSaidSo(Prompts):
    """It says that a prompt cannot be merged."""

    @property
    def mergeable(self):
        return False


@pytest.mark.parametrize(
    ("component", "law", "text"),
    [
        (OneConfiguration, "gives_the_same_configuration", "| make the configuration in the method"),
        (Complaining, "fits_a_model", "['no model is good enough'] | give the check options that fit such a model"),
        (
            Secretive,
            "trains_what_it_says",
            "but `trains_base` is False | freeze the base with `model.requires_grad_(False)`, or set",
        ),
        (Idle, "trains_what_it_says", "no parameter is trained | return a configuration, or unfreeze"),
        (Useless, "learns", "| see that what is trained is used by the forward pass"),
        (Noisy, "reloads_to_the_same_logits", "more than the 1e-05 of rounding | what prepare_model"),
        (Prompts, "merges_if_it_says_so", "| override `mergeable` to return False"),
    ],
)
def test_adapters(component, law, text):
    assert broken(check_adapter, component) == (law, AnyText(text))


def test_an_adapter_says_that_it_cannot_be_merged():
    check_adapter(PromptsSaidSo)


class Beside(Small):
    """A factor for what the model's last norm puts out; no type of PEFT."""

    def peft_config(self):
        return None

    def prepare_model(self, model):
        norm = model.requires_grad_(False).model.norm
        norm.factor = torch.nn.Parameter(torch.ones_like(norm.weight))
        norm.register_forward_hook(lambda module, _, output: output * module.factor)

    def loading_code(self):
        return """from safetensors.torch import load_file

model.model.norm.weight.data *= load_file(files / "adapter.safetensors")["model.norm.factor"]
"""

    def merge(self, model):
        norm = model.model.norm
        norm.weight.data *= norm.factor.data
        norm._forward_hooks.clear()
        del norm.factor
        return model


class Emptyhanded(Beside):
    """It saves nothing that it needs, and does not look."""

    def save(self, model, folder):
        (folder / "nothing").touch()

    def load(self, model, folder):
        self.prepare_model(model)


class Cardless(Beside):
    """It says nothing to a reader of its card."""

    def loading_code(self):
        return ""


class Unmerged(Beside):
    """It gives back the model as it is, with a hook that no file holds."""

    def merge(self, model):
        return model


class Mergeless(Beside):
    """It says nothing of merging."""

    merge = Adapter.merge


@pytest.mark.parametrize(
    ("component", "law", "text"),
    [
        (Emptyhanded, "reloads_to_the_same_logits", "`save` and `load` of an adapter that is no type of PEFT"),
        (Cardless, "is_loaded_by_its_card", "| override loading_code to return Python that does to the base"),
        (Unmerged, "merges_if_it_says_so", "or `merge`, which returns a model that plain transformers loads"),
        (Mergeless, "merges_if_it_says_so", "or `merge`, which returns a model that plain transformers loads"),
    ],
)
def test_adapters_that_are_no_type_of_peft(component, law, text):
    assert broken(check_adapter, component) == (law, AnyText(text))


def test_an_adapter_that_is_no_type_of_peft_passes():
    check_adapter(Beside)


class Rescaling(Small):
    """It multiplies activations (IA3)."""

    def peft_config(self):
        return IA3Config(task_type="CAUSAL_LM", target_modules=["q_proj", "v_proj"], feedforward_modules=[])


def test_an_adapter_that_is_no_lora_passes():
    check_adapter(Rescaling)


# --- chat templates ---------------------------------------------------------------------------------------------------


class Written(ChatTemplate):
    """Role, content, EOS."""

    type: Literal["written"] = "written"

    def source(self, tokenizer):
        return TURN + PROMPT


TURN = "{% for m in messages %}{{ m.role }}: {{ m.content }}{{ eos_token }}\n{% endfor %}"
PROMPT = "{% if add_generation_prompt %}assistant: {% endif %}"


class Changing(Written):
    """Another text each time."""

    def source(self, tokenizer):
        return f"{TURN}{{# {random.random()} #}}{PROMPT}"


class Taking(Written):
    """It gives itself to the tokenizer."""

    def source(self, tokenizer):
        tokenizer.chat_template = TURN
        return TURN + PROMPT


class Unclosed(Written):
    """A loop has no end."""

    def source(self, tokenizer):
        return "{% for m in messages %}{{ m.content }}"


class Escaping(Written):
    """It reaches for what the sandbox does not give."""

    def source(self, tokenizer):
        return "{{ messages.__class__.__mro__ }}" + TURN + PROMPT


class Forgetful(Written):
    """It does not show what users say."""

    def source(self, tokenizer):
        return TURN.replace("{{ m.content }}", "{% if m.role != 'user' %}{{ m.content }}{% endif %}") + PROMPT


class Endless(Written):
    """Nothing ends a turn."""

    def source(self, tokenizer):
        return TURN.replace("{{ eos_token }}", "") + PROMPT


class OtherPrompt(Written):
    """The prompt holds what turns do not."""

    def source(self, tokenizer):
        return TURN + PROMPT.replace("assistant: ", "assistant: <think>\n")


@pytest.mark.parametrize(
    ("component", "law", "text"),
    [
        (Changing, "gives_the_same_source", "| return the text of a file that is shipped with the plugin."),
        (Taking, "gives_the_same_source", "another chat template or other tokens than before | return the source"),
        (Unclosed, "compiles", "chat template 'written', line 1: Unexpected end of template."),
        (Escaping, "compiles", "| fix the template at that place"),
        (Forgetful, "shows_what_was_said", "| print `message.content` of every message."),
        (Endless, "passes_the_check_of_spans", "no token marks its end"),
        (OtherPrompt, "prompt_is_a_prefix", "| end the template with the assistant's header"),
    ],
)
def test_chat_templates(component, law, text):
    assert broken(check_template, component) == (law, AnyText(text))


def test_a_chat_template_without_fault_passes():
    check_template(Written)


# --- callbacks, sources, length policies ------------------------------------------------------------------------------


class Quiet(Callback):
    """It does nothing."""

    type: Literal["quiet"] = "quiet"

    def trainer_callback(self):
        return TrainerCallback()


class Shared(Quiet):
    """One for all runs."""

    def trainer_callback(self):
        return CALLBACK


CALLBACK = TrainerCallback()


class Meddling(Quiet):
    """It scales gradients."""

    def trainer_callback(self):
        return Meddler()


class Meddler(TrainerCallback):
    def on_pre_optimizer_step(self, args, state, control, **kwargs):
        kwargs["model"].model.norm.weight.grad.zero_()


def test_callbacks():
    check_callback(Quiet)
    assert broken(check_callback, Shared) == ("makes_a_callback", AnyText("| return a new instance of a subclass"))
    found = broken(check_callback, Meddling)
    assert found == ("leaves_the_training_alone", AnyText("parameters differ, such as model."))
    assert found == ("leaves_the_training_alone", AnyText("| restore what you change"))


class Three(DatasetSource):
    """Three rows."""

    type: Literal["three"] = "three"

    def label(self):
        return "three"

    def rows(self):
        yield from (Row({"number": index}, f"three[{index}]") for index in range(3))


class Spent(Three):
    """It can be read once."""

    def rows(self):
        return ONCE


ONCE = iter([Row({"number": 1}, "once[0]")])


class OneOrigin(Three):
    """Every row is said to be in the same place."""

    def rows(self):
        yield from (Row({"number": index}, "three") for index in range(3))


class Clock(Three):
    """The fingerprint changes with time."""

    def fingerprint(self):
        return str(next(COUNT))


class Stamped(Three):
    """It looks changed each time it is looked at."""

    def stamp(self):
        return str(next(COUNT))


def test_sources():
    check_source(Three)
    assert broken(check_source, Spent) == ("yields_the_same_rows_again", AnyText("| open what you read inside of rows"))
    assert broken(check_source, OneOrigin) == (
        "yields_rows",
        AnyText("3 rows have the origin 'three' | count the rows"),
    )
    assert broken(check_source, Clock) == (
        "has_a_steady_fingerprint",
        AnyText("| return a hash of what is read"),
    )
    assert broken(check_source, Stamped) == ("has_a_steady_fingerprint", AnyText("stamp(): "))


class Keep(LengthPolicy):
    """It drops."""

    type: Literal["keep"] = "keep"

    def shorten(self, row):
        return []


class KeepAll(Keep):
    """It shortens nothing."""

    def shorten(self, row):
        return [row.conversation]


class CutTooFew(Keep):
    """It leaves one token too many."""

    def shorten(self, row):
        return slice(0, row.limit + 1)


class Summary(Keep):
    """It makes up a message."""

    def shorten(self, row):
        return [Conversation((Message("user", "in short"),))] if len(row.conversation.messages) > 1 else []


def test_length_policies():
    check_length_policy(Keep)
    assert broken(check_length_policy, KeepAll) == (
        "shortens",
        AnyText("shorten() must return conversations with"),
    )
    assert broken(check_length_policy, CutTooFew) == ("shortens", AnyText("| keep at most `row.limit` tokens."))
    assert broken(check_length_policy, Summary) == ("invents_nothing", AnyText("| choose among"))


class Plain(RowProcessor):
    """It leaves rows as they are."""

    type: Literal["plain"] = "plain"

    def process(self, row):
        return row.data


class Counted(Plain):
    """It numbers the rows that it has seen, in whatever run."""

    def process(self, row):
        return {**row.data, "number": next(COUNT)}


class WritingRows(Plain):
    """It writes into the row."""

    def process(self, row):
        row.data["question"] = "?"
        return {"question": "?"}


class Unwritable(Plain):
    """It makes what no file holds."""

    def process(self, row):
        return {"answers": {1, 2}}


class Trusting(Plain):
    """It takes what it needs without a look."""

    def process(self, row):
        return {"question": row.data["question"].upper()}


LAST = []


class Remembering(Plain):
    """It compares with the row before it."""

    def process(self, row):
        LAST[:] = [*LAST[-1:], row.data]
        return Dropped("as before") if LAST[0] == LAST[-1] and len(LAST) > 1 else row.data


class WholeStream(StreamProcessor):
    """It sees all rows."""

    type: Literal["whole"] = "whole"

    def stream(self, rows, context):
        yield from rows


class ForgetfulRows(WholeStream):
    """It forgets every second row."""

    def stream(self, rows, context):
        yield from itertools.islice(rows, 0, None, 2)


class Sorting(WholeStream):
    """It holds all rows without saying so."""

    def stream(self, rows, context):
        yield from sorted(rows, key=lambda row: row.origin)


class ShufflingRows(WholeStream):
    """It draws anew each time."""

    holds_rows: ClassVar[bool] = True

    def stream(self, rows, context):
        yield from random.sample(rows := list(rows), len(rows))


def test_row_processors():
    rows = [{"question": f"{number}?"} for number in range(30)]
    check_row_processor(Plain, rows)
    check_row_processor(WholeStream, rows)
    assert broken(check_row_processor, Counted, rows) == ("is_the_same_again", AnyText("| keep what you note of rows"))
    assert broken(check_row_processor, ShufflingRows, rows) == (
        "is_the_same_again",
        AnyText("draw with `context.seed`."),
    )
    assert broken(check_row_processor, Unwritable, rows) == ("passes_on_rows", AnyText("| make rows of text, numbers"))
    assert broken(check_row_processor, ForgetfulRows, rows) == (
        "passes_on_rows",
        AnyText("read 15 rows and said nothing"),
    )
    assert broken(check_row_processor, Sorting, rows) == ("lets_rows_go", AnyText("does not say `holds_rows = True`"))
    assert broken(check_row_processor, WritingRows, [{"question": "a"}]) == (
        "leaves_rows_alone",
        AnyText("| return new"),
    )
    assert broken(check_row_processor, Trusting, rows) == ("refuses_a_bad_row_by_name", AnyText("| look before you"))
    LAST.clear()
    law = "judges_each_row_alone", AnyText("| make it a sftplug.StreamProcessor")
    assert broken(check_row_processor, Remembering, [{"question": "a"}, {"question": "b"}]) == law


class Cautious(Loss):
    """It is cross-entropy."""

    type: Literal["cautious"] = "cautious"

    def token_losses(self, tokens):
        return tokens.nll()


class Quotient(Cautious):
    """It divides by what may be nothing."""

    def token_losses(self, tokens):
        return 1 / tokens.logits.softmax(-1).gather(1, tokens.labels[:, None])[:, 0]


class Root(Cautious):
    """Its slope has no end where the loss is nothing."""

    def token_losses(self, tokens):
        return tokens.nll().sqrt()


class Mean(Cautious):
    """It compares a token with those beside it."""

    def token_losses(self, tokens):
        return tokens.nll() / tokens.nll().mean().clamp(min=1e-3)


class Lottery(Cautious):
    """It draws lots."""

    def token_losses(self, tokens):
        return tokens.nll() + torch.rand(1)


class Overwriting(Cautious):
    """It writes into what it is given."""

    def token_losses(self, tokens):
        losses = tokens.nll()
        tokens.weights.zero_()
        return losses


class Cut(Cautious):
    """It learns nothing."""

    def token_losses(self, tokens):
        return tokens.nll().detach()


class Blind(Cautious):
    """It says that it does without logits, and asks for them."""

    reads_logits = False

    def token_losses(self, tokens):
        return tokens.nll() + tokens.logits.logsumexp(-1)


class Doubled(Cautious):
    """It says that it is what it is not."""

    @property
    def is_nll(self):
        return True

    def token_losses(self, tokens):
        return 2 * tokens.nll()


def test_losses():
    check_loss(Cautious)
    assert broken(check_loss, Quotient) == ("is_finite", AnyText("work with logarithms"))
    assert broken(check_loss, Root) == ("has_a_gradient", AnyText("| clamp what is raised to a power"))
    assert broken(check_loss, Mean) == ("judges_each_token_alone", AnyText("| leave means and sums over tokens"))
    assert broken(check_loss, Lottery) == ("judges_each_token_alone", AnyText("| leave means and sums over tokens"))
    assert broken(check_loss, Overwriting) == ("is_the_same_again", AnyText("| do not write into what is given"))
    assert broken(check_loss, Cut) == ("is_finite", AnyText("its gradient does not reach them"))
    assert broken(check_loss, Blind) == ("does_without_logits", AnyText("| let `reads_logits` be True"))
    assert broken(check_loss, Doubled) == ("is_what_it_says", AnyText("| let `is_nll` be False."))


class Defined(Head):
    """It is what the definition says."""

    type: Literal["defined"] = "defined"

    def nll(self, states, layer, labels):
        return torch.nn.functional.cross_entropy(layer.logits(states), labels, reduction="none")


class Uncapped(Defined):
    """It knows of no layer but the plain one."""

    def nll(self, states, layer, labels):
        logits = torch.nn.functional.linear(states, layer.weight, layer.bias)
        return torch.nn.functional.cross_entropy(logits, labels, reduction="none")


class Averaged(Defined):
    """It gives every token the mean of all gradients, as kernels do that sum tokens first."""

    def nll(self, states, layer, labels):
        losses = super().nll(states, layer, labels)
        return losses.detach() + losses.mean() - losses.mean().detach()


class Thawed(Defined):
    """It works out the gradient of the layer whether or not that is trained."""

    def nll(self, states, layer, labels):
        layer.weight.requires_grad_()
        return super().nll(states, layer, labels)


class Watched(Defined):
    """It gives numbers only where gradients are asked for, which it makes on the way."""

    def nll(self, states, layer, labels):
        losses = super().nll(states, layer, labels)
        return losses if losses.requires_grad else losses * 0


class Scaling(Defined):
    """It scales the states in place."""

    def nll(self, states, layer, labels):
        losses = super().nll(states, layer, labels)
        states.data.mul_(0.5)
        return losses


def test_heads():
    check_head(Defined)
    assert broken(check_head, Thawed) == ("leaves_a_frozen_layer_alone", AnyText("| compute gradients of what"))
    assert broken(check_head, Watched) == ("is_the_same_again", AnyText("without gradients, [0.0, "))
    assert broken(check_head, Scaling) == ("is_the_same_again", AnyText("was changed with bias absent"))
    assert broken(check_head, Uncapped) == ("is_the_likelihood", AnyText("| scale and cap the products as"))
    assert broken(check_head, Averaged) == ("has_its_gradient", AnyText("| let the gradient of each token's own loss"))


class Length(Metric):
    """It counts letters."""

    type: Literal["length"] = "length"

    def scores(self, replies):
        return [float(len(reply.text)) for reply in replies]


class Unlabelled(Length):
    """Its results have no name."""

    @property
    def label(self):
        return ""


class Ratio(Length):
    """It divides by nothing."""

    def scores(self, replies):
        return [len(reply.text) / len(reply.text) if reply.text else math.nan for reply in replies]


class Once(Length):
    """It forgets what it has scored already."""

    def scores(self, replies):
        return [float(len(text)) for text in {reply.text for reply in replies}]


class Rank(Length):
    """It scores replies by those beside them."""

    def scores(self, replies):
        return [float(sum(other.text < reply.text for other in replies)) for reply in replies]


class Unfit(Length):
    """It refuses without a word."""

    def scores(self, replies):
        raise RowError("reference", "")


def test_metrics():
    check_metric(Length)
    assert broken(check_metric, Unlabelled) == (
        "is_called_something",
        AnyText("label() must return a name"),
    )
    assert broken(check_metric, Ratio) == ("scores_every_reply", AnyText("the score nan: return a finite number"))
    assert broken(check_metric, Once) == ("scores_every_reply", AnyText("must return a number for each"))
    assert broken(check_metric, Rank) == ("scores_each_reply_alone", AnyText("| let a score depend on its own reply"))
    assert broken(check_metric, Unfit) == ("scores_every_reply", AnyText("| name 'reference' and the reason."))


# --- the package ------------------------------------------------------------------------------------------------------


def test_importing_sftplug_imports_neither_the_kit_nor_hypothesis():
    code = "import sys, sftplug, sftplug.cli; print([m for m in ('sftplug.testing', 'hypothesis') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_a_missing_hypothesis_is_named():
    code = (
        "import sys\nsys.modules['hypothesis'] = None\n"
        "from sftplug.testing import assistant_spans, check_masking\nfrom sftplug_masking import Assistant\n"
        "check_masking(Assistant)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.stderr.splitlines()[-1] == (
        "sftplug.errors.MissingLibraryError: sftplug.testing needs the library hypothesis, which is not installed. "
        "Run: pip install 'sftplug[testing]'"
    )


class Listed(Exporter):
    """It lists the files."""

    type: Literal["listed"] = "listed"
    suffix: ClassVar[str] = ".txt"

    def export(self, model, target):
        target.write_text("\n".join(model.files))


class Numbered(Listed):
    """It is another each time."""

    def export(self, model, target):
        target.write_text(str(next(COUNT)))


class Moved(Listed):
    """It takes the card out of the run."""

    def export(self, model, target):
        (model.folder / "README.md").rename(target)


class Littering(Listed):
    """It leaves what it needed on the way."""

    def export(self, model, target):
        target.with_name(f"{next(COUNT)}.tmp").write_text("")
        super().export(model, target)


class Empty(Listed):
    """It writes nothing."""

    def export(self, model, target):
        return


class Unannounced(Listed):
    """It merges, and has not said so."""

    def export(self, model, target):
        target.write_text("".join(file.name for file in model.merged().iterdir()))


def test_exporters():
    check_exporter(Listed)
    assert broken(check_exporter, Empty) == ("leaves_the_run_alone", AnyText("must write the file that it is given"))
    assert broken(check_exporter, Littering) == ("writes_to_its_target_alone", AnyText("| write into `target`"))
    assert broken(check_exporter, Numbered) == ("writes_the_same_again", AnyText("| leave out times"))
    assert broken(check_exporter, Unannounced) == ("leaves_the_run_alone", AnyText("and `needs_merged` is False"))
    # The run is shared. That another export of it was compared, whereupon the card is written anew, is no leave.
    run = exporters._finished("lora").directory
    known = run.exports()
    run.write(EXPORTED, {**known, "elsewhere": {"exporter": "other", "compared": [{}]}})
    try:
        assert broken(check_exporter, Moved) == ("leaves_the_run_alone", AnyText("| write to `target` only"))
    finally:
        run.write(EXPORTED, known)
