"""Options for constraints, words that must occur and contrastive search become decoding options."""

from __future__ import annotations

from pathlib import Path

import pytest

import nlpkit
from nlpkit.apps.cli.constraint_options import ConstraintOptions
from nlpkit.apps.cli.options import DecodeOptions
from nlpkit.apps.pipeline.plan import build_decoding
from nlpkit.apps.tasks.generation import TextGeneration
from nlpkit.apps.tasks.writing import Writing
from nlpkit.core.decode.constraint import Constraint
from nlpkit.core.errors import ConfigError, InputError


def test_each_kind(tmp_path: Path) -> None:
    schema, grammar = tmp_path / "schema.json", tmp_path / "list.lark"
    schema.write_text('\ufeff{"type": "integer"}', "utf-8")
    grammar.write_text('start: "é"+', "utf-8")
    assert ConstraintOptions().constraint() is None
    assert ConstraintOptions(choice=["a", "b"]).constraint() == Constraint.choice("a", "b")
    assert ConstraintOptions(regex="a+").constraint() == Constraint.regex("a+")
    assert ConstraintOptions(json_schema=str(schema)).constraint() == Constraint.json_schema({"type": "integer"})
    assert ConstraintOptions(grammar=str(grammar)).constraint() == Constraint.grammar('start: "é"+')


def test_wrong_options(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--choice and --regex contradict each other"):
        ConstraintOptions(choice=["a"], regex="a").constraint()
    with pytest.raises(InputError, match="There is no file"):
        ConstraintOptions(json_schema=str(tmp_path / "none.json")).constraint()
    with pytest.raises(InputError, match="--regex is not valid text"):
        ConstraintOptions(regex="\udce9").constraint()
    with pytest.raises(ConfigError, match="not blank"):
        ConstraintOptions(regex="").constraint()
    broken = tmp_path / "broken.json"
    broken.write_text("{")
    with pytest.raises(ConfigError, match="no JSON"):
        ConstraintOptions(json_schema=str(broken)).constraint()


def test_words_mean_beam_search() -> None:
    overrides = DecodeOptions(must_include=["bees", "honey"]).overrides()
    assert overrides == {"must_include": ("bees", "honey")}
    assert build_decoding(TextGeneration(), overrides).beam_size == 8
    assert build_decoding(TextGeneration(), {**overrides, "n": 12}).beam_size == 12
    assert build_decoding(TextGeneration(), {**overrides, "beam_size": 3}).beam_size == 3
    decoding = build_decoding(Writing(), {"must_include": ["bees"]})
    assert (decoding.must_include, decoding.temperature) == (("bees",), 0.0)
    assert build_decoding(TextGeneration(), {"must_include": "bees"}).must_include == ("bees",)
    with pytest.raises(InputError, match="--must-include"):
        DecodeOptions(must_include=["\udce9"]).overrides()


def test_contrastive_search_chooses_among_candidates() -> None:
    decoding = build_decoding(Writing(), {"contrastive_alpha": 0.6})
    assert (decoding.contrastive_alpha, decoding.top_k, decoding.temperature) == (0.6, 5, 0.0)
    assert build_decoding(Writing(), {"contrastive_alpha": 0.6, "top_k": 8}).top_k == 8
    with pytest.raises(ConfigError, match="contrastive search is deterministic"):
        build_decoding(Writing(), {"contrastive_alpha": 0.6, "temperature": 0.5})
    assert build_decoding(Writing(), {"contrastive_alpha": 0.0}).temperature == 0.8


def test_constraints_from_python_and_from_json() -> None:
    constraint = nlpkit.Constraint.choice("yes", "no")
    assert build_decoding(TextGeneration(), {"constraint": constraint}).constraint == constraint
    as_json = {"kind": "choice", "text": '["yes", "no"]'}
    assert build_decoding(TextGeneration(), {"constraint": as_json}).constraint == constraint
    with pytest.raises(ConfigError, match="'kind' and 'text'"):
        build_decoding(TextGeneration(), {"constraint": {"regex": "a"}})
