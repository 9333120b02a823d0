"""An adapter from corrections: measured before, trained, measured after, and kept if it is better."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nlpkit.apps.cli.loading import load_shown
from nlpkit.apps.cli.output import note
from nlpkit.apps.cli.progress import ProgressBar, TrainingBar
from nlpkit.apps.cli.train import stopping
from nlpkit.apps.models.adapters import CONFIG, WEIGHTS, AdapterChooser, TaskAdapter, find_adapter
from nlpkit.apps.models.spec import ModelSpec
from nlpkit.apps.pipeline.run import run_task
from nlpkit.apps.tasks.table import load_task
from nlpkit.apps.training.corrections import (
    METRIC,
    SHARES,
    SHOWN_METRIC,
    Compare,
    Lesson,
    Pair,
    correction_recipe,
    correction_rows,
    describe,
    everyday_languages,
    everyday_pairs,
    judge,
    write_rows,
)
from nlpkit.apps.training.examples import read_examples
from nlpkit.apps.training.part_way import go_part_way
from nlpkit.apps.training.recipe import DataSpec
from nlpkit.core.errors import ConfigError, InputError
from nlpkit.core.fetch.catalogue import find_entry
from nlpkit.core.fetch.resolve import resolve_model
from nlpkit.core.files.hashing import hash_value, sha256_file
from nlpkit.core.files.write import atomic_write, unwritable, whole_folder
from nlpkit.core.formats.learned_tasks import FILE_NAME, read_learned_tasks, write_learned_tasks

REPORT = "corrections.json"
"""Name of the file beside an adapter that says what it was learned from, and how it did."""

MOST_GENERAL = 150
"""Most rows of the user's own that are tried besides the corrections."""

SHOWN = 3
"""Most sentences that are shown before and after."""

_MADE = "made-from"


@dataclass(kw_only=True)
class AdapterLesson:
    """One adapter to make.

    Attributes:
        output: The folder that it goes to.
        lesson: The corrections, parted.
        source_lang: Code of the language of the sources.
        target_lang: Code of the language of the translations.
        spec: The model, and the adapter to go on from.
        general: Rows to try besides the corrections, instead of the everyday sentences that are shipped.
        compare: Compares translations.
        quiet: Whether to say nothing on the way.
    """

    output: Path
    lesson: Lesson
    source_lang: str
    target_lang: str
    spec: ModelSpec
    general: str | None = None
    compare: Compare
    quiet: bool = False
    _task: Any = field(default_factory=lambda: load_task("translation"))

    def __post_init__(self) -> None:
        others = self.output.exists() and (not self.output.is_dir() or any(self.output.iterdir()))
        if others and not (self.output / REPORT).is_file():
            raise ConfigError(
                f"{self.output} holds something that is no adapter made of corrections. Name another folder."
            )
        if find_entry(self.spec.name) is None:
            resolve_model(self.spec.name)
        self._general = self._general_pairs()
        rows = correction_rows(self.lesson.learned, self.source_lang, self.target_lang)
        chooser = AdapterChooser(self.spec.name, self.spec.adapter)
        # What was never learned is refused here, as it is in translations.
        self._start = chooser.choose(self._task, self._task.prepare(rows[0])).adapter
        self._work = self.output.with_name(f"{self.output.name}.learning")
        self._recipe = correction_recipe(
            self._work, self._work / "corrections.jsonl", base=self.spec.name, start=self._start
        )
        files = [path for path in self._start_files() if path.is_file()]
        self._key = hash_value(
            {
                "learned": [vars(pair) for pair in self.lesson.learned],
                "tried": [vars(pair) for pair in (*self.lesson.held_out, *self._general)],
                "languages": [self.source_lang, self.target_lang],
                "recipe": {**self._recipe.to_dict(), "output": "", "data": ""},
                "start": [sha256_file(path) for path in files],
                "dtype": self.spec.dtype,
            }
        )

    def _start_files(self) -> Sequence[Path]:
        if self._start is None:
            return ()
        return (self._start.path / WEIGHTS, self._start.path / CONFIG, *filter(None, [self._start.model]))

    def _general_pairs(self) -> tuple[Pair, ...]:
        if self.general is not None:
            spec = DataSpec(
                path=self.general,
                task="translation",
                limit=MOST_GENERAL,
                fields={"source_lang": self.source_lang, "target_lang": self.target_lang},
            )
            rows = [self._task.prepare(row) for _, row in read_examples(spec, self._task)]
            pairs = tuple(Pair(row.source, row.references[0]) for row in rows if row.references)
            if not pairs:
                raise InputError(f"{self.general} has no row with a translation to try.")
            return pairs
        found = everyday_pairs(self.source_lang, self.target_lang)
        if not found:
            raise ConfigError(
                f"There are no everyday sentences to try an adapter from {self.source_lang} to {self.target_lang} "
                f"with, only in {', '.join(everyday_languages())}. Name rows of your own with --general PATH."
            )
        return found

    def run(self) -> dict[str, Any] | None:
        """Make it, and keep it if it is better.

        Returns:
            What became of it; None where the training was interrupted, to go on when it is called again.

        Raises:
            NlpkitError: Something cannot be used or written.
        """
        began = time.perf_counter()
        self._open_work()
        before = self._measured("before", self._start)
        # What is measured runs in other weights than what is trained: they must not be in memory both.
        if not self._trained():
            return None
        own = self._start.model if self._start is not None else None
        spec = self.spec if own is None else dataclasses.replace(self.spec, name=str(own))
        record: dict[str, Any] = {}
        for share in SHARES:
            folder = self._adapter(share)
            after = self._measured("after" if share == 1 else f"after-{share}", find_adapter(folder), spec)
            record = self._judged(before, after)
            record["share"] = share
            if not record.pop("half"):
                break
            note(f"{share:.0%} of the way: {record['reason']}", quiet=self.quiet)
        record["seconds"] = round(time.perf_counter() - began, 1)
        if record["kept"]:
            self._keep(record, folder)
        shutil.rmtree(self._work, ignore_errors=True)
        return record

    @property
    def use(self) -> str:
        """What to type to translate with it."""
        own = self._start.model if self._start is not None else None
        model = str(own) if own is not None else self.spec.name
        named = "" if model == "default" else f"--model {model} "
        return f"nlpkit translate {named}--adapter {self.output}"

    def _open_work(self) -> None:
        """Make the folder to work in, or find what an interrupted run left there."""
        mark = self._work / _MADE
        with unwritable(f"{self._work} cannot be written"):
            if self._work.exists() and not mark.is_file() and any(self._work.iterdir()):
                raise ConfigError(f"{self._work} is in the way: remove it, or name another folder.")
            if mark.is_file() and mark.read_text("utf-8") == self._key:
                note(f"going on with what an earlier run left in {self._work}", quiet=self.quiet)
                return
            shutil.rmtree(self._work, ignore_errors=True)
            self._work.mkdir(parents=True)
            mark.write_text(self._key, "utf-8")

    def _measured(self, name: str, adapter: TaskAdapter | None, spec: ModelSpec | None = None) -> list[str]:
        """Translate what was held out and the everyday sentences, or take it from an interrupted run."""
        kept = self._work / f"{name}.json"
        if kept.is_file():
            texts: list[str] = json.loads(kept.read_text("utf-8"))
            return texts
        pairs = (*self.lesson.held_out, *self._general)
        rows = correction_rows(pairs, self.source_lang, self.target_lang)
        note(f"translating {len(rows)} sentences, {name}", quiet=self.quiet)
        lm = load_shown(spec or self.spec, adapter, quiet=self.quiet)
        with ProgressBar(name, enabled=not self.quiet) as bar:
            results = list(run_task(lm, self._task, rows, overrides={"seed": 0}, keep_going=True, progress=bar))
        texts = ["" if result.error is not None else result.prediction.text for result in results]
        with unwritable(f"{kept} cannot be written"), atomic_write(kept) as file:
            file.write(json.dumps(texts, ensure_ascii=False).encode())
        return texts

    def _trained(self) -> bool:
        """Train, or go on; return whether it came to its end."""
        from nlpkit.apps.training.setup import set_up, write_result
        from nlpkit.core.machine.devices import pick_device
        from nlpkit.core.machine.processor import set_threads
        from nlpkit.core.train.distributed import join, leave
        from nlpkit.core.train.session import TrainingSession

        if (self._work / "adapter" / WEIGHTS).is_file():
            return True
        set_threads(self.spec.threads)
        write_rows(
            self._work / "corrections.jsonl", correction_rows(self.lesson.learned, self.source_lang, self.target_lang)
        )
        process = join(pick_device(self.spec.device))
        try:
            with TrainingBar(quiet=self.quiet) as bar, stopping() as stop:
                training = set_up(self._recipe, process=process, report=bar.on_rows)
                session = TrainingSession(
                    training.trainer, self._work, identity=training.identity, watcher=bar, stop=stop.asked
                )
                session.resume()
                outcome = session.run()
        finally:
            leave()
        if outcome.reason == "stopped":
            note("stopped; the same command goes on", quiet=self.quiet)
            return False
        if outcome.reason == "diverged":
            raise InputError(f"Learning the corrections failed: {outcome.problem}. The memory has them all the same.")
        with unwritable(f"{self._work} cannot be written"), whole_folder(self._work / "adapter") as aside:
            write_result(dataclasses.replace(self._recipe, output=str(aside)), training.start, outcome.weights)
            self._name_base(aside)
        return True

    def _name_base(self, folder: Path) -> None:
        """Write down which weights it was trained on, so that it is refused with others."""
        base = self._start.model if self._start is not None and self._start.model is not None else None
        path = base or resolve_model(self.spec.name)
        tuned = read_learned_tasks(folder)
        if path.is_file() and tuned.names:
            write_learned_tasks(folder, tuned.names, learned=tuned.learned, base_sha256=sha256_file(path))

    def _judged(self, before: Sequence[str], after: Sequence[str]) -> dict[str, Any]:
        held_out = self.lesson.held_out
        n = len(held_out)
        parts = {"corrections": (held_out, before[:n], after[:n]), "everyday": (self._general, before[n:], after[n:])}
        found = {
            part: {
                name: self.compare(name, one, two, [(pair.target,) for pair in pairs])
                for name in (METRIC, SHOWN_METRIC)
            }
            for part, (pairs, one, two) in parts.items()
        }
        verdict = judge(found["corrections"][METRIC], found["everyday"][METRIC])
        changed = [
            {"source": pair.source, "before": one, "after": two, "right": pair.target}
            for pair, one, two in zip(held_out, before, after, strict=False)
            if one != two
        ]
        return {
            "kept": verdict.kept,
            "half": verdict.half,
            "reason": verdict.reason,
            "path": str(self.output) if verdict.kept else None,
            "learned": len(self.lesson.learned),
            "held_out": n,
            "everyday": len(self._general),
            "scores": {part: {name: describe(one) for name, one in scores.items()} for part, scores in found.items()},
            "changed": len(changed),
            "examples": changed[:SHOWN],
        }

    def _adapter(self, share: float) -> Path:
        """Return the folder of the adapter that has gone a share of the way."""
        trained = self._work / "adapter"
        if share == 1:
            return trained
        part = self._work / f"adapter-{share}"
        adapter = self._start if self._start is not None and self._start.model is None else None
        go_part_way(part, trained, None if adapter is None else adapter.path, share=share)
        return part

    def _keep(self, record: dict[str, Any], folder: Path) -> None:
        with unwritable(f"{self.output} cannot be written"), whole_folder(self.output) as aside:
            for name in (WEIGHTS, CONFIG, FILE_NAME):
                with contextlib.suppress(FileNotFoundError):
                    shutil.copyfile(folder / name, aside / name)
            said = {
                **{key: record[key] for key in ("learned", "held_out", "everyday", "share", "scores", "seconds")},
                "source_lang": self.source_lang,
                "target_lang": self.target_lang,
                "went_on_from": None if self._start is None else str(self._start),
            }
            (aside / REPORT).write_text(json.dumps(said, indent=2, ensure_ascii=False) + "\n", "utf-8")


def render_lesson(record: dict[str, Any], *, use: str) -> list[str]:
    """Return what became of an adapter, for people.

    Args:
        record: What `AdapterLesson.run` returned.
        use: What to type to use it.
    """
    lines = [
        f"adapter: {record['learned']} corrections learned, {record['held_out']} held out, in {record['seconds']:.0f} s"
    ]
    names = {
        "corrections": f"{record['held_out']} held-out corrections",
        "everyday": f"{record['everyday']} everyday sentences",
    }
    labels = {METRIC: "chrF", SHOWN_METRIC: "BLEU"}
    for part, scores in record["scores"].items():
        for name, one in scores.items():
            values = f"{one['before']:.1f} before, {one['after']:.1f} after (p {one['p_value']:.2g})"
            lines.append(f"{names[part]}, {labels[name]}: {values}")
    for example in record["examples"]:
        lines += [f"  {example['source']}", *(f"    {key}: {example[key]}" for key in ("before", "after", "right"))]
    if record["share"] < 1:
        lines.append(
            f"the adapter went {record['share']:.0%} of the way, for everyday sentences suffered from all of it"
        )
    lines.append(f"kept in {record['path']}: {use}" if record["kept"] else f"not kept: {record['reason']}")
    return lines
