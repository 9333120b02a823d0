"""Which tasks a model or an adapter was tuned for with short prompts: a file beside its weights says so.

A GGUF file says the same in its metadata, under `GGUF_KEY`, so that it needs no second file.

The file is JSON: ``format_version``, ``brief_prompts`` (names of short prompts), and, where they are known, ``learned``
(values of the tasks' options that the rows had, such as ``[{"source_lang": "en", "target_lang": "de"}]`` or
``[{"form": "haiku"}]``) and ``base_sha256`` (of the weight file that an adapter was trained on). Files from before have
``languages``, pairs of source and target, and ``forms`` in place of ``learned``; such are still read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nlpkit.core.errors import ModelFileError
from nlpkit.core.files.read import read_json_object

FILE_NAME = "nlpkit_tasks.json"
FORMAT_VERSION = 1

GGUF_KEY = "nlpkit.tasks"
"""Metadata key of GGUF files; its value is what the file `FILE_NAME` would hold."""


@dataclass(frozen=True, kw_only=True)
class LearnedTasks:
    """What a model or an adapter was tuned for.

    Attributes:
        names: Names of the short prompts that it learned.
        learned: Values of options that its rows had, a mapping each; empty where nothing is said.
        base_sha256: Hex sha256 of the weight file that an adapter belongs to, or None where nothing is said.
    """

    names: frozenset[str] = frozenset()
    learned: tuple[Mapping[str, str], ...] = field(default=(), hash=False)
    base_sha256: str | None = None

    @property
    def languages(self) -> tuple[tuple[str, str], ...]:
        """Pairs of source and target language that it learned to translate; empty where nothing is said."""
        keys = ("source_lang", "target_lang")
        return tuple((values[keys[0]], values[keys[1]]) for values in self.learned if set(keys) <= values.keys())

    def values(self, option: str) -> tuple[str, ...]:
        """Return the values of one option that it learned, sorted; none where nothing is said."""
        return tuple(sorted({values[option] for values in self.learned if option in values}))

    def to_json(self) -> str:
        """Return the text that `parse_learned_tasks` reads."""
        values: dict[str, Any] = {"format_version": FORMAT_VERSION, "brief_prompts": sorted(self.names)}
        values |= {"learned": [dict(one) for one in self.learned], "base_sha256": self.base_sha256}
        return json.dumps({key: value for key, value in values.items() if value}, indent=2)

    def write(self, folder: Path) -> None:
        """Write it down in an existing folder; nothing where there are no tasks."""
        if self.names:
            (folder / FILE_NAME).write_text(self.to_json() + "\n", "utf-8")


def read_learned_tasks(folder: Path) -> LearnedTasks:
    """Read what the model or the adapter in a folder was tuned for.

    An opened model knows more: `nlpkit.core.formats.source.ModelSource.learned_tasks`.

    Args:
        folder: A model's or an adapter's folder; a file says nothing here.

    Returns:
        What the folder says; nothing where it does not say.

    Raises:
        ModelFileError: The file is damaged, or of a later version.
    """
    path = folder / FILE_NAME
    if not folder.is_dir() or not path.exists():
        return LearnedTasks()
    return _checked(read_json_object(path), where=str(path))


def parse_learned_tasks(text: Any, *, where: str) -> LearnedTasks:
    """Read what `LearnedTasks.to_json` wrote.

    Args:
        text: The text; whatever the metadata of a file hold.
        where: What it stands in, for errors.

    Raises:
        ModelFileError: It is damaged, or of a later version.
    """
    try:
        values = json.loads(text)
    except (TypeError, ValueError, RecursionError):
        values = None
    return _checked(values if isinstance(values, dict) else {}, where=where)


def _checked(values: Mapping[str, Any], *, where: str) -> LearnedTasks:
    names, pairs, forms = (values.get(key, []) for key in ("brief_prompts", "languages", "forms"))
    learned, sha256 = values.get("learned", []), values.get("base_sha256")
    usable = values.get("format_version") == FORMAT_VERSION and "brief_prompts" in values
    usable = usable and _are_strings(names) and _are_strings(forms) and isinstance(learned, list)
    usable = usable and all(isinstance(one, dict) and _are_strings([*one, *one.values()]) for one in learned)
    usable = usable and isinstance(pairs, list) and all(_are_strings(pair) and len(pair) == 2 for pair in pairs)
    usable = usable and (sha256 is None or (isinstance(sha256, str) and bool(re.fullmatch("[0-9a-f]{64}", sha256))))
    if not usable:
        raise ModelFileError(f"{where} cannot be used: it is damaged, or from a later version of nlpkit.")
    former = [{"source_lang": source, "target_lang": target} for source, target in pairs]
    former += [{"form": form} for form in forms]
    return LearnedTasks(names=frozenset(names), learned=(*learned, *former), base_sha256=sha256)


def write_learned_tasks(
    folder: Path,
    tasks: Iterable[str],
    *,
    learned: Iterable[Mapping[str, str]] = (),
    base_sha256: str | None = None,
) -> None:
    """Write down what was tuned; nothing where there are no tasks.

    Args:
        folder: An existing folder.
        tasks: Names of the short prompts that were learned.
        learned: Values of options that the rows had.
        base_sha256: Hex sha256 of the base model's weight file.
    """
    LearnedTasks(names=frozenset(tasks), learned=tuple(learned), base_sha256=base_sha256).write(folder)


def _are_strings(values: Any) -> bool:
    return isinstance(values, list) and all(isinstance(value, str) for value in values)
