"""Shipped adapters on a real, tiny model: merged, shared, refused, scored."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import tiny_config, tiny_gpt
from tiny_pairs import VOCAB, pairs_tokenizer, save_base

import nlpkit
from nlpkit.apps.models import adapters
from nlpkit.apps.pipeline.plan import encoder_of
from nlpkit.apps.tasks.table import load_task
from nlpkit.core.errors import ModelFileError
from nlpkit.core.files.hashing import sha256_file
from nlpkit.core.formats.learned_tasks import write_learned_tasks
from nlpkit.core.formats.peft.save import save_adapter
from nlpkit.core.load import load_model
from nlpkit.core.model.lora import LoraWeights
from nlpkit.eval.runs.likelihood import target_likelihood

Cli = Callable[..., Any]
ROW = {"source": "Good morning", "target": "Guten Morgen", "source_lang": "en", "target_lang": "de"}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_base(tmp_path_factory.mktemp("base") / "model", pairs_tokenizer())


@pytest.fixture
def folder(tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Adapters of two tasks for the tiny model, which goes by the name of the default one."""
    for seed, task in enumerate(("translation", "summarization")):
        path = tmp_path / "shipped" / task
        path.mkdir(parents=True)
        generator = torch.Generator().manual_seed(seed)
        config = tiny_config(vocab_size=VOCAB, max_seq_len=256)
        shapes = {name: value.shape for name, value in tiny_gpt(config).named_parameters()}
        updates = {}
        for layer in range(config.n_layers):
            name = f"blocks.{layer}.attn.q"
            rows, columns = shapes[f"{name}.weight"]
            a, b = (torch.randn(shape, generator=generator) for shape in ((2, columns), (rows, 2)))
            updates[name] = LoraWeights(a, b, 0.5)
        save_adapter(path, config, updates, base_model="default", dtype=torch.bfloat16)
        write_learned_tasks(path, [task], base_sha256=sha256_file(base / "model.safetensors"))
    monkeypatch.setattr(adapters, "FOLDER", tmp_path / "shipped")
    monkeypatch.setattr(
        "nlpkit.core.fetch.resolve.resolve_model", lambda name, **_: base if name == "default" else Path(name)
    )
    return tmp_path / "shipped"


def test_the_command_keeps_beginnings_of_prompts(folder: Path, cli: Cli, tmp_path: Path) -> None:
    kept, long = tmp_path / "kept", "Good morning to all of you. " * 40
    first = cli(
        "summarize", long, "--max-tokens", "4", "--beam-size", "1", "--dtype", "fp32", "--prefix-cache", str(kept)
    )
    assert first.code == 0
    assert list(kept.rglob("*.safetensors"))
    again = cli(
        "summarize", long, "--max-tokens", "4", "--beam-size", "1", "--dtype", "fp32", "--prefix-cache", str(kept)
    )
    assert again.out == first.out


def test_the_command_merges_it_and_says_so(folder: Path, base: Path, cli: Cli) -> None:
    options = ("--dtype", "fp32", "--max-tokens", "8", "--json")
    tuned, bare, by_path = (
        json.loads(cli("translate", "Good morning", "--to", "de", *options, *more).out)
        for more in ((), ("--adapter", "none"), ("--adapter", str(folder / "translation")))
    )
    assert (tuned["adapter"], bare["adapter"]) == ("translation", None)
    assert tuned["adapter_sha256"] == sha256_file(folder / "translation" / adapters.WEIGHTS)
    assert tuned["completion"] == by_path["completion"] != bare["completion"]
    assert by_path["adapter"] == str(folder / "translation")
    assert tuned["input_tokens"] == len(load_model(str(base)).encode("German: Good morning\n"))


def test_the_toolkit_shares_what_no_adapter_changes(folder: Path, base: Path) -> None:
    toolkit = nlpkit.load(dtype="fp32")
    options = {"max_tokens": 6}
    one = toolkit.translate("Good morning", target_lang="de", options=options)
    two = toolkit.summarize("Good morning. The dog.", options=options)
    three = toolkit.generate("Good morning", options=options)
    assert [result.adapter for result in (one, two, three)] == ["translation", "summarization", None]
    models = list(toolkit._pool._models.values())
    assert len(models) == 3
    assert len({model.embeddings["embed.weight"].data_ptr() for model in models}) == 1
    assert len({id(model.tokenizer) for model in models}) == 1
    # Sharing changes nothing: a model loaded alone writes the same.
    alone = nlpkit.Toolkit(
        load_model("default", adapter=folder / "summarization", adapter_name="summarization", dtype="fp32")
    )
    assert alone.summarize("Good morning. The dog.", options=options).completion == two.completion
    bare = nlpkit.load("default", adapter="none", dtype="fp32")
    assert bare.generate("Good morning", options=options).completion == three.completion
    assert bare.lm.embeddings["embed.weight"].data_ptr() != models[0].embeddings["embed.weight"].data_ptr()


def test_models_that_differ_share_nothing(folder: Path, base: Path, tmp_path: Path) -> None:
    first = load_model("default", dtype="fp32")
    assert load_model("default", dtype="fp32", share_with=first).tokenizer is first.tokenizer
    other = save_base(tmp_path / "other", pairs_tokenizer())
    for model in (
        load_model("default", dtype="bf16", share_with=first),
        load_model(str(other), dtype="fp32", share_with=first),
    ):
        assert model.tokenizer is not first.tokenizer
        assert model.embeddings["embed.weight"].data_ptr() != first.embeddings["embed.weight"].data_ptr()


def test_an_adapter_of_another_model_is_refused(folder: Path, base: Path, tmp_path: Path, cli: Cli) -> None:
    # The same shapes, other weights: only the hash tells.
    other = save_base(tmp_path / "other", pairs_tokenizer())
    tensors = load_file(other / "model.safetensors")
    save_file({name: tensor + 1 for name, tensor in tensors.items()}, other / "model.safetensors")
    done = cli("translate", "Hello", "--to", "de", "--model", str(other), "--adapter", "translation")
    assert done.code == 2
    wanted = sha256_file(base / "model.safetensors")[:12]
    assert f"was trained on weights with the sha256 {wanted}... ('default')" in done.err
    assert "Use the adapter with the model it was trained on" in done.err
    merged = cli("models", "merge", str(other), "--adapter", "translation", "-o", str(tmp_path / "m"))
    assert (merged.code, wanted in merged.err) == (2, True)
    # Without the hash the shapes decide.
    write_learned_tasks(folder / "translation", ["translation"])
    assert load_model(str(other), adapter=folder / "translation").adapter == str(folder / "translation")


def test_shapes_that_do_not_fit_are_refused(folder: Path) -> None:
    config = tiny_config(vocab_size=VOCAB, d_model=16, head_dim=4, n_kv_heads=2, max_seq_len=256)
    update = LoraWeights(torch.ones(2, 16), torch.ones(16, 2), 0.5)
    save_adapter(folder / "translation", config, {"blocks.0.attn.q": update})
    with pytest.raises(ModelFileError, match=r"does not fit this model.*q_proj updates a weight of \(16, 16\)"):
        nlpkit.load().translate("Hello", target_lang="de")


def test_a_target_is_scored_as_it_was_learned(folder: Path) -> None:
    task = load_task("translation")
    lm = load_model("default", adapter=folder / "translation", dtype="fp32")
    ids = lm.tokenizer.encode(" Guten Morgen")
    expected = lm.score([(lm.encode("German: Good morning\n"), ids)])[0].logprob
    got = target_likelihood(lm, encoder_of(lm), task, task.prepare(ROW))
    assert (got.logprob, got.n_tokens) == (pytest.approx(expected), len(ids))
    bare = load_model("default", dtype="fp32")
    messages = task.prompt(task.prepare(ROW)).messages
    assert bare.chat is not None
    prompt = bare.chat.render_tokens(messages, bare.tokenizer, add_generation_prompt=True)
    ids = bare.tokenizer.encode("Guten Morgen")
    plain = target_likelihood(bare, encoder_of(bare), task, task.prepare(ROW))
    assert plain.logprob == pytest.approx(bare.score([(prompt, ids)])[0].logprob)


def test_a_run_records_the_adapter(folder: Path, tmp_path: Path, cli: Cli) -> None:
    (tmp_path / "d.jsonl").write_text(json.dumps(ROW) + "\n")
    command = ["eval", "run", "translation", "-d", str(tmp_path / "d.jsonl"), "--dtype", "fp32", "--max-tokens", "4",
               "--metric", "chrf", "--metric", "perplexity", "--json", "-q"]  # fmt: skip
    done = cli(*command, "-o", str(tmp_path / "tuned"))
    assert done.code == 0, done.err
    record = json.loads(done.out)
    assert record["name"] == "default+translation"
    assert record["model"]["adapter"] == "translation"
    assert record["model"]["adapter_sha256"][adapters.WEIGHTS] == sha256_file(folder / "translation" / adapters.WEIGHTS)
    assert record["example_prompt"] == [{"role": "brief", "content": "German: Good morning\n"}]
    bare = json.loads(cli(*command, "-o", str(tmp_path / "bare"), "--adapter", "none").out)
    assert (bare["name"], bare["model"]["adapter"]) == ("default", None)
    hashes = [
        json.loads((tmp_path / name / "samples.jsonl").read_text())["prompt_sha256"] for name in ("tuned", "bare")
    ]
    assert hashes[0] != hashes[1]
    # The same folder is of one system: it cannot be gone on with as another.
    mixed = cli(*command, "-o", str(tmp_path / "bare"))
    assert (mixed.code, "adapter" in mixed.err) == (2, True)


def test_threads_get_what_one_gets(folder: Path) -> None:
    toolkit = nlpkit.load(dtype="fp32")
    options = {"max_tokens": 12}

    def both(_: int) -> tuple[str, str]:
        translated = toolkit.translate("Good morning", target_lang="de", options=options)
        return translated.completion, toolkit.generate("Good morning", options=options).completion

    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(both, range(8)))
    assert set(results) == {both(0)}
