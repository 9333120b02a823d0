"""The command ``train`` from rows to a model that the other commands load."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tiny_pairs import changed, pairs_tokenizer, save_base, save_pairs, train_arguments

from nlpkit.apps.pipeline.plan import encoder_of
from nlpkit.apps.tasks.encoder import PromptEncoder
from nlpkit.apps.tasks.table import load_task
from nlpkit.apps.training.dry_run import _rows
from nlpkit.apps.training.examples import open_source, read_blocks
from nlpkit.apps.training.recipe import DataSpec, build_recipe, load_toml, render_toml
from nlpkit.apps.training.setup import _config
from nlpkit.core.chat.template import ChatTemplate
from nlpkit.core.errors import ConfigError, InputError, NlpkitError
from nlpkit.core.formats.open import open_model
from nlpkit.core.load import load_model
from nlpkit.core.tokenizers.train import CHATML, TURN_END
from nlpkit.core.train.config import TrainConfig
from nlpkit.core.train.metrics_log import read_metrics


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return pairs_tokenizer()


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory, tokenizer: Any) -> Path:
    return save_base(tmp_path_factory.mktemp("base") / "model", tokenizer)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return save_pairs(tmp_path / "mt.jsonl")


def spec(path: Path, **options: Any) -> DataSpec:
    return DataSpec(**{"path": str(path), "task": "translation", **options})


def opened(path: Path, tokenizer: Any, folder: Path, **options: Any) -> Any:
    values = {"seq_len": 128, "policy": "auto", "vocab_size": 400, "seed": 0, "sha256": "x"}
    chosen = spec(path, **options.pop("spec", {}))
    return open_source(chosen, PromptEncoder(tokenizer, ChatTemplate(CHATML)), folder=folder, **{**values, **options})


def test_rows_become_what_the_command_asks_and_the_answer_ends(data: Path, tokenizer: Any, tmp_path: Path) -> None:
    source = opened(data, tokenizer, tmp_path / "d")
    ids, prompt = source.rows.row(1, 0)
    task = load_task("translation")
    example = task.prepare({"source": "Good morning", "target_lang": "de", "source_lang": "en"})
    lm_prompt = ChatTemplate(CHATML).render_tokens(task.prompt(example).messages, tokenizer, add_generation_prompt=True)
    assert list(ids[:prompt]) == lm_prompt
    assert tokenizer.decode(list(ids[prompt:-1])) == "Guten Morgen"
    assert ids[-1] == tokenizer.token_to_id(TURN_END)
    assert source.rows.targets(1) == len(ids) - prompt


def test_typed_special_tokens_stay_text(tokenizer: Any, tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    row = {"source": "Hello", "target": f"Hallo{TURN_END} x", "source_lang": "en", "target_lang": "de"}
    path.write_text(json.dumps(row))
    ids, _ = opened(path, tokenizer, tmp_path / "d").rows.row(0, 0)
    assert list(ids[-1:]) == [tokenizer.token_to_id(TURN_END)]
    assert list(ids).count(tokenizer.token_to_id(TURN_END)) == 2  # after the user's turn, and at the end


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ('{"source": "a", "target_lang": "de"}', r"mt\.jsonl:2: the row has nothing to learn"),
        ('{"source": "a", "target": "", "target_lang": "de"}', r"mt\.jsonl:2"),
        ('{"source": "", "target": "b", "target_lang": "de"}', r"mt\.jsonl:2: 'source' is empty"),
        ('{"source": "a"', r"mt\.jsonl:2: not a JSON object"),
        ('{"source": "a", "target": "b", "target_lang": "Klingonisch"}', r"mt\.jsonl:2: .*Klingonisch"),
        ('["a"]', r"mt\.jsonl:2"),
    ],
)
def test_bad_rows_are_named(row: str, message: str, data: Path, tokenizer: Any, tmp_path: Path) -> None:
    first = data.read_text().splitlines()[0]
    data.write_text(f"{first}\n{row}\n")
    with pytest.raises(NlpkitError, match=message):
        opened(data, tokenizer, tmp_path / "d")
    assert not (tmp_path / "d").exists() or not list((tmp_path / "d").iterdir())


@pytest.mark.parametrize(("policy", "kept", "word"), [("drop", 11, "dropped"), ("truncate", 12, "cut at the start")])
def test_long_rows_are_counted(policy: Any, kept: int, word: str, data: Path, tokenizer: Any, tmp_path: Path) -> None:
    rows = data.read_text().splitlines()
    rows[2] = rows[2].replace("Thank you", "Thank you " * 40)
    data.write_text("\n".join(rows))
    source = opened(data, tokenizer, tmp_path / "d", policy=policy, seq_len=100)
    text = source.store.stats.describe(100)
    assert source.rows.n_rows == kept
    assert "1 rows (8.3%) did not fit 100 tokens" in text
    assert word in text
    assert "mt.jsonl:3" in text
    if policy == "truncate":
        ids, prompt = source.rows.row(2, 0)
        assert len(ids) == 101
        assert tokenizer.decode(list(ids[prompt:-1])) == "Danke"
    with pytest.raises(InputError, match=r"mt\.jsonl:3: the row has \d+ tokens, of which 101 fit"):
        opened(data, tokenizer, tmp_path / "e", policy="error", seq_len=100)


def test_text_larger_than_a_block_is_read_whole(tokenizer: Any, tmp_path: Path) -> None:
    text = "".join(f"line {i} Größe\n" for i in range(90_000)) + "no newline"
    path = tmp_path / "big.txt.gz"
    path.write_bytes(gzip.compress(text.encode()))
    blocks = list(read_blocks(str(path)))
    assert len(blocks) > 1
    assert "".join(blocks) == text


def test_text_rows_without_prompt_are_split(tokenizer: Any, tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text(json.dumps({"text": "Hello Thank you " * 30}) + "\n" + json.dumps({"text": "Hello"}) + "\n")
    source = opened(path, tokenizer, tmp_path / "d", spec={"task": "text"}, seq_len=16)
    tokens: list[int] = []
    for index in range(source.rows.n_rows - 1):
        ids, prompt = source.rows.row(index, 0)
        assert prompt == 0
        assert len(ids) <= 17
        tokens += list(ids if not tokens else ids[1:])
    assert tokenizer.decode(tokens[:-1]) == "Hello Thank you " * 30
    assert tokens[-1] in tokenizer.eos_ids


@pytest.mark.parametrize("method", ["lora", "full"])
def test_fine_tuning_writes_what_others_load(
    method: str, data: Path, base: Path, tmp_path: Path, cli: Callable[..., Any]
) -> None:
    output = tmp_path / "out"
    done = cli(*train_arguments(data, base, output, "--method", method, "--max-steps", "8", "--eval-data", str(data),
                          "--eval-metric", "chrf", "--eval-rows", "2", "--eval-every", "4", "--json"))  # fmt: skip
    assert done.code == 0, done.err
    result = json.loads(done.out)
    name = "adapter_model.safetensors" if method == "lora" else "model.safetensors"
    assert result["output"] == str(output / name)
    assert result["steps"] == 8
    rows = read_metrics(output / "metrics.jsonl")
    evaluations = [row for row in rows if row["kind"] == "eval"]
    assert [row["step"] for row in evaluations] == [4, 8]
    assert all("chrf" in row and row["loss"] > 0 for row in evaluations)
    assert evaluations[1]["loss"] < evaluations[0]["loss"]
    assert [row["input"] for row in rows if row["kind"] == "sample"][:2] == ["Hello", "Good morning"]
    trained = load_model(str(base), adapter=output, dtype="fp32") if method == "lora" else load_model(str(output))
    before = load_model(str(base), dtype="fp32")
    task = load_task("translation")
    example = task.prepare({"source": "Hello", "target_lang": "de", "source_lang": "en"})
    asked = encoder_of(trained).prompt(task, example)
    pairs = [(asked, [*trained.tokenizer.encode("Hallo"), min(trained.tokenizer.eos_ids)])]
    assert trained.score(pairs)[0].logprob > before.score(pairs)[0].logprob + 1
    assert "best so far" in done.err


def test_scratch_resume_and_config(tmp_path: Path, cli: Callable[..., Any]) -> None:
    text = tmp_path / "t.txt"
    text.write_text("To be or not to be, that is the question.\n" * 200)
    common = ["train", "--task", "text", "--data", str(text), "--preset", "nano", "--tokenizer", "char", "--seq-len",
              "32", "--batch-size", "4", "--max-steps", "30", "--save-every", "10", "-q"]  # fmt: skip
    whole = cli(*common, "--output", str(tmp_path / "a"))
    assert whole.code == 0, whole.err
    assert whole.err == ""
    assert whole.out == f"{tmp_path / 'a' / 'model.safetensors'}\n"
    # The recipe that was written makes the same model.
    again = cli("train", "--config", str(tmp_path / "a" / "recipe.toml"), "--output", str(tmp_path / "b"), "-q")
    assert again.code == 0, again.err
    assert (tmp_path / "a" / "model.safetensors").read_bytes() == (tmp_path / "b" / "model.safetensors").read_bytes()
    refused = cli(*common, "--output", str(tmp_path / "a"))
    assert refused.code == 2
    assert "--resume" in refused.err
    other = cli(*common, "--output", str(tmp_path / "a"), "--resume", "--lr", "1")
    assert other.code == 2
    assert "lr was 0.001 and is 1.0" in other.err
    longer = cli(*changed(common, "--output", str(tmp_path / "a"), "--resume", "--max-steps", "40"))
    assert longer.code == 2
    assert "max_steps was 30 and is 40" in longer.err
    assert "start anew in another folder, or train on from the result" in longer.err
    text.write_text(text.read_text() + "More.\n")
    other = cli(*common, "--output", str(tmp_path / "a"), "--resume")
    assert other.code == 2
    assert "what its tokenizer was made from changed" in other.err
    assert "t.txt" in other.err
    # With a tokenizer of its own, only the data differ.
    given = [*common[:7], "--tokenizer", str(tmp_path / "b" / "tokenizer"), *common[9:], "-o", str(tmp_path / "c")]
    assert cli(*given).code == 0
    text.write_text(text.read_text() + "More.\n")
    other = cli(*given, "--resume")
    assert (other.code, "t.txt changed." in other.err) == (2, True), other.err
    source = open_model(tmp_path / "a")
    assert source.config.d_model == 128


def test_dry_run_shows_mask_and_cost(data: Path, base: Path, tmp_path: Path, cli: Callable[..., Any]) -> None:
    done = cli(*train_arguments(data, base, tmp_path / "out", "--dry-run"))
    assert done.code == 0, done.err
    assert "Hello" in done.out
    assert "-- target\nHallo<|im_end|>" in done.out
    assert "[" in done.out
    assert "12 rows" in done.out
    assert "memory:" in done.out
    assert not (tmp_path / "out").exists()
    done = cli(*train_arguments(data, base, tmp_path / "out", "--dry-run", "--json"))
    facts = json.loads(done.out)
    row = facts["rows"][0]
    assert row["supervised"].index(1) == row["prompt_tokens"]
    assert sum(row["supervised"]) == row["target_tokens"]
    assert facts["trained_parameters"] < facts["parameters"]


@pytest.mark.parametrize(
    ("given", "device", "rows"),
    [
        ({}, "cpu", (2, 4)),
        ({"seq_len": 256}, "cpu", (4, 2)),
        ({"seq_len": 300}, "cpu", (2, 4)),
        ({"seq_len": 64}, "cpu", (8, 1)),
        ({"seq_len": 2048}, "cpu", (1, 8)),
        ({"batch_size": 3}, "cpu", (3, 1)),
        ({"accumulate": 2}, "cpu", (8, 2)),
        ({}, "cuda", (8, 1)),
    ],
)
def test_rows_of_a_step_where_nobody_says(given: dict[str, int], device: str, rows: tuple[int, int]) -> None:
    values = {"output": "o", "method": "lora", "base": "b", "task": "text", "train": given, "data": [{"path": "x"}]}
    config = _config(build_recipe(values, {}), context=4096, n_parameters=1000, device=torch.device(device))
    assert (config.batch_size, config.accumulate) == rows


def test_the_answer_is_shown_where_a_character_begins_in_the_prompt(tokenizer: Any) -> None:
    ids = tokenizer.encode("ab\N{GRINNING FACE}c")
    assert len(ids) > 4, "the emoji is several tokens"
    rows = SimpleNamespace(n_rows=1, row=lambda index, epoch: (ids, 3), targets=lambda index: len(ids) - 3)
    training = SimpleNamespace(
        start=SimpleNamespace(encoder=SimpleNamespace(tokenizer=tokenizer)),
        sources=[SimpleNamespace(name="x", rows=rows)],
    )
    (shown,) = _rows(training)  # type: ignore[arg-type]
    assert shown["target"].endswith("c")
    assert shown["target"].count("\N{REPLACEMENT CHARACTER}") <= 3
    assert shown["target"] == tokenizer.decode(ids[3:], skip_special=False)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--method", "scratch"], "starts from no model"),
        (["--preset", "5m"], "starts from no model"),
        (["--method", "full", "--lora-rank", "4"], "LoRA options were given"),
        (["--max-steps", "3", "--epochs", "2"], "got epochs and max_steps"),
        (["--patience", "2"], "eval_every"),
        (["--metric", "bleu"], "--eval-data"),
        (["--lora-target", "query"], "No layer matches"),
        (["--seq-len", "9999"], "context holds 256"),
        (["--weight", "1", "--weight", "2"], "--weight is given 2 times"),
        (["--adapter", "nowhere"], "no adapter 'nowhere'"),
        (["--field", "de"], "--field is 'de'"),
        (["--eval-every", "2"], "no data to evaluate on"),
    ],
)
def test_contradictions_are_refused(
    more: list[str], message: str, data: Path, base: Path, tmp_path: Path, cli: Callable[..., Any]
) -> None:
    done = cli(*train_arguments(data, base, tmp_path / "out", *more))
    assert done.code == 2, done.err
    assert message in done.err
    assert "Traceback" not in done.err


def test_a_missing_task_or_file(data: Path, tmp_path: Path, cli: Callable[..., Any]) -> None:
    done = cli("train", "--data", str(data), "--output", str(tmp_path / "o"))
    assert (done.code, "--task" in done.err) == (2, True)
    done = cli("train", "--task", "text", "--data", str(tmp_path / "no.txt"), "--preset", "nano", "-o",
               str(tmp_path / "o"))  # fmt: skip
    assert (done.code, "no.txt" in done.err) == (2, True)
    done = cli("train", "--task", "text", "-o", str(tmp_path / "o"), "--preset", "nano")
    assert (done.code, "no training data" in done.err) == (2, True)


def test_an_adapter_is_trained_on(data: Path, base: Path, tmp_path: Path, cli: Callable[..., Any]) -> None:
    first = cli(*train_arguments(data, base, tmp_path / "a", "--max-steps", "4"))
    assert first.code == 0, first.err
    more = cli(*train_arguments(data, base, tmp_path / "b", "--max-steps", "4", "--adapter", str(tmp_path / "a")))
    assert more.code == 0, more.err
    losses = [
        [row["loss"] for row in read_metrics(tmp_path / name / "metrics.jsonl") if row["kind"] == "train"]
        for name in "ab"
    ]
    assert losses[1][0] < losses[0][0]


def test_a_shipped_adapter_is_trained_on_by_name(
    data: Path, base: Path, tmp_path: Path, cli: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from nlpkit.apps.models import adapters

    assert cli(*train_arguments(data, base, tmp_path / "shipped" / "mine", "--max-steps", "2")).code == 0
    monkeypatch.setattr(adapters, "FOLDER", tmp_path / "shipped")
    outputs = []
    for number, name in enumerate(("mine", str(tmp_path / "shipped" / "mine"))):
        output = tmp_path / f"b{number}"
        done = cli(*train_arguments(data, base, output, "--max-steps", "2", "--adapter", name))
        assert done.code == 0, done.err
        outputs.append((output / "adapter_model.safetensors").read_bytes())
    assert outputs[0] == outputs[1]
    wrong = cli(*train_arguments(data, base, tmp_path / "c", "--max-steps", "2", "--adapter", "mien"))
    assert wrong.code == 2
    assert "mine" in wrong.err


def test_merging_is_checked(data: Path, base: Path, tmp_path: Path, cli: Callable[..., Any]) -> None:
    assert cli(*train_arguments(data, base, tmp_path / "a", "--max-steps", "4")).code == 0
    done = cli("models", "merge", str(base), "--adapter", str(tmp_path / "a"), "-o", str(tmp_path / "m"), "--dtype",
               "fp32")  # fmt: skip
    assert done.code == 0, done.err
    assert "largest logit difference of merged and unmerged weights is" in done.err
    merged = load_model(str(tmp_path / "m"), dtype="fp32")
    adapted = load_model(str(base), adapter=tmp_path / "a", dtype="fp32")
    pair = [([5, 6, 7], [8, 9])]
    assert merged.score(pair)[0].logprob == pytest.approx(adapted.score(pair)[0].logprob, abs=1e-5)


def test_merging_into_quantized_weights_is_refused_unasked(
    data: Path, base: Path, tmp_path: Path, cli: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from nlpkit.apps.models import merging

    assert cli(*train_arguments(data, base, tmp_path / "a", "--max-steps", "1")).code == 0
    monkeypatch.setattr(merging, "is_quantized", lambda source: True)
    command = ["models", "merge", str(base), "--adapter", str(tmp_path / "a"), "-o", str(tmp_path / "m")]
    refused = cli(*command)
    assert refused.code == 2
    assert "--dequantize" in refused.err
    assert cli(*command, "--dequantize").code == 0


def test_mixtures_draw_by_weight(data: Path, tokenizer: Any, tmp_path: Path) -> None:
    from nlpkit.core.train.data.packing import RowOrder

    other = tmp_path / "other.jsonl"
    other.write_text("".join(line + "\n" for line in data.read_text().splitlines()[:4]))
    sources = [opened(path, tokenizer, tmp_path / "d").rows for path in (data, other)]
    drawn = [0, 0]
    order = RowOrder(sources, weights=[1, 3], seed=0)
    draws = [order.draw(drawn) for _ in range(40)]
    assert drawn == [10, 30]
    small = [draw for draw in draws if draw.source == 1]
    for epoch in range(7):
        assert sorted(draw.index for draw in small if draw.epoch == epoch) == [0, 1, 2, 3]


def test_recipes_survive_toml(tmp_path: Path) -> None:
    values = {
        "output": 'a "b"\\c', "method": "scratch", "preset": "5m", "task": "text",
        "train": {"max_steps": 5, "lr": 1e-4, "checkpointing": True},
        "model": {"n_layers": 3}, "tokenizer": {"kind": "char"},
        "data": [{"path": "x.txt", "weight": 0.25}, {"path": "y.jsonl", "weight": 1, "fields": {"target_lang": "de"}}],
    }  # fmt: skip
    recipe = build_recipe(values, {})
    (tmp_path / "r.toml").write_text(render_toml(recipe.to_dict()))
    assert build_recipe(load_toml(str(tmp_path / "r.toml")), {}) == recipe
    with pytest.raises(ConfigError, match="no option 'outptu'"):
        build_recipe({**values, "outptu": 1}, {})
    with pytest.raises(ConfigError, match=r"\[lora\] has no option 'rnak'"):
        build_recipe({**values, "lora": {"rnak": 3}}, {})
    with pytest.raises(ConfigError, match="has none"):
        build_recipe({**values, "data": [{"path": "x"}, {"path": "y", "weight": 1}]}, {})


ROOT = Path(__file__).parents[3]
RECIPES = sorted([*(ROOT / "docs" / "recipes").glob("*.toml"), *(ROOT / "apps" / "adapters").glob("*/recipe*.toml")])


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_published_recipes_are_valid(path: Path) -> None:
    recipe = build_recipe(load_toml(str(path)), {})
    values = {"epochs": 1.0} if recipe.train.get("max_steps") is None else {}
    TrainConfig.from_dict({"method": recipe.method, **values, **recipe.train})
    assert recipe.output
    assert recipe.data


def test_ctrl_c_leaves_a_checkpoint(tmp_path: Path) -> None:
    text = tmp_path / "t.txt"
    text.write_text("To be or not to be.\n" * 500)
    command = [sys.executable, "-m", "nlpkit.cli", "train", "--task", "text", "--data", str(text), "--preset", "nano",
               "--tokenizer", "char", "--seq-len", "32", "--max-steps", "100000", "-o", str(tmp_path / "o")]  # fmt: skip
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    for line in process.stderr:
        if "step 1/" in line:
            process.send_signal(2)
            break
    _, rest = process.communicate(timeout=60)
    assert process.returncode == 130, rest
    assert "--resume" in rest
    assert len(list((tmp_path / "o" / "checkpoints").glob("step-*"))) == 1
    assert not (tmp_path / "o" / "model.safetensors").exists()
    assert torch.is_grad_enabled()
