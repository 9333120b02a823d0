"""Shipped adapters: who gets one, what is said about it, and what is in the package."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from shipped import Loads, install_loader, ship, ship_all, ship_model

import nlpkit
from nlpkit.apps.models import adapters
from nlpkit.apps.models.adapters import (
    AdapterChooser,
    ModelChoice,
    NotLearnedError,
    find_adapter,
    shipped_adapters,
    shipped_models,
)
from nlpkit.apps.pipeline.pool import ModelPool
from nlpkit.apps.tasks.table import load_task
from nlpkit.core.errors import InputError, ModelFileError
from nlpkit.core.fetch import catalogue

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Cli = Callable[..., Any]
ROOT = Path(__file__).resolve().parents[3]
ROWS: dict[str, dict[str, Any]] = {
    "translation": {"source": "Hello.", "target_lang": "de"},
    "qa": {"context": "It rains.", "question": "What?"},
    "summarization": {"document": "It rains. It pours."},
    "writing": {"prompt": "rain", "form": "haiku"},
    "generation": {"prompt": "Once"},
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An adapter for each task."""
    return ship_all(tmp_path / "shipped", monkeypatch)


@pytest.fixture
def loads(fakes: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Loads:
    """Fake models, which answer with the last line of their prompt in capitals."""
    return install_loader(fakes.FakeModel, monkeypatch)


def choose(chooser: AdapterChooser, name: str, row: dict[str, Any]) -> ModelChoice:
    task = load_task(name)
    return chooser.choose(task, task.prepare(row))


def chosen(model: str, adapter: str | None, task: str, **more: Any) -> str | None:
    choice = choose(AdapterChooser(model, adapter), task, {**ROWS[task], **more})
    return None if choice.adapter is None else choice.adapter.name


class TestChoice:
    @pytest.mark.parametrize("task", ROWS)
    def test_the_default_model_gets_the_tasks_own(self, folder: Path, task: str) -> None:
        own = None if task == "generation" else task
        for name in ("default", "smollm2", "SmolLM2-135M-instruct"):
            assert chosen(name, None, task) == own
        assert chosen("default", "none", task) is None
        assert chosen("org/name", None, task) is None
        assert chosen("default", "qa", task) == "qa"

    def test_a_path_is_not_the_default_whatever_it_is_called(
        self, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "default").mkdir()
        assert chosen("default", None, "qa") == "qa"
        monkeypatch.chdir(tmp_path)
        assert chosen("default", None, "qa") is None

    def test_raw_tasks_never_get_one(self, folder: Path) -> None:
        ship(folder, "generation")
        assert chosen("default", None, "generation") is None
        assert chosen("default", "generation", "generation") == "generation"

    @pytest.mark.parametrize(
        ("task", "more", "note"),
        [
            ("writing", {"form": "story"}, "learned the forms haiku, poem, not story"),
            ("writing", {"form": "free"}, ""),
            ("summarization", {"length": "medium"}, ""),
            ("summarization", {"length": "long"}, ""),
            ("summarization", {"max_words": 20}, ""),
        ],
    )
    def test_what_was_not_learned_is_left_to_the_bare_model(
        self, folder: Path, task: str, more: dict[str, Any], note: str
    ) -> None:
        row = {**ROWS[task], **more}
        choice = choose(AdapterChooser("default"), task, row)
        assert choice.adapter is None
        assert note in choice.note
        assert bool(note) == choice.note.endswith("the model works without it")
        named = choose(AdapterChooser("default", task), task, row)
        assert named.adapter is not None
        assert named.note.startswith(f"the adapter {task} learned")

    @pytest.mark.parametrize("own", [False, True])
    @pytest.mark.parametrize(
        ("more", "what"),
        [
            ({"target_lang": "es"}, "not to translate to Spanish"),
            ({"target_lang": "de", "source_lang": "es"}, "not to translate from Spanish to German"),
            ({"target_lang": "en", "source": "الكلب أسود والقطة بيضاء."}, "not to translate from Arabic"),
            (
                {
                    "target_lang": "en",
                    "source": "¿Dónde está? Nosotros no tenemos nada que hacer y el niño está muy cansado.",
                },
                "from Spanish to Eng",
            ),
        ],
    )
    def test_languages_that_nothing_learned_are_refused(
        self, folder: Path, own: bool, more: dict[str, Any], what: str
    ) -> None:
        if own:
            ship_model("translation")
        row = {**ROWS["translation"], **more}
        name = "the model translation" if own else "the adapter translation"
        with pytest.raises(
            NotLearnedError, match=f"{name} learned English to and from German and French, .*{what}.*--ad"
        ):
            choose(AdapterChooser("default"), "translation", row)
        assert chosen("default", "none", "translation", **more) is None
        assert chosen("org/name", None, "translation", **more) is None
        named = choose(AdapterChooser("default", "translation"), "translation", row)
        assert what in named.note

    @pytest.mark.parametrize(
        ("task", "more"),
        [
            ("translation", {"source": "Das ist ein Hund und eine Katze.", "target_lang": "fr"}),
            ("translation", {"target_lang": "French"}),
            ("translation", {"source_lang": "de", "target_lang": "en"}),
            ("translation", {"source_lang": "de", "target_lang": "fr"}),
            ("summarization", {"length": "short"}),
            ("writing", {"form": "Poem"}),
        ],
    )
    def test_what_was_learned(self, folder: Path, task: str, more: dict[str, Any]) -> None:
        # Between two languages other than English it goes through English.
        assert chosen("default", None, task, **more) == task

    def test_an_adapter_of_another_task_is_used_if_it_is_named_and_said(self, folder: Path) -> None:
        choice = choose(AdapterChooser("default", "qa"), "writing", ROWS["writing"])
        assert choice.note == "the adapter qa was tuned for qa, not for writing"

    def test_an_adapter_that_says_nothing_learned_all(self, folder: Path) -> None:
        (folder / "translation" / "nlpkit_tasks.json").unlink()
        assert chosen("default", None, "translation", target_lang="zh") == "translation"

    def test_without_weights_there_is_no_adapter(self, folder: Path) -> None:
        (folder / "qa" / adapters.WEIGHTS).unlink()
        assert [adapter.name for adapter in shipped_adapters()] == ["summarization", "translation", "writing"]
        assert chosen("default", None, "qa") is None
        with pytest.raises(ModelFileError, match=r"no adapter 'qa'\..*'none' for none"):
            find_adapter("qa")

    def test_names_and_paths(self, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        assert find_adapter("qa").path == folder / "qa"
        monkeypatch.chdir(tmp_path)
        # A folder of data is no adapter; a folder with an adapter goes before the shipped one.
        (tmp_path / "qa").mkdir()
        assert find_adapter("qa").path == folder / "qa"
        (tmp_path / "qa" / adapters.CONFIG).write_text("{}")
        assert find_adapter("qa").path == Path("qa")
        assert find_adapter(str(folder / "writing")).tuned.values("form") == ("haiku", "poem")
        with pytest.raises(ModelFileError, match="Did you mean 'translation'"):
            find_adapter("translaton")
        for name in ("./nowhere", str(tmp_path / "nowhere"), str(tmp_path), "x" * 5000, "a\0b"):
            with pytest.raises(ModelFileError, match="no adapter"):
                find_adapter(name)


class TestCommands:
    def records(self, result: Any) -> list[dict[str, Any]]:
        assert result.code == 0, result.err
        return [json.loads(line) for line in result.out.splitlines()]

    def test_the_tasks_adapter_is_merged_and_asked_with_short_prompts(
        self, cli: Cli, loads: Loads, folder: Path
    ) -> None:
        (record,) = self.records(cli("translate", "Hello.", "--to", "German", "--json"))
        assert loads.names == [("default", "translation")]
        assert loads.paths == [folder / "translation"]
        (model,) = loads.models
        assert model.decode(model.requests[0].prompt_ids) == "German: Hello.\n"
        assert (record["adapter"], record["adapter_sha256"]) == ("translation", "f" * 64)
        assert record["prediction"] == "GERMAN: HELLO."

    @pytest.mark.parametrize("options", [("--adapter", "none"), ("--model", str(ROOT))])
    def test_none_and_other_models(self, cli: Cli, loads: Loads, options: tuple[str, str]) -> None:
        (record,) = self.records(cli("translate", "Hello.", "--to", "de", "--json", *options))
        assert [adapter for _, adapter in loads.names] == [None]
        (model,) = loads.models
        assert model.decode(model.requests[0].prompt_ids).startswith("Translate")
        assert (record["adapter"], record["adapter_sha256"]) == (None, None)

    def test_generate_is_the_bare_model(self, cli: Cli, loads: Loads) -> None:
        for more in ((), ("--chat",)):
            assert cli("generate", "Hello", *more).code == 0
        assert loads.names == [("default", None)] * 2

    def test_an_unknown_language_is_refused_before_anything_is_loaded(self, cli: Cli, loads: Loads) -> None:
        result = cli("translate", "Hello.", "--from", "en", "--to", "es")
        assert (result.code, result.out, loads.names) == (2, "", [])
        for part in ("English to and from German and French", "from English to Spanish", "--model", "--adapter none"):
            assert part in result.err
        assert cli("translate", "Hello.", "--to", "es", "--adapter", "none").code == 0
        assert loads.names == [("default", None)]
        result = cli("translate", "Hello.", "--from", "en", "--to", "es", "--adapter", "translation", terminal=True)
        assert loads.names[1:] == [("default", "translation")]
        assert "not to translate from English to Spanish" in " ".join(result.err.split())
        assert "works without it" not in result.err

    def test_a_model_of_its_own_needs_no_other(self, cli: Cli, loads: Loads) -> None:
        path = ship_model("translation")
        (record,) = self.records(cli("translate", "Hello.", "--to", "German", "--json"))
        assert loads.names == [("translation", None)]
        assert (record["model"], record["adapter"], record["prediction"]) == ("translation", None, "GERMAN: HELLO.")
        for more, used in (
            (("--adapter", "none"), ("default", None)),
            (("--adapter", "translation"), ("default", "translation")),
            (("--model", str(ROOT)), (str(ROOT), None)),
            (("--model", str(path / "model.gguf")), (str(path / "model.gguf"), None)),
        ):
            del loads.names[:]
            assert cli("translate", "Hello.", "--to", "de", *more).code == 0
            assert loads.names == [used]
        assert "learned English to and from German and French, not" in cli("translate", "Hello.", "--to", "ja").err
        assert cli("summarize", "It rains.").code == 0
        assert loads.names[1:] == [("default", "summarization")]

    def test_rows_go_each_to_their_model_and_come_in_order(self, cli: Cli, loads: Loads, tmp_path: Path) -> None:
        path = tmp_path / "rows.jsonl"
        forms = ["haiku", "free", "poem", "story", "haiku"]
        path.write_text(
            "".join(json.dumps({"prompt": f"text {n}", "form": form}) + "\n" for n, form in enumerate(forms))
        )
        records = self.records(cli("write", "-f", str(path), "--json", "--stats"))
        assert [record["index"] for record in records] == list(range(5))
        assert [record["adapter"] for record in records] == ["writing", None, "writing", None, "writing"]
        assert sorted(loads.names, key=str) == [("default", "writing"), ("default", None)]
        noted = ["works without it" in "".join(record["warnings"]) for record in records]
        assert noted == [False, False, False, True, False]
        path.write_text(
            "".join(
                json.dumps({"source": f"Text {n} is.", "source_lang": "en", "target_lang": code}) + "\n"
                for n, code in enumerate(["de", "es", "fr"])
            )
        )
        result = cli("translate", "-f", str(path), "--json", "--keep-going")
        assert result.code == 3
        assert ["Spanish" in (json.loads(line)["error"] or "") for line in result.out.splitlines()] == [0, 1, 0]

    def test_lines_and_blanks(self, cli: Cli, loads: Loads) -> None:
        result = cli("translate", "--to", "de", "--lines", stdin=b"one\n\ntwo\n")
        assert (result.code, result.out) == (0, "GERMAN: ONE\n\nGERMAN: TWO\n")
        assert (
            cli("translate", "--to", "de", "--lines", "--json", stdin=b"one\n\n").out.count('"adapter": "translation"')
            == 2
        )
        # Neither a blank line nor a bad row has a model loaded for it.
        del loads.names[:]
        assert cli("write", "--form", "story", "--lines", stdin=b"\none\n").code == 0
        rows = b'{"prompt": 3}\n{"prompt": "one"}\n'
        assert cli("write", "--form", "story", "--input-format", "jsonl", "--keep-going", stdin=rows).code == 3
        assert loads.names == [("default", None)] * 2

    @pytest.mark.parametrize(
        ("options", "adapter", "last"),
        [
            ((), "summarization", "SUMMARY:"),
            (("--length", "short"), "summarization", "SUMMARY:"),
            (("--length", "long"), None, "IT RAINS."),
            (("--max-words", "9"), None, "IT RAINS."),
        ],
    )
    def test_a_length_is_asked_of_the_bare_model(
        self, cli: Cli, loads: Loads, options: tuple[str, ...], adapter: str | None, last: str
    ) -> None:
        (record,) = self.records(cli("summarize", "It rains.", "--json", "--mode", "abstractive", *options))
        assert (record["adapter"], record["prediction"]) == (adapter, last)
        assert loads.names == [("default", adapter)]

    def test_no_answer_is_said(self, cli: Cli, loads: Loads, tmp_path: Path) -> None:
        (tmp_path / "c.txt").write_text("Anna lives in Paris.")
        command = ("qa", "Who?", "--context", str(tmp_path / "c.txt"))
        result = cli(*command)
        assert (result.code, result.out) == (0, "\n")
        assert result.err == "nlpkit: what the model answered is not in the text, so there is no answer\n"
        assert cli(*command, "-q").err == ""
        (record,) = self.records(cli(*command, "--json"))
        assert (record["answerable"], record["prediction"], record["adapter"]) == (False, "", "qa")

    def test_stats_name_the_adapter(self, cli: Cli, loads: Loads) -> None:
        assert "default+qa loaded in" in cli("qa", "Who?", "-c", "-", "--stats", stdin=b"Anna.").err

    def test_nothing_changes_where_none_is_shipped(
        self, cli: Cli, loads: Loads, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(adapters, "FOLDER", tmp_path / "empty")
        (tmp_path / "empty" / "translation").mkdir(parents=True)
        assert cli("translate", "Hello.", "--to", "de").code == 0
        assert loads.names == [("default", None)]

    def test_listed(self, cli: Cli, folder: Path) -> None:
        (row,) = self.records(cli("models", "list", "--json"))
        assert list(row["adapters"]) == ["qa", "summarization", "translation", "writing"]
        assert row["adapters"]["translation"]["languages"] == ["en-de", "de-en", "en-fr", "fr-en"]
        assert row["adapters"]["qa"]["size"] == len("weights of qa")
        assert "adapters: qa, summarization, translation, writing" in cli("models", "list").out
        path = ship_model("translation")
        _, own = self.records(cli("models", "list", "--json"))
        assert (own["name"], own["path"], own["languages"][0]) == ("translation", str(path / "model.gguf"), "en-de")
        text = cli("models", "list").out
        assert "what translation runs on by default: English to and from German and French\n  0 MB, shipped" in text

    def test_the_doctor_looks_at_them(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        from nlpkit.apps.cli import doctor

        found = {name: rest for name, *rest in doctor._adapters()}
        assert "damaged" in found["qa"][0]
        assert "Install nlpkit again" in found["qa"][1]
        monkeypatch.setattr(adapters, "FOLDER", folder / "qa")
        assert list(doctor._adapters()) == [("shipped", "none")]
        ship_model("translation")
        assert "damaged" in next(rest for name, *rest in doctor._adapters() if name == "translation")[0]


class TestToolkit:
    @pytest.fixture
    def toolkit(self, loads: Loads, monkeypatch: pytest.MonkeyPatch) -> nlpkit.Toolkit:
        monkeypatch.setattr("nlpkit.core.fetch.resolve.resolve_model", lambda name, **_: Path(name))
        return nlpkit.load()

    def test_each_tasks_model_is_loaded_when_it_is_used(self, toolkit: nlpkit.Toolkit, loads: Loads) -> None:
        assert loads.names == []
        assert repr(toolkit) == "Toolkit('default')"
        assert toolkit.translate(["a b", "c d"], target_lang="de")[1].text == "GERMAN: C D"
        assert toolkit.translate("more of it", target_lang="fr").adapter == "translation"
        assert loads.names == [("default", "translation")]
        assert toolkit.summarize("It rains.", mode="abstractive").text == "SUMMARY:"
        assert toolkit.summarize("It rains.", length="long").adapter is None
        assert toolkit.generate("once").adapter is None
        assert toolkit.lm.adapter is None
        assert loads.names == [("default", "translation"), ("default", "summarization"), ("default", None)]

    def test_a_model_of_its_own_needs_no_other(self, loads: Loads, monkeypatch: pytest.MonkeyPatch) -> None:
        ship_model("translation")
        monkeypatch.setattr(
            "nlpkit.core.fetch.resolve.resolve_model", lambda name, **_: pytest.fail("the default model was wanted")
        )
        toolkit = nlpkit.load()
        assert toolkit.translate("Hello.", target_lang="de").model == "translation"
        assert loads.names == [("translation", None)]

    def test_mixed_rows_keep_their_order_and_errors_name_them(self, toolkit: nlpkit.Toolkit, loads: Loads) -> None:
        texts = [{"document": f"Text {n}.", **({"max_words": 9} if n % 3 else {})} for n in range(7)]
        results = toolkit.run("summarize", texts)
        assert [result.adapter for result in results] == ["summarization", None, None] * 2 + ["summarization"]
        assert [result.text for result in results if result.adapter is None] == [f"TEXT {n}." for n in (1, 2, 4, 5)]
        with pytest.raises(InputError, match="row 5: 'document' is empty"):
            toolkit.run("summarize", [*texts[:4], {"document": " "}])
        assert toolkit.run("summarize", []) == []

    def test_streams(self, toolkit: nlpkit.Toolkit) -> None:
        pieces: list[Any] = list(toolkit.stream("write", {"prompt": "hi you", "form": "story"}))
        assert "not story" in pieces[-1].warnings[0]
        assert "".join(pieces[:-1]) == pieces[-1].text
        with pytest.raises(InputError, match="no 'target_lang'"):
            toolkit.stream("translate", {"source": "Hi you."})

    def test_none_and_names(self, loads: Loads, monkeypatch: pytest.MonkeyPatch) -> None:
        bare = nlpkit.load(adapter="none")
        assert bare.translate("Hello there", target_lang="de").adapter is None
        assert bare.summarize("It rains.").adapter is None
        named = nlpkit.load(adapter="qa")
        assert named.lm.adapter == "qa"
        assert named.summarize("It rains.").adapter == "qa"
        other = nlpkit.load("org/name")
        assert other.summarize("It rains.").adapter is None
        assert loads.names == [("default", None), ("default", "qa"), ("org/name", None)]

    def test_threads_do_not_load_twice(self) -> None:
        began: list[str] = []

        def load(adapter: Any, like: Any) -> Any:
            began.append("x")
            time.sleep(0.05)
            return object()

        pool = ModelPool(load)
        got: list[Any] = []
        threads = [threading.Thread(target=lambda: got.append(pool.get(None))) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(began) == 1
        assert len({id(model) for model in got}) == 1

    def test_a_load_that_fails_is_tried_again(self) -> None:
        outcomes = iter([ModelFileError("gone"), "model"])

        def load(adapter: Any, like: Any) -> Any:
            outcome = next(outcomes)
            if isinstance(outcome, Exception):
                raise outcome
            return outcome

        pool = ModelPool(load)
        with pytest.raises(ModelFileError):
            pool.get(None)
        assert pool.get(None) == "model"

    def test_progress_counts_over_all_models(self, fakes: Any) -> None:
        task, seen = load_task("generation"), []
        pool = ModelPool(lambda adapter, loaded: fakes.FakeModel())
        rows = [
            ({"prompt": f"p{n}"}, ModelChoice(adapters.TaskAdapter("x", Path()) if n % 2 else None)) for n in range(6)
        ]
        results = list(pool.run(task, rows, progress=lambda done, total: seen.append((done, total))))
        assert [result.text for result in results] == [f"P{n}" for n in range(6)]
        assert seen[-1] == (6, 6)


class TestPackage:
    def test_the_wheel_has_the_files(self) -> None:
        values = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]
        assert "nlpkit.apps.weights" in values["packages"]
        patterns = values["package-data"]["nlpkit.apps.weights"]
        for name in (adapters.CONFIG, adapters.WEIGHTS, "nlpkit_tasks.json", "recipe.toml", "README.md"):
            assert any(Path("qa", name).match(pattern) for pattern in patterns)
        assert Path("apps/weights") == adapters.MODELS.resolve().relative_to(ROOT)
        for name in (adapters.MODEL, "nlpkit_tasks.json", "recipe.toml", "README.md"):
            assert any(Path("translation", name).match(pattern) for pattern in patterns)

    @pytest.mark.parametrize("own", shipped_models(), ids=lambda own: own.name)
    def test_a_shipped_model_is_whole(self, own: adapters.TaskAdapter) -> None:
        from nlpkit.core.formats.open import open_model

        assert own.model is not None
        assert own.model.stat().st_size <= 45_000_000
        opened = open_model(own.model)
        assert opened.learned_tasks() == own.tuned
        assert own.tuned.names == {own.name}
        assert own.tuned.languages
        assert opened.tokenizer().eos_ids
        for name in ("recipe.toml", "README.md"):
            assert (own.path / name).read_text("utf-8").strip()

    @pytest.mark.parametrize("adapter", shipped_adapters(), ids=lambda adapter: adapter.name)
    def test_what_is_shipped_is_whole(self, adapter: adapters.TaskAdapter) -> None:
        from nlpkit.core.formats.peft.adapter import open_adapter

        entry = catalogue.find_entry("default")
        assert entry is not None
        assert open_adapter(adapter.path).modules
        assert (adapter.path / adapters.WEIGHTS).stat().st_size <= 11_000_000
        inverse = {"qa": {"qa-inverse"}, "translation": {"translation.1"}}.get(adapter.name, set())
        assert adapter.tuned.names == {adapter.name} | inverse
        assert adapter.tuned.base_sha256 == entry.sha256
        assert load_task(adapter.name).name == adapter.name
        for name in ("recipe.toml", "README.md"):
            assert (adapter.path / name).read_text("utf-8").strip()
        if adapter.name == "translation":
            assert adapter.tuned.languages
