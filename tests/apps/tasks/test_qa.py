"""Question answering: spans, offsets, windows, unanswerable questions."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nlpkit.apps.pipeline.run import run_task
from nlpkit.apps.tasks.encoder import short_names
from nlpkit.apps.tasks.qa import QuestionAnswering
from nlpkit.apps.tasks.rows import read_completion
from nlpkit.apps.tasks.task import Chunk, ChunkResult, Learned, Prediction
from nlpkit.apps.text.answer_spans import find_span, sentence_around
from nlpkit.core.decode.request import Completion, Request, Score

CONTEXT = "Ada Lovelace was born in London in 1815. She wrote the first program, for $3.50, in  1843."


def ask(fake_lm: Any, question: str, context: str, reply: Any, **options: Any) -> Any:
    lm = fake_lm(reply, **options)
    (result,) = run_task(lm, QuestionAnswering(), [{"context": context, "question": question}])
    return result


@pytest.mark.parametrize(
    ("said", "answer", "exact"),
    [
        ("1815", "1815", True),
        ("london", "London", True),
        ("ADA  LOVELACE.", "Ada Lovelace", True),
        ("Answer: London.", "London", True),
        ("The answer is: “London”", "London", True),
        ("in 1843", "in  1843", True),
        ("$3.50", "$3.50", True),
        ("Ada was born in 1815 in a village.", "1815", False),
        ("The first program was written in 1843. It was the first program.", "1843", False),
        ("unanswerable", "", False),
        ("The text does not mention London's mayor.", "", False),
        ("Napoleon", "", False),
        ("", "", False),
        ("don", "", False),
    ],
)
def test_answers_are_found_in_the_context(said: str, answer: str, exact: bool) -> None:
    example = {"context": CONTEXT, "question": "When was Ada born, and when was the first program written?"}
    prediction = read_completion(QuestionAnswering(), said, example)
    fields = prediction.fields
    assert prediction.text == fields["answer"] == answer
    assert fields["answerable"] is bool(answer)
    assert fields["exact"] is exact
    if answer:
        assert CONTEXT[fields["start"] : fields["end"]] == answer
        assert fields["evidence"] in CONTEXT
    else:
        assert fields["start"] is fields["end"] is None


@given(st.text(max_size=200), st.text(max_size=60), st.text(max_size=40))
@settings(deadline=None)
def test_offsets_always_hold(context: str, said: str, question: str) -> None:
    example = {"context": context, "question": question}
    fields = read_completion(QuestionAnswering(), said, example).fields
    if fields["answerable"]:
        assert context[fields["start"] : fields["end"]] == fields["answer"] != ""
    span = find_span(context, context[: len(context) // 2], question=question)
    if span is not None and span.exact:
        assert 0 <= span.start < span.end <= len(context)


@given(st.lists(st.sampled_from("one two three four five six seven".split()), min_size=1, max_size=12), st.data())  # noqa: SIM905
@settings(deadline=None)
def test_any_run_of_words_is_found(words: list[str], data: st.DataObject) -> None:
    begin = data.draw(st.integers(0, len(words) - 1))
    end = data.draw(st.integers(begin + 1, len(words)))
    text = ", ".join(words)
    sought = " ".join(words[begin:end])
    span = find_span(text, sought)
    assert span is not None
    assert span.exact
    assert re.findall(r"\w+", text[span.start : span.end]) == words[begin:end]


def test_the_occurrence_next_to_the_question_wins() -> None:
    text = "In 1900 a war began. Nothing more. The treaty was signed in Paris in 1900. It is 1900."
    span = find_span(text, "1900", question="When was the treaty signed?")
    assert span is not None
    assert sentence_around(text, span.start, span.end) == "The treaty was signed in Paris in 1900."


def test_chinese_answers() -> None:
    context = "价格是 $3.50，不贵。我们明天去公园。"
    fields = read_completion(QuestionAnswering(), "明天", {"context": context, "question": "什么时候？"}).fields
    assert context[fields["start"] : fields["end"]] == "明天"
    assert fields["evidence"] == "我们明天去公园。"


def test_a_result_has_score_and_evidence(fake_lm) -> None:
    result = ask(fake_lm, "Where?", CONTEXT, lambda *_: "London")
    assert result.text == "London"
    assert result.fields["score"] == pytest.approx(math.exp(-0.1), abs=1e-6)
    assert result.fields["evidence"] == "Ada Lovelace was born in London in 1815."
    assert result.completion == "London"


def test_decoding_ends_with_the_first_line_that_counts(fake_lm) -> None:
    lm = fake_lm(lambda *_: "The answer is:\n\nLondon\nBecause it says so.")
    (result,) = run_task(lm, QuestionAnswering(), [{"context": CONTEXT, "question": "Where?"}])
    assert result.text == "London"
    assert [request.config.stop for request in lm.requests] == [("\n",), ()]


@pytest.mark.parametrize("context", ["", "  \n"])
def test_an_empty_context_is_unanswerable(fake_lm, context: str) -> None:
    result = ask(fake_lm, "Where?", context, lambda *_: "London")
    assert result.fields["answerable"] is False
    assert result.fields["score"] is None
    assert result.to_dict()["start"] is None


def test_long_contexts_are_read_in_windows(fake_lm) -> None:
    sentences = [f"Room {n} is green. " for n in range(300)]
    sentences[222] = "The hidden treasure lies in a cellar. "
    context = "".join(sentences)

    def reply(prompt: str, request: Any) -> str:
        return "a cellar" if "treasure lies" in prompt else "unanswerable"

    result = ask(fake_lm, "Where is the treasure?", context, reply, max_seq_len=400)
    assert result.chunks > 3
    assert result.text == "a cellar"
    assert context[result.fields["start"] : result.fields["end"]] == "a cellar"
    assert result.fields["evidence"] == "The hidden treasure lies in a cellar."
    assert not result.truncated


def test_windows_overlap(fake_lm) -> None:
    context = "".join(f"Room {n} is green. " for n in range(300))
    lm = fake_lm(lambda *_: "unanswerable", max_seq_len=400)
    (result,) = run_task(lm, QuestionAnswering(), [{"context": context, "question": "Where is it?"}])
    assert result.fields["answerable"] is False
    seen = [int(number) for prompt in reversed(lm.prompts) for number in re.findall(r"Room (\d+)", prompt)]
    assert set(seen) == set(range(300))
    assert len(seen) > 300


def test_whole_answers_beat_partial_ones_then_the_surer_wins() -> None:
    task = QuestionAnswering()
    context = "Red fox. Blue fox. Green owl."
    example = {"context": context, "question": "Which?"}
    results = []
    for offset, text, said, logprob in (
        (0, "Red fox.", "it was the red one", -0.1),
        (9, "Blue fox.", "Blue fox", -0.5),
        (19, "Green owl.", "Green owl", -0.4),
    ):
        chunk = Chunk({**example, "context": text}, offset=offset)
        results.append(ChunkResult(chunk, task.parse(said, chunk.example), logprob))
    merged = task.merge(results, example, learned=None)
    assert merged.text == "Green owl"
    assert context[merged.fields["start"] : merged.fields["end"]] == "Green owl"
    assert task.merge(results[:1], example, learned=None).text == "Red"


class TestShortPrompts:
    """A model that was tuned for the task with short prompts."""

    def ask(self, fake_lm: Any, context: str, reply: Any, **options: Any) -> tuple[Any, Any]:
        lm = fake_lm(reply, **options)
        lm.learned_tasks = frozenset({"qa"})
        (result,) = run_task(lm, QuestionAnswering(), [{"context": context, "question": "Where?"}])
        return result, lm

    def test_the_score_is_the_probability_of_the_answer(self, fake_lm) -> None:
        result, lm = self.ask(fake_lm, CONTEXT, lambda *_: " Ada Lovelace was")
        assert lm.prompts == [f"{CONTEXT}\nQuestion: Where?\nAnswer:"]
        assert result.text == "Ada Lovelace was"
        assert result.output_tokens > 3
        assert result.fields["score"] == pytest.approx(math.exp(-0.1 * result.output_tokens), abs=1e-6)

    def test_what_it_learned_is_read_whole_and_more_in_windows(self, fake_lm) -> None:
        def text(count: int) -> str:
            return "".join(f"Room {n % 10} is red. " for n in range(count))

        counting = fake_lm(lambda *_: "")
        short = next(text(n) for n in range(200, 0, -1) if counting.count_tokens(text(n)) <= 450)
        result, _ = self.ask(fake_lm, short, lambda *_: " unanswerable")
        assert result.chunks == 1
        result, lm = self.ask(fake_lm, short + text(4), lambda *_: " unanswerable")
        assert result.chunks == 2
        contexts = [prompt.split("\nQuestion:")[0] for prompt in lm.prompts]
        assert all(lm.count_tokens(context) <= 350 for context in contexts)
        chat = ask(fake_lm, "Where?", short + text(4), lambda *_: "x", max_seq_len=2000)
        assert chat.chunks == 1

    @pytest.mark.parametrize("short", [True, False])
    def test_an_answer_wins_over_windows_without_one_however_sure_they_are(self, short: bool) -> None:
        task = QuestionAnswering()
        context = "Red fox. Blue fox. Green owl."
        example = {"context": context, "question": "Which?"}
        learned = Learned() if short else None

        def part(offset: int, text: str, said: str, logprob: float, n_tokens: int) -> ChunkResult:
            chunk = Chunk({**example, "context": text}, offset=offset)
            return ChunkResult(chunk, task.parse(said, chunk.example), logprob, n_tokens)

        sure = part(0, "Red fox.", "unanswerable", -0.001, 4)
        # More likely as a whole, less so by the token: 0.5 against 0.3, and -0.7 against -0.3.
        first, second = part(9, "Blue fox.", "Blue", -0.7, 1), part(19, "Green owl.", "Green owl", -0.3, 4)
        merged = task.merge([sure, first, second], example, learned=learned)
        assert merged.text == ("Blue" if short else "Green owl")
        assert merged.fields["score"] == pytest.approx(math.exp(-0.7 if short else -0.3), abs=1e-6)
        assert merged.warnings == ()
        # No answer is as sure as the least sure window.
        unsure = part(9, "Blue fox.", "unanswerable", -0.2, 4)
        merged = task.merge([sure, unsure, sure], example, learned=learned)
        assert merged.fields["answerable"] is False
        assert merged.fields["score"] == pytest.approx(math.exp(-0.8 if short else -0.2), abs=1e-6)


@pytest.mark.parametrize(
    ("said", "context"),
    [
        ("unanswerable", "The riddle was unanswerable for all."),
        ("Unanswerable.", "The riddle was unanswerable for all."),
        ("not mentioned", "He was not mentioned in the letter."),
        ("The mayor of London isn't mentioned.", "London has a mayor."),
        ("There is no mention of the mayor of London.", "London has a mayor."),
        ("That is not in the text about London.", "London has a mayor."),
        ("I cannot answer this about London.", "London has a mayor."),
        ("The passage doesn't answer who the mayor of London is.", "London has a mayor."),
    ],
)
def test_there_is_no_answer_in_a_denial(said: str, context: str) -> None:
    prediction = read_completion(QuestionAnswering(), said, {"context": context, "question": "Who is it?"})
    assert (prediction.text, prediction.fields["answerable"]) == ("", False)
    assert prediction.warnings == ("the model finds no answer in the text",)


@pytest.mark.parametrize(
    ("said", "context"),
    [
        ("it was not known who", "He said that it was not known who did it."),
        ("unanswerable questions", "She liked unanswerable questions."),
        ("knots", "He could tie knots, not mentioned elsewhere."),
    ],
)
def test_words_of_the_text_are_an_answer_though_they_deny_something(said: str, context: str) -> None:
    assert read_completion(QuestionAnswering(), said, {"context": context, "question": "What?"}).text == said


@pytest.mark.parametrize(
    ("text", "warning"),
    [
        ("unanswerable", "the model finds no answer in the text"),
        ("Napoleon", "what the model answered is not in the text, so there is no answer"),
    ],
)
def test_no_answer_is_said(fake_lm, text: str, warning: str) -> None:
    assert ask(fake_lm, "Who?", CONTEXT, lambda *_: text).warnings == (warning,)
    assert ask(fake_lm, "Who?", " ", lambda *_: text).warnings == ("there is no text to look for an answer in",)
    assert ask(fake_lm, "Who?", CONTEXT, lambda *_: "London").warnings == ()


@pytest.mark.parametrize(
    ("text", "said", "question", "before"),
    [
        ("A bridge was built in 1890. The king died in 1890. War began in 1890.", "1890", "When did the king die?", "died in "),
        ("A bridge was built in 1890. The king died in 1890. War began in 1890.", "It was 1890!", "Who was king, and when did he die?", "died in "),
        ("The engine was invented in 1890. Its inventor died in 1890.", "1890", "When was the engine's invention?", "invented in "),
        ("Alice got 5 apples and Bob got 5 pears.", "5", "How many pears did Bob get?", "Bob got "),
        ("Alice got 5 apples and Bob got 5 pears.", "5", "How many apples did Alice get?", "Alice got "),
        ("In 1900 it rained. In 1900 it snowed.", "1900", "", "In "),
        ("Rain fell in May. Snow fell in May.", "May", "When was it cold?", "Rain fell in "),
    ],
)  # fmt: skip
def test_of_equal_spans_the_one_that_the_question_is_about(text: str, said: str, question: str, before: str) -> None:
    span = find_span(text, said, question=question)
    assert span is not None
    assert span.start == text.index(before) + len(before)


class TestInverseRows:
    """Rows that teach which question an answer is to."""

    ROW = {"context": CONTEXT, "question": " Where was Ada born?", "answers": ["London"], "inverse": 1}

    def test_the_answer_is_given_and_the_question_is_the_target(self) -> None:
        task = QuestionAnswering()
        prompt = task.prompt(self.ROW)
        assert prompt.short == f"{CONTEXT}\nAnswer: London\nQuestion:"
        target = task.target(self.ROW)
        assert target is not None
        assert (target.text, target.accepted) == ("Where was Ada born?", ("Where was Ada born?",))
        (message,) = prompt.messages
        assert "London" in message.content.removeprefix(CONTEXT)
        assert "Where was" not in message.content
        assert task.prompt({**self.ROW, "answers": []}).short == f"{CONTEXT}\nAnswer: unanswerable\nQuestion:"
        assert task.target({key: value for key, value in self.ROW.items() if key != "answers"}) is None
        assert short_names(task, [self.ROW]) == short_names(task, [{**self.ROW, "inverse": "1"}]) != {"qa"}
        assert short_names(task, [{**self.ROW, "inverse": value} for value in (0, "0", "", None)]) == {"qa"}

    def test_the_model_is_asked_for_the_question(self, fake_lm) -> None:
        lm = fake_lm(lambda *_: " Where was she born?\nAnswer: London")
        lm.learned_tasks = frozenset({"qa", "qa-inverse"})
        lm.score = None
        (result,) = run_task(lm, QuestionAnswering(), [self.ROW])
        assert lm.prompts == [f"{CONTEXT}\nAnswer: London\nQuestion:"]
        assert result.text == "Where was she born?"


class TestRivals:
    """A model that learned both ways chooses among several answers where it is not sure."""

    FIRST = "Ada Lovelace was"

    def ask(
        self,
        fake_lm: Any,
        likely: dict[str, float],
        *,
        first: str = FIRST,
        tasks: tuple[str, ...] = ("qa", "qa-inverse"),
        overrides: dict[str, Any] | None = None,
        **options: Any,
    ) -> tuple[Any, Any]:
        """Answer `first`, and then with all keys of `likely`, which holds the question's log-likelihood after each."""
        lm = fake_lm(lambda *_: f" {first}", **options)
        lm.learned_tasks, lm.scored = frozenset(tasks), []
        complete = lm._complete

        def several(request: Request) -> tuple[Completion, ...]:
            plain = complete(request)
            if request.config.n == 1:
                return plain
            return tuple(
                replace(plain[0], text=f" {text}", token_ids=(0,), logprobs=(-1.0 - index,), index=index)
                for index, text in enumerate(likely)
            )

        def score(pairs: Any) -> list[Score]:
            asked = [(lm.decode(context), lm.decode(target)) for context, target in pairs]
            lm.scored += asked
            found = [likely[re.search(r"\nAnswer: (.*)\nQuestion:$", context)[1]] for context, _ in asked]
            return [Score(logprob=value, token_logprobs=(value,), is_greedy=False) for value in found]

        lm._complete, lm.score = several, score
        row = {"context": CONTEXT, "question": "Where?"}
        (result,) = run_task(lm, QuestionAnswering(), [row], overrides=overrides)
        return result, lm

    def test_the_answer_that_explains_the_question_best_is_taken(self, fake_lm) -> None:
        # Together: about -0.5 and 0.4 * -19; -2 and 0.4 * -4; -3 and 0.4 * -3.9.
        result, lm = self.ask(fake_lm, {self.FIRST: -19.0, "London": -4.0, "1815": -3.9})
        assert result.text == "London"
        assert CONTEXT[result.fields["start"] : result.fields["end"]] == "London"
        assert result.fields["score"] == pytest.approx(math.exp(-2.0), abs=1e-6)
        assert [request.config.n for request in lm.requests] == [1, lm.requests[1].config.beam_size]
        assert {target for _, target in lm.scored} == {" Where?"}
        assert {context for context, _ in lm.scored} == {
            f"{CONTEXT}\nAnswer: {answer}\nQuestion:" for answer in (self.FIRST, "London", "1815")
        }
        assert not result.alternatives
        assert result.finish_reason == "eos"

    def test_the_first_answer_may_stay(self, fake_lm) -> None:
        result, _ = self.ask(fake_lm, {self.FIRST: -1.0, "London": -4.0})
        assert result.text == self.FIRST
        assert result.fields["score"] == pytest.approx(math.exp(-0.1 * len(lm_tokens(fake_lm, self.FIRST))), abs=1e-6)

    def test_no_answer_is_a_rival_like_others(self, fake_lm) -> None:
        result, _ = self.ask(fake_lm, {self.FIRST: -19.0, "unanswerable": -2.0})
        assert result.fields["answerable"] is False

    def test_answers_that_agree_support_each_other(self) -> None:
        task = QuestionAnswering()
        predictions = [Prediction(text) for text in ("Paris", "the old tower", "old Tower.", "")]
        assert task.choose(predictions, [-1.0, -1.5, -1.6, -9.0], [0.0] * 4) == 1
        assert task.choose(predictions, [-1.0, -1.5, -9.0, -9.0], [0.0] * 4) == 0
        assert task.choose(predictions, [-1.0, -1.5, -1.6, -0.1], [0.0] * 4) == 3
        # The question's likelihood counts for 0.4 of the answer's.
        assert task.choose(predictions[:2], [-1.0, -1.5], [-2.0, -1.0]) == 0
        assert task.choose(predictions[:2], [-1.0, -1.5], [-2.5, -1.0]) == 1
        # Of what is parsed alike the likeliest speaks for all.
        assert task.choose([Prediction("x"), Prediction("y"), Prediction("x")], [-3.0, -2.0, -1.0], [0.0] * 3) == 2

    @pytest.mark.parametrize(
        "options",
        [
            {"first": "Ada"},
            {"tasks": ("qa",)},
            {"overrides": {"beam_size": 1}},
            {"overrides": {"temperature": 0.5, "seed": 1}},
            {"overrides": {"n": 2, "beam_size": 2}},
        ],
        ids=["sure", "never learned it", "greedy asked for", "sampled", "n-best asked for"],
    )
    def test_otherwise_nothing_is_asked_again(self, fake_lm, options: dict[str, Any]) -> None:
        _, lm = self.ask(fake_lm, {"London": -1.0, self.FIRST: -2.0}, **options)
        assert len(lm.requests) == 1
        assert lm.scored == []

    def test_without_room_for_the_question_the_first_answer_stays(self, fake_lm) -> None:
        room = len(lm_tokens(fake_lm, f"{CONTEXT}\nQuestion: Where?\nAnswer:")) + 8
        result, lm = self.ask(
            fake_lm, {self.FIRST: -9.0, "London " + "x " * 40: -1.0}, max_seq_len=room, overrides={"max_tokens": 8}
        )
        assert result.text == self.FIRST
        assert [context for context, _ in lm.scored] == [f"{CONTEXT}\nAnswer: {self.FIRST}\nQuestion:"]


def lm_tokens(fake_lm: Any, text: str) -> list[int]:
    """Return the tokens of ` text`, as the fake model writes it."""
    ids: list[int] = fake_lm(lambda *_: "").encode(f" {text}")
    return ids
