"""Runs: what they record, and that a killed one goes on as if nothing had happened."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from nlpkit.apps.pipeline.run import FIRST_WINDOW
from nlpkit.apps.tasks.encoder import PromptEncoder
from nlpkit.apps.tasks.table import load_task
from nlpkit.core.errors import ConfigError, InputError, OutputError
from nlpkit.eval.data.datasets import load_dataset
from nlpkit.eval.data.fewshot import Shots, draw_shots
from nlpkit.eval.runs.rescoring import rescore
from nlpkit.eval.runs.run_folder import LOCK, differences, hold, load_run
from nlpkit.eval.runs.runner import BLOCK, RunSettings, run_evaluation
from nlpkit.eval.runs.samples import SampleRecord, read_samples
from nlpkit.eval.runs.scoring import ScoringOptions
from nlpkit.eval.runs.shards import merge_runs

PROGRAM = Path(__file__).resolve().parents[2] / "support" / "fake_eval.py"
KILLS = 12

Write = Callable[[str, Any], str]


def settings(*metrics: str, **options: Any) -> RunSettings:
    return RunSettings(scoring=ScoringOptions(metrics=metrics or ("chrf",), n_resamples=50), **options)


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "samples.jsonl").read_text(encoding="utf-8").splitlines()]


def environment(**values: str) -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", **values}


class TestRecord:
    def test_what_it_says(self, eval_model: Any, write_jsonl: Write, pairs: list[Any], tmp_path: Path) -> None:
        task = load_task("translation")
        data = load_dataset([write_jsonl("d.jsonl", pairs)], task)
        outcome = run_evaluation(
            eval_model, task, data, tmp_path / "run", settings("bleu", "chrf"), argv=["nlpkit", "x"]
        )
        record = json.loads((tmp_path / "run" / "run.json").read_text())
        assert record == outcome.record
        assert record["status"] == "complete"
        assert record["task"] == {"name": "translation", "version": task.version, "shots": None}
        file = record["data"]["files"][0]
        assert file["sha256"] == hashlib.sha256((tmp_path / "d.jsonl").read_bytes()).hexdigest()
        assert record["model"]["sha256"] == {"model": "abc"}
        assert record["decoding"]["temperature"] == 0.0
        assert record["counts"]["rows"] == record["counts"]["done"] == len(pairs)
        assert record["counts"]["finish_reasons"] == {"eos": len(pairs)}
        session = record["sessions"][0]
        assert session["argv"] == ["nlpkit", "x"]
        assert session["code"]["version"]
        assert {"host", "cpu", "cores", "threads", "system"} <= set(session["machine"])
        assert session["versions"]["sacrebleu"]
        assert record["example_prompt"][0]["content"].endswith(pairs[0]["source"])
        bleu = record["metrics"]["bleu"]
        assert bleu["low"] <= bleu["value"] <= bleu["high"]
        assert bleu["signature"].startswith("nrefs:1|case:mixed")
        rows = lines(tmp_path / "run")
        assert [row["index"] for row in rows] == list(range(len(pairs)))
        assert rows[3]["row"] == pairs[3]
        assert rows[3]["prediction"] == pairs[3]["source"].upper()
        assert rows[3]["references"] == [pairs[3]["target"]]
        assert set(rows[3]["scores"]) == {"bleu", "chrf"}

    @pytest.mark.parametrize(("overrides", "beams"), [({}, 4), ({"beam_size": 2}, 2), ({"temperature": 0.5}, 1)])
    def test_what_a_tuned_task_asks_for_by_itself_is_recorded(
        self,
        eval_model: Any,
        write_jsonl: Write,
        pairs: list[Any],
        tmp_path: Path,
        overrides: dict[str, Any],
        beams: int,
    ) -> None:
        eval_model.learned_tasks = frozenset({"translation"})
        task = load_task("translation")
        data = load_dataset([write_jsonl("d.jsonl", pairs)], task)
        chosen = settings("bleu", overrides=overrides)
        record = run_evaluation(eval_model, task, data, tmp_path / "run", chosen).record
        assert record["decoding"]["beam_size"] == beams
        # What looks like no translation is tried again in another way.
        assert {request.config.beam_size for request in eval_model.requests[:FIRST_WINDOW]} == {beams}

    def test_the_language_of_the_rows_reaches_the_metrics(
        self, eval_model: Any, write_jsonl: Write, tmp_path: Path
    ) -> None:
        rows = [{"source": "你好 世界 多谢", "target": "你好 世界 多谢", "target_lang": "zh", "source_lang": "en"}] * 2
        task = load_task("translation")
        outcome = run_evaluation(
            eval_model, task, load_dataset([write_jsonl("d.jsonl", rows)], task), tmp_path / "r", settings("bleu")
        )
        assert "tok:zh" in outcome.record["metrics"]["bleu"]["signature"]

    def test_several_languages_are_noted(
        self, eval_model: Any, write_jsonl: Write, pairs: list[Any], tmp_path: Path
    ) -> None:
        pairs[3]["target_lang"] = "fr"
        task = load_task("translation")
        data = load_dataset([write_jsonl("d.jsonl", pairs)], task)
        outcome = run_evaluation(eval_model, task, data, tmp_path / "r", settings())
        assert "(de, fr)" in outcome.record["notes"][0]

    def test_failed_rows_are_counted_and_in_no_score(
        self, eval_model: Any, write_jsonl: Write, pairs: list[Any], tmp_path: Path
    ) -> None:
        pairs[5]["source"] = "this is an OVERFLOW"
        pairs[9]["source"] = "this will CRASH"
        pairs[30]["source"] = "this will CRASH too"
        task = load_task("translation")
        data = load_dataset([write_jsonl("d.jsonl", pairs)], task)
        outcome = run_evaluation(eval_model, task, data, tmp_path / "r", settings())
        rows = lines(tmp_path / "r")
        assert len(rows) == 40
        assert [row["index"] for row in rows if row["error"]] == [5, 9, 30]
        assert "too long" in rows[5]["error"]
        assert "d.jsonl:6" in rows[5]["error"]
        assert "ZeroDivisionError" in rows[9]["error"]
        assert outcome.failed == 3
        assert outcome.record["metrics"]["chrf"]["n"] == 37
        assert "3 of 40 rows failed" in outcome.record["notes"][0]

    def test_failed_rows_can_be_tried_again(
        self, eval_model: Any, write_jsonl: Write, pairs: list[Any], tmp_path: Path
    ) -> None:
        pairs[9]["source"] = "this will CRASH"
        task = load_task("translation")
        data = load_dataset([write_jsonl("d.jsonl", pairs)], task)
        run_evaluation(eval_model, task, data, tmp_path / "r", settings())
        eval_model.decode = lambda ids: "SURVIVE " + "".join(map(chr, ids))
        assert run_evaluation(eval_model, task, data, tmp_path / "r", settings()).failed == 1
        assert run_evaluation(eval_model, task, data, tmp_path / "r", settings(retry_failed=True)).failed == 0
        assert [row["index"] for row in lines(tmp_path / "r")] == list(range(40))

    def test_too_many_failures_stop_the_run_and_keep_the_rows(
        self, eval_model: Any, write_jsonl: Write, pairs: list[Any], tmp_path: Path
    ) -> None:
        for number in (3, 4, 5):
            pairs[number]["source"] = f"The OVERFLOW {number}."
        task = load_task("translation")
        data = load_dataset([write_jsonl("d.jsonl", pairs)], task)
        with pytest.raises(InputError, match="--max-errors"):
            run_evaluation(eval_model, task, data, tmp_path / "r", settings(max_errors=1))
        assert len(lines(tmp_path / "r")) == 5
        assert load_run(tmp_path / "r").record["status"] == "stopped"

    def test_a_metric_that_fails_costs_no_sample(
        self, eval_model: Any, write_jsonl: Write, pairs: list[Any], tmp_path: Path
    ) -> None:
        del pairs[7]["target"]
        task = load_task("translation")
        data = load_dataset([write_jsonl("d.jsonl", pairs)], task)
        outcome = run_evaluation(eval_model, task, data, tmp_path / "r", settings("chrf", "distinct1"))
        assert "has no reference" in outcome.metric_errors["chrf"]
        assert outcome.record["metrics"]["distinct1"]["value"] > 0
        assert len(lines(tmp_path / "r")) == 40

    def test_rescore_needs_no_model_and_no_torch(
        self, eval_model: Any, write_jsonl: Write, pairs: list[Any], tmp_path: Path
    ) -> None:
        task = load_task("translation")
        data = load_dataset([write_jsonl("d.jsonl", pairs)], task)
        before = run_evaluation(eval_model, task, data, tmp_path / "r", settings("chrf")).record["metrics"]
        script = (
            "import sys; from pathlib import Path; from nlpkit.eval.runs.rescoring import rescore;"
            f"print(rescore(Path({str(tmp_path / 'r')!r})).record['metrics']['chrf']['value']);"
            "assert 'torch' not in sys.modules"
        )
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment())
        assert done.returncode == 0, done.stderr
        assert float(done.stdout) == before["chrf"]["value"]
        again = rescore(tmp_path / "r", ScoringOptions(metrics=("ter", "chrf"), n_resamples=50)).record
        assert set(again["metrics"]) == {"ter", "chrf"}
        assert again["metrics"]["chrf"] == before["chrf"]
        assert set(lines(tmp_path / "r")[0]["scores"]) == {"ter", "chrf"}

    def test_sampled_rows_have_streams_of_their_own_that_a_seed_repeats(
        self, eval_model: Any, write_jsonl: Write, tmp_path: Path
    ) -> None:
        task = load_task("writing")
        data = load_dataset([write_jsonl("d.jsonl", [{"prompt": "the same prompt"}] * 8)], task)
        seeds = []
        for number, seed in enumerate((1, 1, 2)):
            run_evaluation(eval_model, task, data, tmp_path / str(number), settings("distinct1", seed=seed))
            seeds.append([row["seed"] for row in lines(tmp_path / str(number))])
        assert len(set(seeds[0])) == 8
        assert seeds[0] == seeds[1]
        assert not set(seeds[0]) & set(seeds[2])

    def test_the_form_of_written_texts(self, eval_model: Any, write_jsonl: Write, tmp_path: Path) -> None:
        task = load_task("writing")
        rows = [{"prompt": "rose", "form": "acrostic"}, {"prompt": "the sea", "form": "haiku"}]
        data = load_dataset([write_jsonl("d.jsonl", rows)], task)
        outcome = run_evaluation(eval_model, task, data, tmp_path / "r", settings("form"))
        assert [row["form"] for row in lines(tmp_path / "r")] == ["acrostic:rose", "haiku"]
        assert 0 <= outcome.record["metrics"]["form"]["value"] < 100


class TestResume:
    @pytest.mark.parametrize("dtype", ["fp32", "bf16"])
    def test_any_cut_resumes_to_the_same_file(
        self, eval_model: Any, write_jsonl: Write, pairs: list[Any], tmp_path: Path, dtype: str
    ) -> None:
        pairs = [{**row, "source": f"{row['source']} {number}"} for number, row in enumerate(pairs * 4)]
        task = load_task("translation")
        data = load_dataset([write_jsonl("d.jsonl", pairs)], task)
        assert len(pairs) > 2 * BLOCK
        eval_model.dtype, eval_model.vary = dtype, dtype != "fp32"
        whole = run_evaluation(eval_model, task, data, tmp_path / "whole", settings()).record
        wanted = [{**row, "seconds": 0} for row in lines(tmp_path / "whole")]
        written = [SampleRecord(**{**record.__dict__, "scores": {}}) for record in load_run(tmp_path / "whole").samples]
        raw = "".join(record.to_line() for record in written).encode()
        rng = random.Random(7)
        for cut in [0, 1, len(raw) - 1, len(raw), *(rng.randrange(len(raw)) for _ in range(6))]:
            folder = tmp_path / f"cut{cut}"
            folder.mkdir()
            (folder / "run.json").write_bytes((tmp_path / "whole" / "run.json").read_bytes())
            (folder / "samples.jsonl").write_bytes(raw[:cut])
            outcome = run_evaluation(eval_model, task, data, folder, settings())
            assert [{**row, "seconds": 0} for row in lines(folder)] == wanted
            assert outcome.record["metrics"] == whole["metrics"]
            assert outcome.record["counts"] == whole["counts"]

    def test_a_finished_run_runs_nothing(
        self, eval_model: Any, write_jsonl: Write, pairs: list[Any], tmp_path: Path
    ) -> None:
        task = load_task("translation")
        data = load_dataset([write_jsonl("d.jsonl", pairs)], task)
        run_evaluation(eval_model, task, data, tmp_path / "r", settings())
        asked = len(eval_model.requests)
        outcome = run_evaluation(eval_model, task, data, tmp_path / "r", settings("chrf", "ter"))
        assert len(eval_model.requests) == asked
        assert set(outcome.record["metrics"]) == {"chrf", "ter"}
        assert len(outcome.record["sessions"]) == 2

    @pytest.mark.parametrize(
        ("change", "says"),
        [
            ({"overrides": {"max_tokens": 9}}, "decoding.max_tokens: null -> 9"),
            ({"overrides": {"repetition_penalty": 1.1}}, "decoding.repetition_penalty: 1.0 -> 1.1"),
            ({"on_overflow": "truncate"}, 'on_overflow: "chunk" -> "truncate"'),
        ],
    )
    def test_changed_options_are_refused(
        self, eval_model: Any, write_jsonl: Write, pairs: list[Any], tmp_path: Path, change: Any, says: str
    ) -> None:
        task = load_task("translation")
        data = load_dataset([write_jsonl("d.jsonl", pairs)], task)
        run_evaluation(eval_model, task, data, tmp_path / "r", settings())
        before = (tmp_path / "r" / "run.json").read_bytes()
        with pytest.raises(ConfigError) as error:
            run_evaluation(eval_model, task, data, tmp_path / "r", settings(**change))
        assert says in str(error.value)
        assert "--output" in str(error.value)
        assert (tmp_path / "r" / "run.json").read_bytes() == before

    def test_changed_data_model_or_task_are_refused(
        self, eval_model: Any, write_jsonl: Write, pairs: list[Any], tmp_path: Path
    ) -> None:
        task = load_task("translation")
        data = load_dataset([write_jsonl("d.jsonl", pairs)], task)
        run_evaluation(eval_model, task, data, tmp_path / "r", settings())
        pairs[0]["source"] += "!"
        changed = load_dataset([write_jsonl("e.jsonl", pairs)], task)
        with pytest.raises(ConfigError, match=r"data\.sha256"):
            run_evaluation(eval_model, task, changed, tmp_path / "r", settings())
        with pytest.raises(ConfigError, match=r"data\.rows: 40 -> 3"):
            run_evaluation(eval_model, task, data.limit(3), tmp_path / "r", settings())
        shots = draw_shots(data, task, count=2, seed=0)
        with pytest.raises(ConfigError, match=r"task\.shots"):
            run_evaluation(eval_model, task, data, tmp_path / "r", settings(shots=shots))
        eval_model.sha = "other"
        with pytest.raises(ConfigError, match=r"model\.sha256\.model"):
            run_evaluation(eval_model, task, data, tmp_path / "r", settings())

    def test_a_renamed_data_file_is_the_same_data(
        self, eval_model: Any, write_jsonl: Write, pairs: list[Any], tmp_path: Path
    ) -> None:
        task = load_task("translation")
        run_evaluation(
            eval_model, task, load_dataset([write_jsonl("d.jsonl", pairs)], task), tmp_path / "r", settings()
        )
        data = load_dataset([write_jsonl("renamed.jsonl", pairs)], task)
        assert run_evaluation(eval_model, task, data, tmp_path / "r", settings()).record["counts"]["done"] == 40

    def test_other_folders_are_not_touched(
        self, eval_model: Any, write_jsonl: Write, pairs: list[Any], tmp_path: Path
    ) -> None:
        task = load_task("translation")
        data = load_dataset([write_jsonl("d.jsonl", pairs)], task)
        with pytest.raises(ConfigError, match="no run directory"):
            run_evaluation(eval_model, task, data, tmp_path, settings())
        (tmp_path / "r").mkdir()
        with hold(tmp_path / "r"), pytest.raises(OutputError, match="Another process"):
            run_evaluation(eval_model, task, data, tmp_path / "r", settings())

    def test_a_folder_in_which_a_first_record_was_begun(self, tmp_path: Path) -> None:
        code = (
            "import os; from pathlib import Path; from nlpkit.core.files.write import whole_file\n"
            f"whole_file(Path({str(tmp_path)!r}) / 'run.json').__enter__().write_text('half'); os._exit(9)"
        )
        assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 9
        assert len(list(tmp_path.iterdir())) == 1
        with hold(tmp_path):
            assert [path.name for path in tmp_path.iterdir()] == [LOCK]

    def test_killed_at_random_moments(self, write_jsonl: Write, pairs: list[Any], tmp_path: Path) -> None:
        """SIGKILL a real process again and again; then every row is there once, and the score is the same."""
        pairs = [{**row, "source": f"{row['source']} {number}"} for number, row in enumerate(pairs * 4)]
        data = write_jsonl("d.jsonl", pairs)

        def command(output: str) -> list[str]:
            options = ["--data", data, "--metric", "chrf", "--resamples", "50", "-q", "--json"]
            return [sys.executable, str(PROGRAM), "eval", "run", "translation", "-o", str(tmp_path / output), *options]

        done = subprocess.run(command("whole"), capture_output=True, text=True, env=environment())
        assert done.returncode == 0, done.stderr
        whole = json.loads(done.stdout)
        rng = random.Random(3)
        kills = 0
        progress = []
        samples = tmp_path / "killed" / "samples.jsonl"
        for _ in range(KILLS):
            process = subprocess.Popen(
                command("killed"),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                env=environment(FAKE_DELAY="0.004"),
            )
            size = samples.stat().st_size if samples.exists() else 0
            deadline = time.monotonic() + 30
            # Let it get to work, then strike at a random moment.
            while process.poll() is None and time.monotonic() < deadline:
                if samples.exists() and samples.stat().st_size > size:
                    break
                time.sleep(0.002)
            time.sleep(rng.random() * 0.05)
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
                kills += 1
            assert process.stderr is not None
            errors = process.stderr.read()
            process.wait()
            process.stderr.close()
            assert process.returncode in (0, -signal.SIGKILL), errors
            progress.append(len(read_samples(samples)[0]))
            if process.returncode == 0:
                break
            # As a torn write leaves it.
            if rng.random() < 0.5:
                with samples.open("ab") as stream:
                    stream.write(
                        SampleRecord(index=159, id="159", row={}, row_sha256="x")
                        .to_line()
                        .encode()[: rng.randrange(1, 60)]
                    )
        done = subprocess.run(command("killed"), capture_output=True, text=True, env=environment())
        assert done.returncode == 0, done.stderr
        killed = json.loads(done.stdout)
        rows = lines(tmp_path / "killed")
        assert kills >= 3
        assert progress == sorted(progress)
        assert [row["index"] for row in rows] == list(range(len(pairs)))
        assert [row["prediction"] for row in rows] == [row["prediction"] for row in lines(tmp_path / "whole")]
        assert killed["metrics"] == whole["metrics"]
        assert killed["counts"] == whole["counts"]
        assert killed["status"] == "complete"


def conversation(task: Any, shots: Shots, example: Any) -> list[dict[str, str]]:
    """What a model is asked with solved examples before the prompt."""
    return PromptEncoder(None, None, solved=partial(shots.solved, task)).describe(task, example)  # type: ignore[arg-type]


class TestShots:
    def test_turns_before_the_prompt(self, write_jsonl: Write, pairs: list[Any]) -> None:
        task = load_task("translation")
        shots = draw_shots(load_dataset([write_jsonl("t.jsonl", pairs)], task), task, count=2, seed=5)
        example = task.prepare({"source": "a new one", "target_lang": "de", "source_lang": "en"})
        messages = conversation(task, shots, example)
        assert [message["role"] for message in messages] == ["user", "assistant"] * 2 + ["user"]
        assert messages[-1]["content"] == task.prompt(example).text
        first = shots.rows[0].example
        assert messages[1]["content"] == first["target"]  # type: ignore[index]
        assert conversation(task, shots, example) == messages

    def test_the_draw_depends_on_the_seed_alone(self, write_jsonl: Write, pairs: list[Any]) -> None:
        task = load_task("translation")
        data = load_dataset([write_jsonl("t.jsonl", pairs)], task)
        turned = load_dataset([write_jsonl("u.jsonl", pairs[::-1])], task)

        def drawn(dataset: Any, seed: int) -> list[str]:
            return [row.sha256 for row in draw_shots(dataset, task, count=3, seed=seed).rows]

        assert drawn(data, 1) == drawn(turned, 1)
        assert len({tuple(drawn(data, seed)) for seed in range(8)}) > 5

    def test_a_row_is_never_its_own_example(self, write_jsonl: Write, pairs: list[Any]) -> None:
        task = load_task("translation")
        pairs = [{**row, "source": f"{row['source']} {number}"} for number, row in enumerate(pairs)]
        shots = draw_shots(load_dataset([write_jsonl("t.jsonl", pairs)], task), task, count=2, seed=0)
        for row in pairs:
            messages = conversation(task, shots, task.prepare(row))
            assert len(messages) == 5
            assert not any(message["content"].endswith(f"\n{row['source']}") for message in messages[:-1])

    def test_too_few_rows(self, write_jsonl: Write, pairs: list[Any]) -> None:
        task = load_task("translation")
        rows = [{key: value for key, value in row.items() if key != "target"} for row in pairs[:-1]] + pairs[-1:]
        with pytest.raises(InputError, match="has 1 rows with an answer"):
            draw_shots(load_dataset([write_jsonl("t.jsonl", rows)], task), task, count=2, seed=0)


class TestShards:
    def test_merged_shards_equal_the_whole(
        self, eval_model: Any, write_jsonl: Write, pairs: list[Any], tmp_path: Path
    ) -> None:
        task = load_task("translation")
        data = load_dataset([write_jsonl("d.jsonl", pairs)], task)
        whole = run_evaluation(eval_model, task, data, tmp_path / "whole", settings("chrf", "bleu")).record
        folders = []
        for number in (3, 1, 2):
            folders.append(str(tmp_path / f"s{number}"))
            run_evaluation(eval_model, task, data.shard(number, 3), Path(folders[-1]), settings("chrf", "bleu"))
        merged = merge_runs(folders, tmp_path / "merged").record
        assert merged["metrics"] == whole["metrics"]
        assert merged["data"]["sha256"] == whole["data"]["sha256"]
        assert merged["counts"] == whole["counts"]
        assert [row["index"] for row in lines(tmp_path / "merged")] == list(range(40))

    def test_missing_double_and_foreign_shards(
        self, eval_model: Any, write_jsonl: Write, pairs: list[Any], tmp_path: Path
    ) -> None:
        task = load_task("translation")
        data = load_dataset([write_jsonl("d.jsonl", pairs)], task)
        for number in (1, 2):
            run_evaluation(eval_model, task, data.shard(number, 2), tmp_path / str(number), settings())
        run_evaluation(eval_model, task, data, tmp_path / "whole", settings())
        eval_model.sha = "other"
        run_evaluation(eval_model, task, data.shard(2, 2), tmp_path / "foreign", settings())
        for folders, says in [
            (["1"], "2/2 are missing"),
            (["1", "1"], "2/2 are missing"),
            (["1", "foreign"], "model.sha256"),
            (["whole", "1"], "not a shard"),
        ]:
            with pytest.raises(InputError, match=says):
                merge_runs([tmp_path / name for name in folders], tmp_path / "out")


def test_differences_are_said_in_words() -> None:
    assert differences({"a": 1, "b": None}, {"a": 2, "c": "x"}) == [
        "a: 1 -> 2",
        "b: null -> (none)",
        'c: (none) -> "x"',
    ]
