"""A recipe: the core's sections, and one section per kind of component.

The classes here are what code reads (`recipe.adapter` is an `Adapter`). What a user may write is narrower: `choices`
builds the same classes with each kind replaced by the union of what is installed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any, ClassVar, Literal, TypeVar, get_args

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, field_validator, model_validator

from sftplug.plugin.components import (
    Adapter,
    Callback,
    ChatTemplate,
    Component,
    DatasetFormat,
    DatasetSource,
    Exporter,
    LengthPolicy,
    Loss,
    Masking,
    Metric,
    ModelBuilder,
    ModelPatch,
    Optimizer,
    Policy,
    Quantization,
    RecipeSection,
    RowProcessor,
    Schedule,
    parts_of,
    section_of,
)
from sftplug.recipe.left_out import LeftOut
from sftplug.recipe.section import InputPath, ModelName, Section, Share, ShortForm, as_share, refuse_nul
from sftplug.recipe.yaml import Path_, dotted
from sftplug.types.conversation import GIVEN_TO_TEMPLATES

S = TypeVar("S", bound=RecipeSection)


class ModelSection(Section):
    """The base model. A bare string is its name or path."""

    shorthand = "name_or_path"
    alternatives = ("name_or_path", "build")

    name_or_path: ModelName | None = None
    """Name on the Hub, or a folder written as a path (``./model``)."""
    build: ModelBuilder | None = None
    """Build the base model on the spot instead; the result is cached."""
    adapter: InputPath | None = None
    """Folder with an adapter of PEFT to train on: a finished run, a checkpoint, or what another program saved. Where
    `name_or_path` is such a folder, written as a path, this is meant, and the base that the adapter names."""
    merge_adapter: bool = False
    """What becomes of that adapter: false trains it on, with the options that it has; true makes it part of the base's
    weights, which are cached, and trains the recipe's adapter, a new one, beside them."""
    revision: str | None = None
    """Commit, tag or branch on the Hub. A commit makes a run repeatable."""
    trust_remote_code: bool = False
    """Run Python code that comes with the model. A model on the Hub must be pinned to a commit with `revision`."""
    code_revision: str | None = None
    """Commit of the code, where the model's configuration says that it lies in another repository than the model."""
    use_safetensors: bool = True
    """Load weights from safetensors only; false takes pickled ones (``pytorch_model.bin``) if there are no others."""
    attn_implementation: str | None = None
    """Attention kernel: ``sdpa``, ``eager``, ``flash_attention_2`` …; null leaves the choice to transformers."""
    add_tokens: tuple[str, ...] = ()
    """New special tokens, such as the control tokens of a chat template that the tokenizer lacks. One that the template
    does not write is a word that rows may use. Their rows in the embeddings and the head start as the mean of the
    others, and are trained."""


MaskingList = tuple[tuple[Masking, ...], ...]
"""Strategies whose weights multiply, each a union of one or more."""


_NOT_GIVEN: dict[str, Any] = {"propertyNames": {"not": {"enum": sorted(GIVEN_TO_TEMPLATES)}}}


SPLITS = ("source", "role", "part")
"""What the loss is split by without any tag."""


class SourceSection(Section):
    """Where rows come from, what they look like, and how they are used.

    The options of the source stand here too: `path` for files, `hub` for a dataset on the Hub.
    """

    source: DatasetSource
    """Where rows come from. May be left out where `path` or `hub` says it."""
    format: DatasetFormat = Field(default_factory=LeftOut)
    """What the rows look like. Left out, the first rows say it: the one installed format that recognizes them is taken,
    and told. Rows that do not fit are refused, with the columns that they have."""
    first: int | None = Field(None, gt=0)
    """Read only so many rows, from the start."""
    process: Annotated[tuple[RowProcessor, ...], ShortForm.ONE_FOR_A_LIST] = ()
    """What becomes of the rows before the format reads them, in this order; `replace` and `ignore` come after it."""
    share: Annotated[float | None, BeforeValidator(as_share)] = Field(None, gt=0, allow_inf_nan=False)
    """Share of this source in the mix, as in ``60%``, or in proportion to the shares of the other sources, as in 2 and
    1; ``data.mix`` says of what."""
    epochs: float = Field(1.0, gt=0, allow_inf_nan=False)
    """How often each row is seen; of a fraction, rows drawn by ``train.seed``."""
    masking: Annotated[MaskingList | None, ShortForm.UNIONS] = None
    """Which tokens of these rows are trained, where that differs from the recipe's ``masking``."""
    template_kwargs: dict[str, Any] = Field(default_factory=dict, json_schema_extra=_NOT_GIVEN)
    """More arguments of the chat template for these rows, such as ``enable_thinking``."""
    row_weight: str | None = None
    """Column that holds the loss weight of each row; the masking `message_weights` reads it."""
    ignore: tuple[str, ...] | Literal["rest"] = ()
    """Columns that the rows have and the run does not use, such as ``id``; ``rest`` is every column that nothing reads,
    and the ledger names them."""
    replace: dict[Annotated[str, Field(min_length=1)], str] = Field(default_factory=dict)
    """Texts that stand for others, such as ``{"{{name}}": Ada}``; each is replaced as it is written, in every text of a
    row, before the format reads it. One that stands in no row is refused."""
    tags: Annotated[tuple[Annotated[str, Field(min_length=1)], ...], ShortForm.ONE_FOR_A_LIST] = ()
    """Columns whose values tell rows apart, such as ``customer`` or ``language``: `loss_by`, metrics and reports are
    split by them. For columns of few values."""
    meta: dict[str, str] = Field(default_factory=dict, examples=[{"licence": "cc-by-4.0"}])
    """What else is known of the rows: ``{licence: cc-by-4.0, owner: support}``. It stands in the model card and in the
    record of the run, policies may ask for it, and it changes nothing."""
    system: str | None = Field(None, min_length=1)
    """The system turn of rows that have none; without it the template's own, if it has one, is what they train with."""

    @property
    def ignored(self) -> tuple[str, ...]:
        """The columns that are ignored by name."""
        return () if isinstance(self.ignore, str) else self.ignore

    @field_validator("tags")
    @classmethod
    def _are_told_apart(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if taken := [name for name in value if name in SPLITS or value.count(name) > 1]:
            raise ValueError(f"`{taken[0]}` is what rows are split by already. Rename the column, or leave it out.")
        return value

    @field_validator("template_kwargs")
    @classmethod
    def _leave_the_rows_alone(cls, value: dict[str, Any]) -> dict[str, Any]:
        if taken := [name for name in value if name in GIVEN_TO_TEMPLATES]:
            raise ValueError(f"`{taken[0]}` is what the rows give the template. Leave it out.")
        return value

    @model_validator(mode="before")
    @classmethod
    def _needs_a_source(cls, value: Any) -> Any:
        source = value.get("source", {}) if isinstance(value, Mapping) else None
        if isinstance(source, Mapping) and "type" not in source and len(SOURCE_OF.keys() & source.keys()) != 1:
            raise ValueError("needs exactly one of `path` and `hub`, or a `source`.")
        return value


SOURCE_OF = {"path": "file", "hub": "hub"}
"""Option -> the source that it stands for."""


class MixSection(Section):
    """How sources with a `share` are mixed."""

    by: Literal["rows", "tokens", "trained_tokens"] = "rows"
    """What the shares are of."""
    stop: Literal["first", "all"] = "first"
    """``first`` ends when one source is used up, so no row is seen twice; ``all`` when every source is, so the rows of
    the others are seen again."""


class DataSection(Section):
    """The rows to train and to evaluate on."""

    train: Annotated[tuple[SourceSection, ...], ShortForm.ONE_FOR_A_LIST, Field(min_length=1)]
    """One source, or a list of sources."""
    eval: Annotated[tuple[SourceSection, ...], ShortForm.ONE_FOR_A_LIST] = ()
    """Held-out rows, in the same form."""
    eval_fraction: float = Field(0.0, ge=0.0, lt=1.0)
    """Instead of `eval`: hold this share of the training rows out, chosen by ``train.seed``."""
    process: Annotated[tuple[RowProcessor, ...], ShortForm.ONE_FOR_A_LIST] = ()
    """What becomes of all training rows together, source after source, once each source's own `process` is done: a
    `dedupe` here finds what two sources share. Held-out rows of `eval` do not go through it."""
    system: str | None = Field(None, min_length=1)
    """The system turn of rows that have none, in sources without a `system` of their own. Plain text has no turns."""
    mix: MixSection = MixSection()
    max_length: int | None = Field(1024, gt=1)
    """Longest row, in tokens."""
    too_long: LengthPolicy = Field("drop", validate_default=True)
    """What becomes of a longer row."""
    max_loss: Annotated[float | None, BeforeValidator(as_share)] = Field(None, ge=0.0, le=1.0)
    """Largest share of a source's trained tokens that may be lost with rows that are too long; null is 1 %, and no
    limit for a policy such as `truncate`, which asks for the loss."""
    max_dropped: Share = 1.0
    """Largest share of a source's rows that may be dropped, for whatever reason."""
    special_tokens_in_content: Literal["auto", "escape", "error", "allow"] = "auto"
    """Text in a row that looks like a control token: ``escape`` tokenizes it as text, which stops the run where the
    tokenizer cannot; ``error`` refuses the row as `on_bad_row` says; ``allow`` lets it control. ``auto`` escapes it in
    conversations, and lets it control in plain text, which is laid out as it stands."""
    engine: Literal["auto", "tokenizers", "tiktoken"] = "auto"
    """What turns text into ids: ``tiktoken`` where it has proven to give the tokenizer's ids, else ``tokenizers``."""
    packing: Literal["auto", "none", "rows", "flat"] = "auto"
    """``rows`` packs documents into rows of `max_length`, kept apart by position ids; proven on the model first.
    ``flat`` lays the documents of a batch end to end for FlashAttention. ``none`` pads. ``auto`` is ``flat`` with
    FlashAttention and pads batches of rows of similar length without it."""
    on_bad_row: Literal["error", "skip"] = "error"
    """What happens when rows do not fit their format, or the chat template refuses them."""
    on_unread_column: Literal["error", "report"] = "error"
    """What happens when rows have a column that their format does not read and their source does not `ignore`: it may
    be misspelt, or be meant to be trained. The same goes for loss weights that no masking strategy reads."""
    on_empty: Literal["error", "drop"] = "error"
    """What happens when a row has no token to train on."""


class SpansSection(Section):
    """What to do where the template's text alone does not settle what is trained, and where it refuses rows."""

    missing_stop: Literal["error", "append_eos", "warn"] = "error"
    """A turn whose end no token marks: the model would never learn to stop."""
    on_divergence: Literal["split", "warn", "error"] = "split"
    """A turn that inference would render differently: train it in a row of its own, as inference renders it."""
    dropped_reasoning: Literal["error", "warn"] = "error"
    """Reasoning that the row holds and the template never shows."""
    dropped_tools: Literal["error", "warn"] = "error"
    """Tools that the row holds and the template never shows: the model would learn to call what it does not see."""
    system: Literal["keep", "into_user", "drop"] = "keep"
    """System turns, for a template that has no place for them: put what they say at the head of the user's next turn,
    or leave them out. It is done to every row that has one, and counted."""
    merge_turns: bool = False
    """Make neighbouring turns of one role one turn, a blank line between their texts, for a template that wants roles
    to alternate. It is done to every row that has some, and counted."""
    boundary: Literal["split", "error"] = "split"
    """A token that straddles the edge of a trained span: tokenize both sides apart, as inference does."""


class EvaluationSection(Section):
    """What the trained model answers by itself, and what that is worth; the loss of held-out rows needs no section."""

    metrics: Annotated[tuple[Metric, ...], ShortForm.ONE_FOR_A_LIST] = ()
    """What the replies are measured by. `sftplug train` does so when training is over, `sftplug eval` at any time."""
    rows: Annotated[int | None, Field(gt=0)] = 100
    """Answer so many of the held-out rows, spread evenly over them; null answers all."""
    max_new_tokens: Annotated[int, Field(gt=0)] = 256
    """Longest reply."""


class LaunchSection(Section):
    """Several processes, and how they share the work. A bare string is the strategy."""

    shorthand = "strategy"

    strategy: Literal["ddp", "fsdp2", "zero2", "zero3"] = "ddp"
    """``ddp`` gives every process the whole model; ``fsdp2`` and ``zero3`` (DeepSpeed) split weights, gradients and
    optimizer between them, ``zero2`` gradients and optimizer."""
    processes: int | None = Field(None, gt=0)
    """How many, over all nodes; null is one for each accelerator."""
    nodes: int = Field(1, gt=0)
    """How many machines. The command is run on each of them."""
    node_rank: int | None = Field(None, ge=0)
    """Which of them this is; 0 is the main one. Null asks SLURM."""
    main_process_ip: str | None = None
    """Address of the main one, as the others reach it."""
    main_process_port: int = Field(29500, ge=0, le=65535)
    """Port there. On one node another is taken if it is in use."""


class Recipe(Section):
    """Everything a run needs to know."""

    stands_in_for: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "optimizer": ("optim", "optim_args", "optim_target_modules", "adam_beta1", "adam_beta2", "adam_epsilon"),
        "schedule": ("lr_scheduler_type", "lr_scheduler_kwargs"),
    }
    """Section -> the options of `train` that say the same: naming one replaces the other when recipes are laid over
    each other."""

    plugins: Annotated[tuple[str, ...], ShortForm.ONE_FOR_A_LIST] = ()
    """Plugins to use beside those whose components are named: installed names, or files such as ``./mine.py``."""
    model: ModelSection
    data: DataSection
    chat_template: ChatTemplate = Field("tokenizer", validate_default=True)
    """How conversations become text."""
    masking: Annotated[MaskingList, ShortForm.UNIONS] = Field("assistant", validate_default=True)
    """Which tokens are trained. In a list the weights multiply; ``a + b`` unites two strategies."""
    spans: SpansSection = SpansSection()
    quantization: Quantization
    """The dtype or quantization of the base weights. Left out, the adapter says what suits it."""
    patches: Annotated[tuple[ModelPatch, ...], ShortForm.ONE_FOR_A_LIST] = ()
    """What changes how the model computes, such as its kernels, in this order; before the adapter comes."""
    adapter: Adapter = Field("full", validate_default=True)
    """Which parameters are trained."""
    loss: Loss = Field("cross_entropy", validate_default=True)
    """What each trained token costs; how much it counts is said by `masking`."""
    optimizer: Optimizer | None = None
    """What updates the weights; null leaves it to ``train.optim``. Rate and weight decay are those of ``train``."""
    schedule: Schedule | None = None
    """How the learning rate goes over the run; null leaves it to ``train.lr_scheduler_type``."""
    callbacks: Annotated[tuple[Callback, ...], ShortForm.ONE_FOR_A_LIST] = ()
    """What watches the training loop, in this order."""
    evaluation: EvaluationSection = EvaluationSection()
    export: Annotated[tuple[Exporter, ...], ShortForm.ONE_FOR_A_LIST] = ()
    """The forms in which the model is also written when training is over; `sftplug export` does so any time later."""
    policies: Annotated[tuple[Policy, ...], ShortForm.ONE_FOR_A_LIST] = ()
    """Rules that this recipe is held to, beside those of the house file; they forbid, and change nothing."""
    train: dict[str, Any] = Field(default_factory=dict)
    """Options of the trainer: the fields of ``trl.SFTConfig``."""
    launch: LaunchSection | None = None
    """Train in several processes; null is one, unless a launcher has started more."""
    output: Annotated[str, AfterValidator(refuse_nul)] = "runs/{name}"
    """Folder for the result; ``{name}`` is the recipe's name. Relative to the working folder."""

    def section(self, kind: type[S]) -> S:
        """Return the section of that class, which a plugin owns; where the recipe has none, with its defaults.

        Raises PluginError where it has none and an option has no default.
        """
        return section_of(kind, self.own_sections())

    def own_sections(self) -> list[RecipeSection]:
        """Return the sections that plugins own, in the order of their names."""
        return [value for value in vars(self).values() if isinstance(value, RecipeSection)]

    def components(self) -> Iterator[tuple[str, Component]]:
        """Yield (path in the recipe, component) for every component chosen, in the order of the data."""
        for path, component in self._located():
            shown = path
            if isinstance(component, DatasetSource):
                shown = (*path[:-1], component.shorthand or "source")
            elif isinstance(component, Masking):
                shown = path[:-2]
            yield dotted(shown), component
            # The options of a source stand beside those of its section.
            beside = path[:-1] if isinstance(component, DatasetSource) else path
            yield from ((dotted((*beside, *below)), part) for below, part in parts_of(component))

    def located_components(self) -> Iterator[tuple[Path_, Component]]:
        """Yield (path, component) of the same; a path leads through the recipe as it is spelled out."""
        for path, component in self._located():
            yield path, component
            yield from (((*path, *below), part) for below, part in parts_of(component))

    def _located(self) -> Iterator[tuple[Path_, Component]]:
        """Yield (path, component) for what the sections hold."""
        for where in ("train", "eval"):
            for index, source in enumerate(getattr(self.data, where)):
                path = ("data", where, index)
                yield (*path, "source"), source.source
                yield from (((*path, "process", step), processor) for step, processor in enumerate(source.process))
                yield (*path, "format"), source.format
                yield from _located_maskings((*path, "masking"), source.masking or ())
        yield from ((("data", "process", step), processor) for step, processor in enumerate(self.data.process))
        yield ("data", "too_long"), self.data.too_long
        yield ("chat_template",), self.chat_template
        yield from _located_maskings(("masking",), self.masking)
        if self.model.build is not None:
            yield ("model", "build"), self.model.build
        yield ("quantization",), self.quantization
        yield from ((("patches", index), patch) for index, patch in enumerate(self.patches))
        yield ("adapter",), self.adapter
        yield ("loss",), self.loss
        if self.optimizer is not None:
            yield ("optimizer",), self.optimizer
        if self.schedule is not None:
            yield ("schedule",), self.schedule
        yield from ((("callbacks", index), callback) for index, callback in enumerate(self.callbacks))
        metrics = enumerate(self.evaluation.metrics)
        yield from ((("evaluation", "metrics", index), metric) for index, metric in metrics)
        yield from ((("export", index), exporter) for index, exporter in enumerate(self.export))
        yield from ((("policies", index), policy) for index, policy in enumerate(self.policies))
        yield from (((section.type,), section) for section in self.own_sections())


def _located_maskings(path: Path_, masking: MaskingList) -> Iterator[tuple[Path_, Masking]]:
    for index, union in enumerate(masking):
        yield from (((*path, index, member), part) for member, part in enumerate(union))


def class_at(path: Iterable[str | int]) -> type[BaseModel] | None:
    """Return the section or kind of component that stands at `path` in a recipe; None for a plain value."""
    found: type[BaseModel] | None = Recipe
    for part in path:
        if isinstance(part, int):
            continue
        field = found.model_fields.get(part) if found is not None and issubclass(found, Section) else None
        found = next(models_in(field.annotation), None) if field is not None else None
    return found


def models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """Yield the sections and kinds that `annotation` speaks of."""
    if isinstance(annotation, type) and not get_args(annotation) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from models_in(inner)
