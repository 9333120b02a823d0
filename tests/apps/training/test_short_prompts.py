"""Training with short prompts: what is learned is what the trained model is asked afterwards."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_pairs import PAIRS, pairs_tokenizer, save_base, save_pairs, train_arguments

from nlpkit.apps.models.adapters import find_adapter
from nlpkit.apps.pipeline.plan import Planner, encoder_of
from nlpkit.apps.tasks.encoder import EVERY, PromptEncoder
from nlpkit.apps.tasks.table import load_task
from nlpkit.apps.training.examples import open_source, training_texts, what_is_taught
from nlpkit.apps.training.recipe import DataSpec, build_recipe, load_toml, render_toml
from nlpkit.apps.training.setup import _learned, set_up
from nlpkit.core.chat.template import ChatTemplate
from nlpkit.core.decode.config import DecodeConfig
from nlpkit.core.errors import ConfigError, ModelFileError
from nlpkit.core.formats.learned_tasks import FILE_NAME, read_learned_tasks
from nlpkit.core.load import load_model
from nlpkit.core.tokenizers.train import CHATML
from nlpkit.core.train.distributed import SINGLE
from nlpkit.core.train.metrics_log import read_metrics

EXAMPLE = {"source": "Thank you", "target": "Danke", "source_lang": "en", "target_lang": "de"}
TEXT = "The dog sleeps. The cat does not."
CONTEXT = f"{TEXT} Good morning, said the dog, and thank you, said the cat, and both of them went home to sleep."


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return pairs_tokenizer()


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory, tokenizer: Any) -> Path:
    return save_base(tmp_path_factory.mktemp("base") / "model", tokenizer)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return save_pairs(tmp_path / "mt.jsonl")


def planned(lm: Any, task: str, example: dict[str, Any]) -> list[int]:
    """The prompt that the task's command would ask."""
    loaded = load_task(task)
    planner = Planner(lm, loaded, encoder_of(lm), DecodeConfig(), None, "error")
    return planner.render(loaded.prepare(example))


@pytest.mark.parametrize("method", ["lora", "full"])
def test_the_result_says_it_and_is_asked_so(
    method: str, data: Path, base: Path, tmp_path: Path, cli: Callable[..., Any]
) -> None:
    output = tmp_path / "out"
    done = cli(*train_arguments(data, base, output, "--method", method, "--prompts", "brief", "--max-steps", "30",
                                "--eval-data", str(data), "--eval-metric", "chrf", "--eval-rows", "4"))  # fmt: skip
    assert done.code == 0, done.err
    assert json.loads((output / FILE_NAME).read_text())["brief_prompts"] == ["translation"]
    assert load_toml(str(output / "recipe.toml"))["prompts"] == "brief"
    adapted = {"adapter": output, "name": str(base)} if method == "lora" else {"name": str(output)}
    lm = load_model(**adapted, dtype="fp32")
    assert lm.learned_tasks == {"translation"}
    # The pairs are those of the rows, not those that a detector saw.
    assert lm.learned_options == ({"source_lang": "en", "target_lang": "de"},)
    assert planned(lm, "translation", EXAMPLE) == lm.encode("German: Thank you\n")
    # Other tasks are asked as ever, and so is the model without what was learned.
    question = {"context": TEXT, "question": "Who?"}
    other = load_task("qa")
    assert planned(lm, "qa", question) == PromptEncoder(lm.tokenizer, lm.chat).prompt(other, other.prepare(question))
    plain, mt = load_model(str(base), dtype="fp32"), load_task("translation")
    assert planned(plain, "translation", EXAMPLE) == PromptEncoder(plain.tokenizer, plain.chat).prompt(
        mt, mt.prepare(EXAMPLE)
    )
    # It did learn from these prompts.
    prompt, answer = lm.encode("German: Thank you\n"), [*lm.tokenizer.encode(" Danke"), min(lm.tokenizer.eos_ids)]
    assert lm.score([(prompt, answer)])[0].logprob > plain.score([(prompt, answer)])[0].logprob + 2
    # The dev rows were asked so as well.
    scores = [row["chrf"] for row in read_metrics(output / "metrics.jsonl") if row["kind"] == "eval"]
    assert scores[-1] > (50 if method == "full" else 1)


def test_learned_languages_are_those_that_rows_name(tmp_path: Path) -> None:
    rows = [
        {"source": "a", "target": "b", "source_lang": "English", "target_lang": "de"},
        {"source": "b", "target": "a", "source_lang": "deu", "target_lang": "en"},
        {"source": "c", "target": "d", "target_lang": "fr"},
        {"source": "c", "target": "d", "source_lang": "auto", "target_lang": "es"},
    ]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    spec = DataSpec(path=str(path), task="translation")
    assert what_is_taught(spec) == (
        {"translation"},
        [{"source_lang": "de", "target_lang": "en"}, {"source_lang": "en", "target_lang": "de"}],
    )
    assert what_is_taught(DataSpec(path="-", task="translation")) == (set(), [])


def test_rows_are_prompt_space_answer_end(data: Path, tokenizer: Any, tmp_path: Path) -> None:
    encoder = PromptEncoder(tokenizer, ChatTemplate(CHATML), EVERY)
    spec = DataSpec(path=str(data), task="translation")
    options: dict[str, Any] = {"folder": tmp_path / "d", "seq_len": 128, "policy": "auto", "vocab_size": 400}
    source = open_source(spec, encoder, **options, seed=0, sha256="x")
    ids, prompt = source.rows.row(2, 0)
    assert tokenizer.decode(list(ids[:prompt])) == "German: Thank you\n"
    assert tokenizer.decode(list(ids[prompt:-1])) == " Danke"
    assert int(ids[-1]) == min(tokenizer.eos_ids)
    # The same file with other prompts is other data: a training cannot go on with it.
    other = open_source(spec, PromptEncoder(tokenizer, ChatTemplate(CHATML)), **options, seed=0, sha256="x")
    assert other.key != source.key


def test_a_row_without_a_short_form_is_asked_as_ever(tokenizer: Any) -> None:
    task = load_task("summarization")
    encoder = PromptEncoder(tokenizer, ChatTemplate(CHATML), EVERY)
    example = {"document": TEXT, "summary": "A dog.", "length": "long"}
    chat = PromptEncoder(tokenizer, ChatTemplate(CHATML)).lesson(task, example, "x:1")
    assert encoder.lesson(task, example, "x:1") == chat
    ids, length = encoder.lesson(task, {**example, "length": "short"}, "x:1")
    assert tokenizer.decode(ids[:length]) == f"{TEXT}\nSummary:"


def test_what_was_learned_otherwise_before_is_said_no_more(
    data: Path, base: Path, tmp_path: Path, cli: Callable[..., Any]
) -> None:
    output = tmp_path / "out"
    assert cli(*train_arguments(data, base, output, "--prompts", "brief", "--max-steps", "1")).code == 0
    assert (output / FILE_NAME).exists()
    for path in (output / "checkpoints").glob("*/*"):
        path.unlink()
    for path in (output / "checkpoints").iterdir():
        path.rmdir()
    assert cli(*train_arguments(data, base, output, "--max-steps", "1")).code == 0
    assert not (output / FILE_NAME).exists()


def test_resuming_with_other_prompts_is_refused(
    data: Path, base: Path, tmp_path: Path, cli: Callable[..., Any]
) -> None:
    options = train_arguments(data, base, tmp_path / "out", "--max-steps", "2")
    assert cli(*options).code == 0
    refused = cli(*options, "--resume", "--prompts", "brief")
    assert refused.code == 2
    assert "mt.jsonl changed" in refused.err


def test_a_base_that_is_asked_with_short_prompts_is_not_tuned_with_other_prompts(
    data: Path, base: Path, tmp_path: Path, cli: Callable[..., Any]
) -> None:
    first = tmp_path / "first"
    assert (
        cli(*train_arguments(data, base, first, "--method", "full", "--prompts", "brief", "--max-steps", "1")).code == 0
    )
    refused = cli(*train_arguments(data, first, tmp_path / "second", "--max-steps", "1"))
    assert refused.code == 2
    assert "--prompts brief" in refused.err
    assert "translation" in refused.err
    again = cli(*train_arguments(data, first, tmp_path / "second", "--max-steps", "1", "--prompts", "brief"))
    assert again.code == 0, again.err
    # All weights anew, asked as any other model: nothing contradicts that.
    whole = cli(*train_arguments(data, first, tmp_path / "third", "--max-steps", "1", "--method", "full"))
    assert whole.code == 0, whole.err
    assert read_learned_tasks(tmp_path / "third").names == frozenset()


def test_a_merged_model_is_asked_as_its_adapter(
    data: Path, base: Path, tmp_path: Path, cli: Callable[..., Any]
) -> None:
    adapter = tmp_path / "adapter"
    assert cli(*train_arguments(data, base, adapter, "--prompts", "brief", "--max-steps", "1")).code == 0
    done = cli("models", "merge", str(base), "--adapter", str(adapter), "-o", str(tmp_path / "m"), "--dtype", "fp32")
    assert done.code == 0, done.err
    assert load_model(str(tmp_path / "m")).learned_tasks == {"translation"}


@pytest.mark.parametrize(
    "content", ['{"format_version": 1, "brief_pr', "[]", '{"format_version": 9}', "\xff\xfe", "{}"]
)
def test_a_damaged_file_is_named(content: str, data: Path, base: Path, tmp_path: Path, cli: Callable[..., Any]) -> None:
    output = tmp_path / "out"
    assert cli(*train_arguments(data, base, output, "--prompts", "brief", "--max-steps", "1")).code == 0
    (output / FILE_NAME).write_bytes(content.encode("latin-1"))
    with pytest.raises(ModelFileError, match=FILE_NAME):
        load_model(str(base), adapter=output)
    done = cli("translate", "Hello", "--to", "de", "--model", str(base), "--adapter", str(output))
    assert done.code == 2
    assert FILE_NAME in done.err


def test_unknown_prompts_are_refused(data: Path, base: Path, tmp_path: Path, cli: Callable[..., Any]) -> None:
    values = {"output": "o", "method": "lora", "data": [{"path": "x.jsonl", "task": "qa"}]}
    with pytest.raises(ConfigError, match=r"no prompts 'breif'.*Did you mean 'brief'"):
        build_recipe({**values, "prompts": "breif"}, {})
    recipe = build_recipe({**values, "prompts": "brief"}, {})
    (tmp_path / "r.toml").write_text(render_toml(recipe.to_dict()))
    assert build_recipe(load_toml(str(tmp_path / "r.toml")), {}) == recipe
    assert "prompts" not in build_recipe(values, {}).to_dict()
    # The command line has its own list, and a file may hold anything.
    assert cli(*train_arguments(data, base, tmp_path / "out", "--prompts", "breif")).code == 2
    (tmp_path / "r.toml").write_text(f'prompts = 3\ntask = "translation"\ndata = "{data}"\noutput = "o"')
    done = cli("train", "--config", str(tmp_path / "r.toml"))
    assert (done.code, "3 as prompts; it must be text" in done.err) == (2, True), done.err


def test_a_task_without_short_prompts_is_named(tmp_path: Path, base: Path, cli: Callable[..., Any]) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text(json.dumps({"prompt": "Hello", "text": "Hallo"}) + "\n")
    refused = cli(*train_arguments(rows, base, tmp_path / "out", "--prompts", "brief", task="generation"))
    assert refused.code == 2
    assert "generation" in refused.err
    assert "no short prompts" in refused.err


def test_learning_which_question_an_answer_is_to_is_written_down(
    tmp_path: Path, base: Path, cli: Callable[..., Any]
) -> None:
    rows = tmp_path / "qa.jsonl"
    row = {"context": CONTEXT, "question": "Who sleeps?", "answers": ["dog"]}
    for kinds, names in (
        ([{}], ["qa"]),
        ([{}, {"inverse": 1}], ["qa", "qa-inverse"]),
        ([{"inverse": 1}], ["qa-inverse"]),
    ):
        rows.write_text("".join(json.dumps({**row, **kind}) + "\n" for kind in kinds))
        output = tmp_path / str(len(list(tmp_path.iterdir())))
        done = cli(*train_arguments(rows, base, output, "--prompts", "brief", "--max-steps", "1", "--seq-len", "256",
                                    task="qa"))  # fmt: skip
        assert done.code == 0, done.err
        assert json.loads((output / FILE_NAME).read_text())["brief_prompts"] == names


def test_questions_about_one_text_are_laid_out_together(tmp_path: Path, base: Path, cli: Callable[..., Any]) -> None:
    rows = tmp_path / "qa.jsonl"
    answers = [("Who sleeps?", "dog"), ("Who does not?", "cat"), ("Who said thank you?", "cat")]
    rows.write_text("".join(
        json.dumps({"context": CONTEXT, "question": question, "answers": [answer]}) + "\n"
        for question, answer in answers
    ))  # fmt: skip
    command = train_arguments(rows, base, tmp_path / "out", "--prompts", "brief", "--seq-len", "250", task="qa")
    done = cli(*command, "--dry-run")
    assert done.code == 0, done.err
    assert "rows that begin alike are learned together, which saves" in done.out
    facts = json.loads(cli(*command, "--dry-run", "--json").out)
    source = facts["sources"][0]
    assert source["packed_rows"] == 1
    assert source["rows"] == source["kept"] == 3
    assert 0.3 < source["saved"] < 2 / 3
    # Without anything in common nothing is said.
    apart = json.loads(cli(*train_arguments(save_pairs(tmp_path / "mt.jsonl"), base, tmp_path / "o", "--dry-run",
                                            "--json", "--prompts", "brief")).out)["sources"][0]  # fmt: skip
    assert (apart["packed_rows"], apart["saved"]) == (len(PAIRS), 0)
    assert "begin alike" not in apart["description"]


def test_weights_are_shares_of_rows_where_several_are_laid_out_together(tmp_path: Path, base: Path) -> None:
    questions, pairs = tmp_path / "qa.jsonl", save_pairs(tmp_path / "mt.jsonl")
    rows = [{"context": CONTEXT, "question": f"Who? {i}", "answers": ["cat"]} for i in range(3)]
    questions.write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = build_recipe(
        {
            "output": str(tmp_path / "out"), "method": "lora", "base": str(base), "prompts": "brief",
            "data": [{"path": str(questions), "task": "qa", "weight": 3},
                     {"path": str(pairs), "task": "translation", "weight": 1}],
            "train": {"max_steps": 5, "seq_len": 250, "compile": "off"},
        },
        {},
    )  # fmt: skip
    packer = set_up(recipe, process=SINGLE).trainer.packer
    assert [source.n_rows for source in packer.sources] == [1, len(PAIRS)]
    drawn = [0, 0]
    for single in packer.take(64):
        for draw in single:
            drawn[draw.source] += max(1, int(packer.sources[draw.source].layout(draw.index, 0).branches.max()))
    assert drawn[0] / sum(drawn) == pytest.approx(0.75, abs=0.02)


def test_translations_are_asked_in_the_form_that_a_model_learned() -> None:
    task = load_task("translation")
    example = task.prepare({"source": "Good morning.", "target_lang": "de", "source_lang": "en"})

    def short(*names: str) -> str | None:
        return PromptEncoder(pairs_tokenizer(), None, frozenset(names)).short(task, example)

    assert short() is None
    assert short("translation") == "German: Good morning.\n"
    assert short("translation", "translation.1") == "Good morning.\nGerman:"
    assert "translation.1" in find_adapter("translation").tuned.names


def test_a_tokenizer_for_short_prompts_learns_from_them(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    row = {"source": "Good morning.", "target": "Guten Morgen.", "target_lang": "de", "source_lang": "en"}
    path.write_text(json.dumps(row) + "\n", "utf-8")
    specs = (DataSpec(path=str(path), task="translation"),)
    assert list(training_texts(specs, short=True)) == ["German: Good morning.\n", " Guten Morgen."]
    assert any("Translate" in text for text in training_texts(specs))


def test_an_adapter_to_go_on_from_keeps_the_form_of_its_prompts(tmp_path: Path) -> None:
    folder = tmp_path / "former"
    folder.mkdir()
    (folder / "adapter_config.json").write_text("{}")
    (folder / FILE_NAME).write_text('{"format_version": 1, "brief_prompts": ["translation", "translation.1"]}')
    values = {"output": "o", "method": "lora", "task": "translation", "data": ["d.jsonl"], "prompts": "learned"}
    recipe = build_recipe({**values, "adapter": str(folder)}, {})
    assert _learned(recipe) == {"translation", "translation.1"}
    with pytest.raises(ConfigError, match="but there is none: name one"):
        build_recipe(values, {})
