"""Planning, running, streaming: order, overflow, errors, loops, alternatives."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, ClassVar

import pytest

from nlpkit.apps.pipeline.plan import build_decoding
from nlpkit.apps.pipeline.run import TaskResult, run_task, stream_task
from nlpkit.apps.tasks.table import load_task
from nlpkit.apps.tasks.task import (
    Chunk,
    ChunkResult,
    Field,
    Learned,
    Prediction,
    Prompt,
    Row,
    Scores,
    Splits,
    TextBudget,
)
from nlpkit.apps.text.cleaning import Cleaning
from nlpkit.apps.text.repetition import ends_in_cycle, is_loop, repeated_share
from nlpkit.core.decode.config import DecodeConfig
from nlpkit.core.decode.request import Score
from nlpkit.core.errors import ConfigError, ContextOverflowError, InputError, NlpkitError


class Upper(Splits[Row]):
    """Chunks at blanks when too long, joins with blanks."""

    name = "upper"
    fields: ClassVar[tuple[Field, ...]] = (Field("text", help="any"),)
    metrics: ClassVar[tuple[str, ...]] = ("exact_match",)
    options = DecodeConfig(max_tokens=20)
    on_overflow = "error"

    def prompt(self, example: Row) -> Prompt:
        return Prompt(str(example["text"]))

    def split(self, example: Row, budget: TextBudget, *, learned: Learned | None) -> list[Chunk[Row]]:
        if budget.count_tokens(example["text"]) <= budget.max_text_tokens:
            return [Chunk(example)]
        return [Chunk({**example, "text": word}) for word in example["text"].split()]

    def merge(self, results: Sequence[ChunkResult[Row]], example: Row, *, learned: Learned | None) -> Prediction:
        return Prediction(" ".join(result.prediction.text for result in results))


def shout(prompt: str, request: Any) -> str:
    return prompt.removeprefix("<user>").removesuffix("</>").upper()


def rows(*texts: str) -> list[dict[str, str]]:
    return [{"text": text} for text in texts]


def test_results_come_in_input_order_with_the_facts(fake_lm) -> None:
    lm = fake_lm(shout)
    results = list(run_task(lm, Upper(), rows("one", "two", "three")))
    assert [str(result) for result in results] == ["ONE", "TWO", "THREE"]
    result = results[0]
    assert result.finish_reason == "eos"
    assert result.chunks == 1
    assert result.input_tokens == result.used_tokens == len(lm.requests[-1].prompt_ids)
    assert result.output_tokens == 1
    assert not result.truncated
    assert result.error is None
    assert result.example == {"text": "one"}
    assert lm.calls == [3]
    data = json.loads(json.dumps(result.to_dict()))
    assert data["prediction"] == "ONE"
    assert {"finish_reason", "input_tokens", "output_tokens", "truncated", "chunks", "model", "seconds"} <= set(data)


def test_rows_are_read_a_window_at_a_time(fake_lm) -> None:
    read = []

    def examples():
        for number in range(100):
            read.append(number)
            yield {"text": f"w{number}"}

    lm = fake_lm(shout)
    results = run_task(lm, Upper(), examples(), window=10)
    assert str(next(results)) == "W0"
    assert len(read) == 10
    assert [str(result) for result in results] == [f"W{number}" for number in range(1, 100)]
    assert lm.calls == [10] * 10


def test_the_first_results_of_many_rows_come_soon(fake_lm) -> None:
    read = 0

    def examples() -> Any:
        nonlocal read
        for number in range(1000):
            read += 1
            yield {"text": f"word{number}"}

    results = run_task(fake_lm(shout), Upper(), examples())
    seen = []
    for number in range(1000):
        assert str(next(results)) == f"WORD{number}"
        seen.append(read)
    assert seen[0] <= 20
    assert max(seen[number] - number for number in range(1000)) <= 257


def test_many_chunks_of_one_row_are_handed_over_in_windows(fake_lm) -> None:
    lm = fake_lm(shout, max_seq_len=60)
    text = " ".join(f"w{number}" for number in range(50))
    (result,) = run_task(lm, Upper(), rows(text), on_overflow="chunk", window=20)
    assert result.text == text.upper()
    assert result.chunks == 50
    assert lm.calls == [20, 20, 10]
    assert result.input_tokens < result.used_tokens


def test_overflow_is_refused_with_measure_limit_and_fix(fake_lm) -> None:
    lm = fake_lm(shout, max_seq_len=60)
    with pytest.raises(ContextOverflowError) as caught:
        list(run_task(lm, Upper(), rows("word " * 100)))
    for part in ("fake", "60 tokens", "and 40 fit", "--on-overflow"):
        assert part in str(caught.value)
    assert not lm.prompts


def test_truncation_is_reported(fake_lm) -> None:
    lm = fake_lm(shout, max_seq_len=60)
    text = "word " * 100
    (result,) = run_task(lm, Upper(), rows(text), on_overflow="truncate")
    assert result.truncated
    assert result.used_tokens <= 40 < result.input_tokens
    assert text.upper().startswith(result.text)
    assert "first" in result.warnings[0]
    assert result.to_dict()["truncated"] is True


def test_an_explicit_limit_shrinks_the_room_for_the_prompt(fake_lm) -> None:
    lm = fake_lm(shout, max_seq_len=60)
    text = "word " * 30
    (result,) = run_task(lm, Upper(), rows(text), overrides={"max_tokens": 5}, on_overflow="chunk")
    assert result.chunks == 1
    (result,) = run_task(lm, Upper(), rows(text), overrides={"max_tokens": 40}, on_overflow="chunk")
    assert result.chunks == 30
    with pytest.raises(ContextOverflowError, match="no room for a prompt"):
        list(run_task(lm, Upper(), rows(text), overrides={"max_tokens": 60}))


def test_a_piece_that_cannot_be_cut_is_refused(fake_lm) -> None:
    class Stubborn(Upper):
        def split(self, example: Row, budget: TextBudget, *, learned: Learned | None) -> list[Chunk[Row]]:
            return [Chunk(example)]

    with pytest.raises(ContextOverflowError, match="even in pieces"):
        list(run_task(fake_lm(shout, max_seq_len=60), Stubborn(), rows("word " * 100), on_overflow="chunk"))


def test_stopping_at_the_limit_is_said(fake_lm) -> None:
    (result,) = run_task(fake_lm(shout), Upper(), rows("abcd efgh ijkl"), overrides={"max_tokens": 2})
    assert result.finish_reason == "length"
    assert result.text == "ABCD EFGH"
    assert any("limit of 2 tokens" in warning and "--max-tokens" in warning for warning in result.warnings)


def test_bad_rows_stop_the_run_after_the_good_ones_before(fake_lm) -> None:
    results = run_task(fake_lm(shout), Upper(), [{"text": "a"}, {"text": 3}, {"text": "c"}])
    assert str(next(results)) == "A"
    with pytest.raises(InputError, match="row 2"):
        next(results)


def test_bad_rows_are_recorded_when_going_on(fake_lm) -> None:
    examples = [{"text": "a"}, {"nothing": 1}, InputError("data.jsonl:3: broken"), {"text": "w " * 500}, {"text": "e"}]
    results = list(run_task(fake_lm(shout, max_seq_len=200), Upper(), examples, keep_going=True))
    assert [result.text for result in results] == ["A", "", "", "", "E"]
    assert [result.finish_reason for result in results] == ["eos", "error", "error", "error", "eos"]
    assert results[1].error is not None
    assert "row 2" in results[1].error
    assert results[2].error == "data.jsonl:3: broken"
    assert "too long" in (results[3].error or "")


def test_an_error_of_the_engine_hits_only_its_row(fake_lm) -> None:
    def reply(prompt: str, request: Any) -> str:
        if "bad" in prompt:
            raise NlpkitError("cannot")
        return shout(prompt, request)

    results = list(run_task(fake_lm(reply), Upper(), rows("a", "bad", "c"), keep_going=True))
    assert [result.text for result in results] == ["A", "", "C"]
    assert results[1].error == "cannot"
    with pytest.raises(NlpkitError, match="cannot"):
        list(run_task(fake_lm(reply), Upper(), rows("a", "bad", "c")))


def test_progress_counts_requests(fake_lm) -> None:
    seen: list[tuple[int, int]] = []
    list(run_task(fake_lm(shout), Upper(), rows(*"abcdef"), window=2, progress=lambda *x: seen.append(x)))
    assert seen == [(number, 6) for number in range(1, 7)]


def test_a_drawn_seed_is_reported_and_repeats(fake_lm) -> None:
    lm = fake_lm(lambda prompt, request: str(request.config.seed))
    (first,) = run_task(lm, Upper(), rows("x"), overrides={"temperature": 1.0})
    assert first.seed is not None
    assert first.text == str(first.seed)
    (second,) = run_task(lm, Upper(), rows("x"), overrides={"temperature": 1.0, "seed": first.seed})
    assert second.text == first.text
    (greedy,) = run_task(lm, Upper(), rows("x"))
    assert greedy.seed is None


def test_alternatives_are_merged_chunk_by_chunk(fake_lm) -> None:
    lm = fake_lm(shout, max_seq_len=60)
    (result,) = run_task(
        lm, Upper(), rows(" ".join(["w"] * 50)), overrides={"n": 2, "temperature": 1.0}, on_overflow="chunk"
    )
    assert [other.text for other in result.alternatives] == [" ".join(["W"] * 50), " ".join(["W!"] * 50)]
    assert result.text == result.alternatives[0].text
    assert result.alternatives[0].score == pytest.approx(-5.0)
    assert result.alternatives[0].score > result.alternatives[1].score
    (single,) = run_task(lm, Upper(), rows("x"))
    assert single.alternatives == ()


def test_decoding_options_are_combined() -> None:
    task = Upper()
    assert build_decoding(task, {"max_tokens": None}) == task.options
    assert build_decoding(task, {"stop": ["a"]}).stop == ("a",)
    assert build_decoding(task, {"n": 3}).beam_size == 3
    assert build_decoding(task, {"n": 3, "temperature": 0.5}).beam_size == 1
    assert build_decoding(load_task("write"), {"beam_size": 4}).temperature == 0
    assert build_decoding(task, {"min_tokens": 50}).max_tokens >= 50
    with pytest.raises(ConfigError, match="beam"):
        build_decoding(task, {"beam_size": 2, "temperature": 0.5})
    with pytest.raises(ConfigError, match="Did you mean 'top_p'"):
        build_decoding(task, {"topp": 1})


def test_loops_are_found() -> None:
    assert is_loop([1, 2, 3] * 10)
    assert is_loop([*range(200), *([7] * 24)])
    assert not is_loop([7] * 10)
    assert not is_loop(list(range(100)))
    assert not is_loop([1, 2, 3] * 10, reference=[4, 5, 6] * 10)
    assert ends_in_cycle([9, *([1, 2] * 12)])
    assert not ends_in_cycle([*([1, 2] * 12), 9])
    assert repeated_share([]) == 0
    assert repeated_share([1, 1, 1, 1, 1]) == 0.5


def test_loops_are_tried_again_then_flagged(fake_lm) -> None:
    class Careful(Upper):
        options = DecodeConfig(max_tokens=100)
        cleaning = Cleaning(retries_loops=True)

    def recovers(prompt: str, request: Any) -> str:
        return "fine" if request.config.no_repeat_ngram else "salad " * 40

    lm = fake_lm(recovers)
    (result,) = run_task(lm, Careful(), rows("x"))
    assert result.text == "fine"
    assert not result.degenerate
    assert result.warnings == ("the completion ran in circles and was decoded once more without repeats",)
    assert len(lm.prompts) == 2

    hopeless = fake_lm(lambda prompt, request: "salad " * 40)
    (result,) = run_task(hopeless, Careful(), rows("x"))
    assert result.degenerate
    assert result.to_dict()["degenerate"] is True
    assert any("over and over" in warning for warning in result.warnings)
    assert len(hopeless.prompts) == 2

    (result,) = run_task(fake_lm(recovers), Careful(), rows("x"), overrides={"no_repeat_ngram": 9})
    assert result.text == "fine"
    (result,) = run_task(fake_lm(recovers), Upper(), rows("x"), overrides={"max_tokens": 100})
    assert result.degenerate


def test_nothing_to_ask_is_no_error(fake_lm) -> None:
    lm = fake_lm(shout)
    (result,) = run_task(lm, load_task("qa"), [{"context": " ", "question": "Why?"}])
    assert result.text == ""
    assert result.chunks == 0
    assert result.finish_reason == "eos"
    assert not lm.prompts


def join(stream: Any) -> tuple[str, TaskResult]:
    pieces = list(stream)
    assert isinstance(pieces[-1], TaskResult)
    assert all(isinstance(piece, str) and piece for piece in pieces[:-1])
    return "".join(pieces[:-1]), pieces[-1]


@pytest.mark.parametrize(
    ("name", "example", "answer"),
    [
        ("writing", {"prompt": "the sea"}, "  Waves roll\n\nin. \n"),
        ("writing", {"prompt": "the sea"}, "Here is a poem:\n\nWaves roll in."),
        ("generation", {"prompt": "the sea"}, "  is wide \n"),
        ("summarization", {"document": "Long. " * 20}, "<think>Hm.</think>\n\nIt is long."),
        (
            "translation",
            {"source": "One.\n\n  Two.\r\n***\nThree\n", "target_lang": "de"},
            "Eins, und so weiter.\nNote: x",
        ),
        ("translation", {"source": "One.", "target_lang": "de"}, "“Eins.”"),
        ("qa", {"context": "In 1815.", "question": "When?"}, "1815"),
    ],
)
def test_streamed_pieces_make_the_result(fake_lm, name: str, example: dict[str, Any], answer: str) -> None:
    task = load_task(name)
    text, result = join(stream_task(fake_lm(lambda *_: answer), task, example))
    (whole,) = run_task(fake_lm(lambda *_: answer), task, [example])
    assert text == result.text == whole.text
    assert {**result.to_dict(), "seconds": 0, "seed": 0} == {**whole.to_dict(), "seconds": 0, "seed": 0}


def test_streaming_shows_text_early(fake_lm) -> None:
    lm = fake_lm(lambda *_: "It was a dark and stormy night. " * 3)
    pieces = list(stream_task(lm, load_task("write"), {"prompt": "night"}))
    assert len(pieces) > 10


def test_streaming_several_completions_shows_only_the_result(fake_lm) -> None:
    stream = stream_task(fake_lm(shout), load_task("write"), {"prompt": "night"}, overrides={"n": 2})
    text, result = join(stream)
    assert text == result.text
    assert len(result.alternatives) == 2


def test_streaming_checks_before_the_first_piece(fake_lm) -> None:
    with pytest.raises(InputError, match="the input"):
        stream_task(fake_lm(shout), Upper(), {"text": 1})


class TestScores:
    """A closed set of answers is scored, and none is written."""

    class Mood(Scores[Row]):
        name = "mood"
        fields: ClassVar[tuple[Field, ...]] = (Field("text", help="any"),)
        metrics: ClassVar[tuple[str, ...]] = ("exact_match",)

        def prompt(self, example: Row) -> Prompt:
            return Prompt(str(example["text"]), short=f"{example['text']} ->")

        def answers(self, example: Row, *, learned: Learned | None) -> Sequence[str]:
            return ("good", "bad", "mixed")

    def scored(self, lm: Any, likely: dict[str, float]) -> list[str]:
        asked: list[str] = []

        def score(pairs: Any) -> list[Score]:
            asked.extend(lm.decode([*prompt, *target]) for prompt, target in pairs)
            values = [likely[lm.decode(target).strip()] for _, target in pairs]
            return [Score(logprob=value, token_logprobs=(value,), is_greedy=False) for value in values]

        lm.score = score
        return asked

    def test_no_answers_are_said(self, fake_lm, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(self.Mood, "answers", lambda self, example, learned: ())
        with pytest.raises(InputError, match="no answers to choose from"):
            list(run_task(fake_lm(shout), self.Mood(), rows("Rain.")))

    def test_the_likeliest_is_taken(self, fake_lm) -> None:
        lm = fake_lm(shout)
        asked = self.scored(lm, {"good": -3.0, "bad": -1.0, "mixed": -2.0})
        (result,) = run_task(lm, self.Mood(), rows("Rain."))
        assert (result.text, result.alternatives) == ("bad", ())
        (result,) = run_task(lm, self.Mood(), rows("Rain."), overrides={"n": 3})
        assert [(one.text, one.score) for one in result.alternatives] == [
            ("bad", -1.0),
            ("mixed", -2.0),
            ("good", -3.0),
        ]
        assert (result.output_tokens, result.chunks, result.finish_reason) == (0, 1, "eos")
        assert asked == 2 * [f"<user>Rain.</>{answer}" for answer in ("good", "bad", "mixed")]
        assert lm.requests == []

    def test_behind_the_short_prompt_stands_a_space(self, fake_lm) -> None:
        lm = fake_lm(shout)
        lm.learned_tasks = frozenset({"mood"})
        asked = self.scored(lm, {"good": -1.0, "bad": -2.0, "mixed": -3.0})
        assert [str(one) for one in run_task(lm, self.Mood(), rows("Sun."))] == ["good"]
        assert asked[0] == "Sun. -> good"

    def test_what_does_not_fit_is_refused(self, fake_lm) -> None:
        with pytest.raises(ContextOverflowError, match="The input is too long"):
            list(run_task(fake_lm(shout, max_seq_len=20), self.Mood(), rows("word " * 50)))

    def test_rows_are_scored_together_and_keep_their_own_answers(self, fake_lm) -> None:
        lm = fake_lm(shout)
        calls: list[int] = []

        def score(pairs: Any) -> list[Score]:
            calls.append(len(pairs))
            texts = [lm.decode(prompt) + lm.decode(target) for prompt, target in pairs]
            values = [0.0 if text in ("<user>Sun.</>good", "<user>Rain.</>bad") else -1.0 for text in texts]
            return [Score(logprob=value, token_logprobs=(value,), is_greedy=False) for value in values]

        lm.score = score
        results = list(run_task(lm, self.Mood(), [*rows("Sun.", "Rain."), {"text": 3}, *rows("Sun.")], keep_going=True))
        assert [result.text for result in results] == ["good", "bad", "", "good"]
        assert results[2].error is not None
        assert calls == [6], "the same question twice is scored once"

    def test_a_row_that_cannot_be_scored_leaves_its_neighbours(self, fake_lm) -> None:
        lm = fake_lm(shout)

        def score(pairs: Any) -> list[Score]:
            if any("Fog" in lm.decode(prompt) for prompt, _ in pairs):
                raise NlpkitError("no numbers come out")
            return [Score(logprob=-len(ids), token_logprobs=(), is_greedy=False) for _, ids in pairs]

        lm.score = score
        results = list(run_task(lm, self.Mood(), rows("Sun.", "Fog.", "Rain."), keep_going=True))
        assert [result.error is None for result in results] == [True, False, True]
        with pytest.raises(NlpkitError, match="no numbers"):
            list(run_task(lm, self.Mood(), rows("Sun.", "Fog.")))

    def test_a_stream_gives_the_answer_at_once(self, fake_lm) -> None:
        lm = fake_lm(shout)
        self.scored(lm, {"good": -3.0, "bad": -1.0, "mixed": -2.0})
        piece, result = stream_task(lm, self.Mood(), {"text": "Rain."})
        assert (piece, str(result)) == ("bad", "bad")

    def test_progress_counts_rows(self, fake_lm) -> None:
        lm = fake_lm(shout)
        self.scored(lm, {"good": -3.0, "bad": -1.0, "mixed": -2.0})
        seen: list[tuple[int, int]] = []
        list(run_task(lm, self.Mood(), rows("Sun.", "Rain."), progress=lambda done, total: seen.append((done, total))))
        assert seen == [(1, 2), (2, 2)]
