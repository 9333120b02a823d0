"""Setting up a training from a recipe: the model to start from, the data, the dev set's evaluation, the output."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nlpkit.apps.models.adapters import find_adapter
from nlpkit.apps.tasks.encoder import EVERY, PromptEncoder
from nlpkit.apps.training.examples import (
    ExampleSource,
    find_task,
    has_short_prompts,
    open_source,
    training_texts,
    what_is_taught,
)
from nlpkit.apps.training.recipe import TEXT, DataSpec, Recipe
from nlpkit.core.chat.template import ChatTemplate
from nlpkit.core.errors import ConfigError, InputError
from nlpkit.core.fetch.resolve import resolve_model
from nlpkit.core.files.hashing import hash_value, sha256_file
from nlpkit.core.files.write import unwritable, whole_folder
from nlpkit.core.formats.build import build_model, check_vocabulary
from nlpkit.core.formats.hf import is_known_family
from nlpkit.core.formats.open import open_model
from nlpkit.core.formats.peft.adapter import open_adapter
from nlpkit.core.machine.devices import has_fast_bf16
from nlpkit.core.model.gpt import GPT
from nlpkit.core.model.lora import LoraConfig, add_lora
from nlpkit.core.tokenizers.load import load_tokenizer
from nlpkit.core.tokenizers.train import CHATML, END_OF_TEXT, TURN_END, train_tokenizer
from nlpkit.core.train.checkpoints.checkpoint import has_checkpoints
from nlpkit.core.train.checkpoints.output import write_adapter, write_model
from nlpkit.core.train.config import LENGTH, TrainConfig
from nlpkit.core.train.data.packing import Packer
from nlpkit.core.train.distributed import Process
from nlpkit.core.train.init import new_model
from nlpkit.core.train.loop import Trainer
from nlpkit.core.train.presets import PRESETS, preset_config

BIG = 20_000_000
"""Parameters from which on bf16 is worth its rounding, where the machine multiplies it natively."""
CPU_SLOTS = 1024
"""Slots that a processor computes at once where nobody says how many. LoRA training of the default model on rows of 512
took 12.3 GB with all 8 rows of a step at once; two at a time took 5.0 GB and less time."""


@dataclass(frozen=True, kw_only=True)
class Start:
    """What training starts from.

    Attributes:
        model: The model; its parameters to train require gradients.
        encoder: Makes the tokens to learn from.
        config: The training's options, with all defaults filled in.
        base: Name of the model it comes from, or None.
        identity: Hashes of what it is made from, by a name for people.
    """

    model: GPT
    encoder: PromptEncoder
    config: TrainConfig
    base: str | None
    identity: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Training:
    """A training that is ready to run.

    Attributes:
        start: The model and its options.
        sources: Training data.
        dev_sources: Development data.
        trainer: Makes the steps.
        dev: Development data, packed; None without any.
        identity: What must not change on resume.
    """

    start: Start
    sources: tuple[ExampleSource, ...]
    dev_sources: tuple[ExampleSource, ...]
    trainer: Trainer
    dev: Packer | None
    identity: Mapping[str, str]
    notes: tuple[str, ...] = field(default=())


def _config(recipe: Recipe, *, context: int, n_parameters: int, device: torch.device) -> TrainConfig:
    """Fill in the options that nobody gave."""
    values = dict(recipe.train)
    if values.get("dtype") in (None, "auto"):
        values["dtype"] = "bf16" if has_fast_bf16(device) and n_parameters >= BIG else "fp32"
    rates = {"full": 5e-5, "lora": 5e-4}
    values.setdefault("lr", PRESETS[recipe.preset].learning_rate if recipe.preset else rates[recipe.method])
    values.setdefault("seq_len", min(512, context))
    if recipe.method != "scratch":
        values.setdefault("weight_decay", 0.01)
    if device.type == "cpu" and not {"batch_size", "accumulate"} & values.keys():
        # The step's rows stay as many: parts that the processor's caches hold are faster, and take less memory.
        values["batch_size"] = next(n for n in (8, 4, 2, 1) if n == 1 or n * values["seq_len"] <= CPU_SLOTS)
        values["accumulate"] = TrainConfig.batch_size // values["batch_size"]
    if all(values.get(name) is None for name in LENGTH):
        values["epochs"] = 1.0
    return TrainConfig.from_dict({**values, "method": recipe.method})


def _sha256(path: str) -> str:
    if path == "-":
        raise ConfigError("Training reads its data more than once, so they must be files: a pipe will not do.")
    if not Path(path).is_file():
        raise InputError(f"There is no data file {path}. Check the path.")
    return sha256_file(path)


def _tokenizer_from_scratch(recipe: Recipe, folder: Path) -> tuple[Any, ChatTemplate]:
    """Load or train the tokenizer of a new model; a trained one is kept in the output folder."""
    options = dict(recipe.tokenizer)
    path = options.pop("path", None)
    if path is not None:
        if options:
            raise ConfigError(f"The tokenizer's path is given, so {', '.join(options)} has no meaning. Leave it out.")
        tokenizer = load_tokenizer(resolve_model(path) if not Path(path).exists() else path)
        turn_end = tokenizer.token_to_id(TURN_END)
        if turn_end is None and any(spec.task != TEXT for spec in recipe.data):
            raise ConfigError(
                f"The tokenizer {path} has no {TURN_END}, with which answers to tasks end in a new model. Train one, "
                "or fine-tune a model with this tokenizer instead."
            )
        return tokenizer, ChatTemplate(CHATML)
    options.setdefault("kind", "bpe")
    options.setdefault("vocab_size", PRESETS[str(recipe.preset)].vocab_size if recipe.preset in PRESETS else 8192)
    facts = {**options, "data": [(spec.task, spec.limit, _sha256(spec.path)) for spec in recipe.data]}
    key = hash_value(facts)
    mark = folder / "tokenizer" / "made-from"
    if not mark.exists() or mark.read_text("utf-8") != key:
        if has_checkpoints(folder / "checkpoints"):
            files = ", ".join(spec.path for spec in recipe.data)
            raise ConfigError(
                f"Training in {folder} cannot go on: what its tokenizer was made from changed ({files}, or the "
                "tokenizer's options). Run with what it began with, or start anew in another folder."
            )
        made = train_tokenizer(
            options["kind"],
            training_texts(recipe.data, short=recipe.prompts == "brief"),
            vocab_size=options["vocab_size"],
            symbols=options.get("symbols", ()),
        )
        with unwritable(f"The tokenizer cannot be written to {folder}"), whole_folder(folder / "tokenizer") as aside:
            made.save(aside)
            (aside / "made-from").write_text(key, "utf-8")
    return load_tokenizer(folder / "tokenizer"), ChatTemplate(CHATML, eos_token=END_OF_TEXT)


def _check_prompts(recipe: Recipe, base: str | None, learned: frozenset[str]) -> None:
    """Refuse prompts that the task does not have, or that the trained model would not be asked with.

    Args:
        recipe: Says which prompts, and which tasks.
        base: What training starts from.
        learned: Tasks whose short prompts that learned.

    Raises:
        ConfigError: They do not fit.
    """
    for spec in (*recipe.data, *recipe.eval_data):
        task = find_task(spec.task)
        if recipe.prompts == "brief" and task is not None and not has_short_prompts(spec, task):
            raise ConfigError(f"The task {task.name!r} has no short prompts. Say --prompts chat.")
        if recipe.prompts == "chat" and recipe.method == "lora" and task is not None and task.name in learned:
            raise ConfigError(
                f"The base {base!r} learned short prompts for {task.name} and will be asked with them, whatever its "
                "adapter learns. Add --prompts brief."
            )


def _learned(recipe: Recipe) -> Container[str]:
    """Return the short prompts that are learned; of an adapter to go on from, those that it knows, in their form."""
    if recipe.prompts == "learned" and recipe.adapter is not None:
        return find_adapter(recipe.adapter).tuned.names
    return EVERY if recipe.prompts == "brief" else frozenset()


def load_start(recipe: Recipe, *, folder: Path, device: torch.device) -> Start:
    """Build or load the model that training starts from.

    Args:
        recipe: What to do.
        folder: Where a trained tokenizer is kept.
        device: Where to train; decides the default precision.

    Returns:
        The start.

    Raises:
        NlpkitError: An option or a file is wrong.
    """
    if recipe.method == "scratch":
        _check_prompts(recipe, None, frozenset())
        tokenizer, chat = _tokenizer_from_scratch(recipe, folder)
        preset = PRESETS.get(str(recipe.preset))
        seq_len = recipe.train.get("seq_len") or min(512, preset.max_seq_len if preset else 512)
        shape = preset_config(
            str(recipe.preset), vocab_size=tokenizer.vocab_size, seq_len=seq_len, overrides=recipe.model
        )
        model = new_model(
            shape, seed=int(recipe.train.get("seed") or 0), zero_outputs=bool(recipe.train.get("zero_init"))
        )
        n_parameters = sum(parameter.numel() for parameter in model.parameters())
        config = _config(recipe, context=shape.max_seq_len, n_parameters=n_parameters, device=device)
        identity = {"the tokenizer": tokenizer.fingerprint}
        return Start(
            model=model,
            encoder=PromptEncoder(tokenizer, chat, _learned(recipe)),
            config=config,
            base=None,
            identity=identity,
        )
    base = recipe.base or "default"
    path = resolve_model(base)
    foreign = path.is_dir() and (path / "config.json").exists() and not (path / "nlpkit.json").exists()
    if foreign and not is_known_family(path):
        raise ConfigError(
            f"The model {base!r} is of a family that runs through transformers only; nlpkit trains the families of "
            "its own core."
        )
    source = open_model(path)
    _check_prompts(recipe, base, source.learned_tasks().names)
    tokenizer = source.tokenizer()
    check_vocabulary(tokenizer, source.config.vocab_size, where=str(path))
    with torch.device("meta"):
        n_parameters = sum(parameter.numel() for parameter in GPT(source.config).parameters())
    config = _config(recipe, context=source.config.max_seq_len, n_parameters=n_parameters, device=device)
    wide = config.dtype == "fp32" or recipe.method == "full"
    tensors = source.tensors(dtype=torch.float32 if wide else torch.bfloat16)
    model = build_model(source.config, ((name, tensor.clone()) for name, tensor in tensors), where=str(path))
    identity = {f"the base model's {name}": sha256_file(file) for name, file in source.files().items()}
    if recipe.method == "full":
        model.requires_grad_(True)
    else:
        identity |= _adapt(model, recipe, config)
    encoder = PromptEncoder(tokenizer, source.chat_template(), _learned(recipe))
    return Start(model=model, encoder=encoder, config=config, base=base, identity=identity)


def _adapt(model: GPT, recipe: Recipe, config: TrainConfig) -> dict[str, str]:
    """Give the model its adapter, new or to go on from."""
    options = dict(recipe.lora)
    if isinstance(options.get("targets"), (list, tuple)):
        options["targets"] = tuple(options["targets"])
    settings = LoraConfig(**options)
    generator = torch.Generator().manual_seed(config.seed)
    facts = json.dumps(options, sort_keys=True)
    identity = {"the LoRA options": hashlib.sha256(facts.encode()).hexdigest()}
    if recipe.adapter is None:
        add_lora(model, settings, generator=generator)
        return identity
    if set(options) - {"dropout"}:
        raise ConfigError(
            f"The adapter {recipe.adapter} brings its own rank, alpha and targets, so {', '.join(sorted(options))} has "
            "no meaning. Leave it out."
        )
    opened = open_adapter(find_adapter(recipe.adapter).path)
    add_lora(model, settings, start=opened.internal(model.config))
    return identity | {f"the adapter's {name}": sha256_file(file) for name, file in opened.files.items()}


def set_up(
    recipe: Recipe,
    *,
    process: Process,
    folder: Path | None = None,
    report: Callable[[str, int], None] | None = None,
    start: Start | None = None,
) -> Training:
    """Set up a training.

    Args:
        recipe: What to do.
        process: This process among several.
        folder: Where tokenized data and a trained tokenizer go; by default the recipe's output.
        report: Called with a source's name and the number of its rows read so far.
        start: The start, if it is there already.

    Returns:
        The training.

    Raises:
        NlpkitError: Anything that is wrong, before a step is made.
    """
    folder = folder or Path(recipe.output)
    if not process.is_first:
        # The first process makes the tokenizer and the tokenized data; the others find them made.
        process.wait()
    start = start or load_start(recipe, folder=folder, device=process.device)
    config = start.config
    hashes = {spec.path: _sha256(spec.path) for spec in (*recipe.data, *recipe.eval_data)}

    def opened(spec: DataSpec, *, shift: bool) -> ExampleSource:
        return open_source(
            spec,
            start.encoder,
            folder=folder / "data",
            seq_len=config.seq_len,
            policy=config.on_long,
            vocab_size=start.model.config.vocab_size,
            # A common beginning is computed once, for one length.
            join=not start.model.config.depends_on_length,
            seed=config.seed,
            sha256=hashes[spec.path],
            shift=shift,
            report=None if report is None else functools.partial(report, spec.path),
        )

    sources = tuple(opened(spec, shift=True) for spec in recipe.data)
    dev_sources = tuple(opened(spec, shift=False) for spec in recipe.eval_data)
    if process.is_first:
        process.wait()
    weights = None if recipe.data[0].weight is None else [float(spec.weight or 0) for spec in recipe.data]
    # The weights are shares of rows; what is drawn may be several rows at once.
    drawn = weights and [
        weight * source.packed.n_rows / source.rows.n_rows for weight, source in zip(weights, sources, strict=True)
    ]
    packer = Packer(
        [source.packed for source in sources],
        seq_len=config.seq_len,
        weights=drawn,
        seed=config.seed,
        epochs=config.epochs,
    )
    dev = None
    if dev_sources:
        dev = Packer([source.packed for source in dev_sources], seq_len=config.seq_len, shuffle=False, epochs=1)
    identity = {**start.identity, **{f"the data {source.name}": source.key for source in sources}}
    if weights is not None:
        identity["the mixture"] = json.dumps(weights)
    identity |= {f"the dev data {source.name}": source.key for source in dev_sources}
    trainer = Trainer(start.model, config, packer, process=process)
    return Training(start=start, sources=sources, dev_sources=dev_sources, trainer=trainer, dev=dev, identity=identity)


def write_result(recipe: Recipe, start: Start, weights: Mapping[str, Tensor]) -> Path:
    """Write the trained model or adapter to the recipe's output.

    Returns:
        The weight file.
    """
    folder = Path(recipe.output)
    learned = recipe.data if recipe.prompts == "brief" or _learned(recipe) else ()
    taught = [what_is_taught(spec) for spec in learned]
    learned_tasks = {name for names, _ in taught for name in names}
    if recipe.prompts == "learned" and recipe.adapter is not None:
        learned_tasks = set(find_adapter(recipe.adapter).tuned.names)
    options = [one for _, values in taught for one in values]
    options = [one for n, one in enumerate(options) if one not in options[:n]]
    if recipe.method == "lora":
        dropout = float(recipe.lora.get("dropout", 0.0))
        write_adapter(
            folder,
            start.model,
            weights,
            base_model=start.base,
            dropout=dropout,
            learned_tasks=learned_tasks,
            learned=options,
        )
        return folder / "adapter_model.safetensors"
    dtype = torch.bfloat16 if start.config.dtype == "bf16" else torch.float32
    write_model(
        folder,
        start.model,
        weights,
        tokenizer=start.encoder.tokenizer,
        # What never saw a chat must not be taken for a model that answers in one.
        chat=None if recipe.prompts == "brief" and recipe.method == "scratch" else start.encoder.chat,
        dtype=dtype,
        learned_tasks=learned_tasks,
        learned=options,
    )
    return folder / "model.safetensors"
