"""`TaskRun` moves one example after another from row to result: plan, record completions, retry, merge, reduce."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, cast

from nlpkit.apps.pipeline.choice import Choice, best_choices, score_choices
from nlpkit.apps.pipeline.compose import compose, may_compose
from nlpkit.apps.pipeline.plan import (
    Plan,
    Planner,
    build_decoding,
    default_overflow,
    encoder_of,
    explicit_limit,
    learned_by,
)
from nlpkit.apps.pipeline.result import Alternative, TaskResult
from nlpkit.apps.tasks.encoder import Solved
from nlpkit.apps.tasks.rows import Prepared, like_of, prepare_row, read_completion
from nlpkit.apps.tasks.task import (
    ChunkResult,
    Composes,
    Learned,
    Overflow,
    Prediction,
    Row,
    Scores,
    Task,
    as_composes,
    as_reranks,
    as_scores,
    as_splits,
)
from nlpkit.apps.text.repetition import is_loop
from nlpkit.core.decode.request import Completion, Generation, Request
from nlpkit.core.errors import InputError, NlpkitError

if TYPE_CHECKING:
    from nlpkit.core.language_model import LanguageModel

MAX_ROUNDS = 8
"""Most reductions of one example; a summary of summaries needs two or three."""

RETRY_NGRAM = 4
"""Length of the token n-grams that a second try of a looping completion must not repeat."""


@dataclass
class Job:
    """One example on its way.

    Attributes:
        row: As it was given.
        example: Prepared; in later rounds what `Splits.reduce` made of it.
        learned: What the model learned, where it is asked with the short prompt.
        seed: Seed of the sampler, where the user gave none.
        plan: Chunks and requests of this round.
        generations: One a request, None while it runs.
        todo: Requests to hand to the engine, with their places in `generations`.
        choice: Answers to score, where the task writes none; None once they are.
        composition: What is asked for line by line; None where a text is written in one go, or once it is.
        outstanding: Requests of this round that have not finished.
        retried: Places that were decoded a second time.
        reranked: Places whose completion is to be chosen among candidates, with the first completion.
        result: The outcome, once there is one.
    """

    row: Row
    example: Any = None
    learned: Learned | None = None
    seed: int | None = None
    plan: Plan = field(default_factory=lambda: Plan(example=None, chunks=(), requests=(), input_tokens=0))
    generations: list[Generation | None] = field(default_factory=list)
    todo: list[tuple[int, Request]] = field(default_factory=list)
    choice: Choice | None = None
    composition: Any = None
    outstanding: int = 0
    retried: set[int] = field(default_factory=set)
    reranked: dict[int, Completion] = field(default_factory=dict)
    round: int = 0
    first: Plan | None = None
    used_tokens: int = 0
    output_tokens: int = 0
    limited: list[int] = field(default_factory=list)
    reasons: set[str] = field(default_factory=set)
    warnings: list[str] = field(default_factory=list)
    seconds: float = 0.0
    admitted: float = math.inf
    finished: float = -math.inf
    result: TaskResult | None = None


class TaskRun:
    """One task on one model. The only place that prepares rows, but for those who had to choose the model by them.

    Args:
        lm: The model.
        task: The task.
        user_options: `DecodeConfig` fields that the user set.
        on_overflow: What to do with inputs that do not fit; None is the task's own default.
        solved: Solved examples before each prompt, if there are any.
    """

    def __init__(
        self,
        lm: LanguageModel,
        task: Task[Any],
        user_options: Mapping[str, Any],
        on_overflow: Overflow | None,
        solved: Solved | None = None,
    ) -> None:
        self.lm = lm
        self.task = task
        self.splits = as_splits(task)
        self.encoder = encoder_of(lm, solved)
        self.user_options = {name: value for name, value in user_options.items() if value is not None}
        self.planner = Planner(
            lm=lm,
            task=task,
            encoder=self.encoder,
            decoding=build_decoding(task, user_options),
            explicit_max_tokens=explicit_limit(user_options),
            user_options=frozenset(self.user_options),
            on_overflow=on_overflow or default_overflow(task),
        )

    def start(self, row: Row | Prepared[Any], *, where: str, seed: int | None = None) -> Job:
        """Check, prepare and plan one row.

        Args:
            row: The row, or what was prepared of it.
            where: Its place, for errors.
            seed: Seed of the sampler, where the user gave none; None draws one.

        Raises:
            NlpkitError: The row cannot be used.
        """
        began = time.perf_counter()
        prepared = row if isinstance(row, Prepared) else prepare_row(self.task, row, where=where)
        short = self.encoder.short(self.task, prepared.example) is not None
        job = Job(row=prepared.row, example=prepared.example, learned=learned_by(self.lm) if short else None, seed=seed)
        scores = as_scores(self.task)
        if scores is not None:
            job.choice = self._choice(job, scores, seed)
            job.seconds = time.perf_counter() - began
            return job
        composes = as_composes(self.task)
        if composes is not None and may_compose(self.user_options):
            job.composition = composes.composition(job.example, learned=job.learned)
        asked = job.example if job.composition is None else job.composition
        self._enter(job, self.planner.plan(asked, learned=job.learned, seed=seed))
        if job.composition is not None:
            job.example, job.todo, job.outstanding = prepared.example, [], 0
            return job
        job.seconds = time.perf_counter() - began
        if not job.todo:
            self.advance(job)
        return job

    def _choice(self, job: Job, scores: Scores[Any], seed: int | None) -> Choice:
        answers = tuple(dict.fromkeys(scores.answers(job.example, learned=job.learned)))
        if not answers:
            options = " or ".join(column.name for column in self.task.fields if column.role == "option")
            given = f" Give its {options}, or take a model that learned them." if options else ""
            raise InputError(f"The task {self.task.name} has no answers to choose from for this row.{given}")
        job.plan = job.first = self.planner.plan(job.example, learned=job.learned, seed=seed)
        job.warnings.extend(job.plan.warnings)
        if not job.plan.chunks:
            raise InputError(f"There is nothing to choose an answer for: the {self.task.text_field} is blank.")
        asked = tuple(self.encoder.ask(self.task, chunk.example) for chunk in job.plan.chunks)
        neutral = scores.neutral(job.example, learned=job.learned)
        return Choice(answers, asked, None if neutral is None else self.encoder.ask(self.task, neutral))

    def choose(self, jobs: Sequence[Job]) -> None:
        """Answer each job that has a choice, from what the model thinks of the answers; they are scored together.

        Args:
            jobs: Jobs with a choice.

        Raises:
            NlpkitError: The model cannot score one of them.
        """
        scores = as_scores(self.task)
        if scores is None:
            return
        began = time.perf_counter()
        choices = [job.choice for job in jobs if job.choice is not None]
        found = score_choices(choices, self.encoder, self.lm.score)
        # Rows side by side share the time.
        seconds = (time.perf_counter() - began) / max(1, len(jobs))
        for job, choice, logprobs in zip(jobs, choices, found, strict=True):
            job.choice = None
            order = sorted(range(len(logprobs)), key=lambda place: -logprobs[place])
            shown = order[: self.planner.decoding.n] if self.planner.decoding.n > 1 else []
            prediction = scores.weigh(choice.answers, logprobs, job.example)
            job.result = self._outcome(
                job,
                prediction=prediction,
                completion=choice.answers[order[0]],
                input_tokens=job.plan.input_tokens,
                used_tokens=sum(len(asked.ids) for asked in choice.asked),
                truncated=job.plan.truncated,
                chunks=len(choice.asked),
                seconds=job.seconds + seconds,
                alternatives=tuple(Alternative(text=choice.answers[i], score=logprobs[i]) for i in shown),
                warnings=(*job.warnings, *prediction.warnings),
            )

    def compose(self, job: Job, *, batch_tokens: int | None = None) -> None:
        """Write the text of a job that has a composition, line by line; or plan it in one go, where that fails."""
        composes, config = cast("Composes[Any]", self.task), job.plan.requests[0].config
        asked, job.composition = self.encoder.ask(self.task, job.composition), None
        done = compose(composes, job.example, asked, self.lm, self.encoder, config, batch_tokens=batch_tokens)
        if not done.texts:
            self._enter(job, self.planner.plan(job.example, learned=job.learned, seed=job.seed))
            return
        predictions = [self.task.parse(text, job.example) for text, _ in done.texts]
        job.result = self._outcome(
            job,
            prediction=predictions[0],
            completion=done.texts[0][0],
            finish_reason="eos",
            input_tokens=job.plan.input_tokens,
            used_tokens=done.used_tokens,
            output_tokens=done.output_tokens,
            chunks=1,
            seconds=done.seconds,
            seed=config.seed,
            alternatives=_alternatives(predictions, [score for _, score in done.texts]),
            warnings=(*job.warnings, *predictions[0].warnings),
        )

    def _enter(self, job: Job, plan: Plan) -> None:
        job.plan = plan
        job.example = plan.example
        job.first = job.first or plan
        job.generations = [None] * len(plan.requests)
        job.todo = list(enumerate(plan.requests))
        job.outstanding = len(job.todo)
        job.retried = set()
        job.reranked = {}
        job.warnings.extend(plan.warnings)

    def record(self, job: Job, index: int, generation: Generation) -> None:
        """Take one finished request.

        Args:
            job: Whose it is.
            index: Its place in the round.
            generation: What the engine gave.
        """
        now = time.perf_counter()
        # Wall time: chunks that ran side by side are not counted twice.
        job.admitted = min(job.admitted, now - generation.seconds)
        job.finished = max(job.finished, now)
        job.outstanding -= 1
        job.used_tokens += len(job.plan.requests[index].prompt_ids)
        job.output_tokens += generation.completion_tokens
        before = job.generations[index]
        if before is None or index in job.reranked:
            job.generations[index] = generation
        elif not self._loops(job, index, generation.completions[0]):
            # A second try that loops as well would be no better than the first, plain one.
            if self._loops(job, index, before.completions[0]):
                which = "the completion" if len(job.generations) == 1 else "a completion"
                job.warnings.append(f"{which} ran in circles and was decoded once more without repeats")
            job.generations[index] = generation

    def advance(self, job: Job, *, retry: bool = True) -> None:
        """After all requests of a round: second tries, or the next round, or the result.

        Args:
            job: A job with nothing outstanding.
            retry: Whether completions may be tried again.
        """
        if retry:
            tries = [(index, self.second_try(job, index)) for index in range(len(job.generations))]
            job.todo = [(index, request) for index, request in tries if request is not None]
            if job.todo:
                return
        for index in job.reranked:
            job.generations[index] = self._chosen(job, index)
        generations = [generation for generation in job.generations if generation is not None]
        choices = self._choices(generations)
        for generation, request in zip(generations, job.plan.requests, strict=True):
            job.reasons.add(generation.completions[0].finish_reason)
            if generation.completions[0].finish_reason == "length":
                job.limited.append(request.config.max_tokens)
        following = None
        if self.splits is not None and job.round < MAX_ROUNDS:
            best = self._results(job, [completion for completion, _ in choices[0]])
            following = self.splits.reduce(best, job.example, learned=job.learned, user_options=self.user_options)
        if following is not None:
            job.round += 1
            plan = self.planner.plan(following, learned=job.learned, seed=job.seed, on_overflow="chunk")
            self._enter(job, plan)
            if not job.todo:
                self.advance(job, retry=retry)
            return
        predictions, scores = self._merge(job, choices)
        job.result = self._result(job, generations, predictions, scores)

    def _choices(self, generations: Sequence[Generation]) -> list[list[tuple[Completion, float]]]:
        """Return one completion a chunk, with its score, for each prediction of the whole: the best or first first."""
        wanted = self.planner.decoding.n
        if self._combines and wanted > 1 and len(generations) > 1:
            ranked = [sorted(one.completions, key=_ranking, reverse=True) for one in generations]
            places = best_choices([[_ranking(one) for one in candidates] for candidates in ranked], wanted)
        else:
            ranked = [list(one.completions) for one in generations]
            n = min((len(one.completions) for one in generations), default=1)
            places = [(i,) * len(generations) for i in range(n)]
        return [
            [(candidates[index], _ranking(candidates[index])) for candidates, index in zip(ranked, place, strict=True)]
            for place in places
        ]

    @property
    def _combines(self) -> bool:
        return self.splits is not None and self.splits.combines

    @property
    def _explains(self) -> bool:
        return self.splits is not None and self.splits.explains

    def _merge(
        self, job: Job, choices: Sequence[Sequence[tuple[Completion, float]]]
    ) -> tuple[list[Prediction], list[float]]:
        """Return the predictions and the score of each, summed over chunks."""
        predictions: list[Prediction] = []
        scores: list[float] = []
        for choice in choices:
            results = self._results(job, [completion for completion, _ in choice])
            if self.splits is not None:
                prediction = self.splits.merge(results, job.example, learned=job.learned)
            else:
                prediction = results[0].prediction
            if self._combines and prediction.text in [known.text for known in predictions]:
                continue
            predictions.append(prediction)
            scores.append(sum(score for _, score in choice))
        return predictions, scores

    def _results(self, job: Job, completions: Sequence[Completion]) -> list[ChunkResult[Any]]:
        return [
            ChunkResult(
                chunk=job.plan.chunks[index],
                prediction=read_completion(self.task, completion.text, job.plan.chunks[index].example),
                logprob=completion.mean_logprob,
                n_tokens=completion.n_tokens,
                min_logprob=completion.min_logprob,
                finish_reason=completion.finish_reason,
                loops=self._loops(job, index, completion),
            )
            for index, completion in enumerate(completions)
        ]

    def _loops(self, job: Job, index: int, completion: Completion) -> bool:
        # Without a reference more is called a loop: only what that finds is worth tokenizing the text.
        if not is_loop(completion.token_ids):
            return False
        text = self.task.text(job.plan.chunks[index].example)
        return is_loop(completion.token_ids, reference=self.encoder.text(text))

    def second_try(self, job: Job, index: int, *, loops: bool = True) -> Request | None:
        """Return a request that tries a finished one again, where that is called for.

        Args:
            job: Whose it is.
            index: Its place in the round.
            loops: Whether running in circles is a reason.
        """
        generation, request = job.generations[index], job.plan.requests[index]
        if generation is None or index in job.retried:
            return None
        completion, example = generation.completions[0], job.plan.chunks[index].example
        cleaning, config = self.task.cleaning, request.config
        options: dict[str, Any] = {}
        if cleaning.ended_too_soon(completion.text, completion.finish_reason, like=like_of(self.task, example)):
            # What ended was no answer: it goes on after its first line.
            options = {"stop": ()}
        elif loops and config.temperature == 0 and cleaning.retries_loops and self._loops(job, index, completion):
            options = {"no_repeat_ngram": RETRY_NGRAM}
        candidates = 0 if options else self._candidates(job, request, completion, example)
        if candidates:
            options = {"beam_size": candidates, "n": candidates, "length_penalty": 0.0}
        # What the user asked for is not second-guessed.
        if not options or not self.user_options.keys().isdisjoint(options):
            return None
        job.retried.add(index)
        if candidates:
            job.reranked[index] = completion
        job.outstanding += 1
        return Request(prompt_ids=request.prompt_ids, config=config.replace(**options))

    def _candidates(self, job: Job, request: Request, completion: Completion, example: Any) -> int:
        """Return how many candidates to search for, where the model can choose among them."""
        config, reranks = request.config, as_reranks(self.task)
        greedy = config.temperature == 0 and config.beam_size == 1 and not config.contrastive_alpha
        if reranks is None or not greedy or config.constraint is not None or config.logprobs is not None:
            return 0
        reverse = reranks.reverse(completion.text, example)
        if reverse is None or self.encoder.short(self.task, reverse) is None:
            return 0
        return reranks.candidates(completion.logprob, example, learned=job.learned)

    def _chosen(self, job: Job, index: int) -> Generation | None:
        """Return the generation that holds the best of a completion and its candidates alone."""
        generation, example, reranks = job.generations[index], job.plan.chunks[index].example, as_reranks(self.task)
        if generation is None or reranks is None:
            return generation
        candidates = {one.text: one for one in (*reversed(generation.completions), job.reranked[index])}
        known: list[Completion] = []
        pairs: list[tuple[list[int], list[int]]] = []
        for one in candidates.values():
            reverse = reranks.reverse(one.text, example)
            target = None if reverse is None else reranks.target(reverse)
            if reverse is None or target is None:
                continue
            asked = self.encoder.ask(self.task, reverse)
            ids = self.encoder.target(asked, target.text)
            if len(asked.ids) + len(ids) <= self.lm.max_seq_len:
                known.append(one)
                pairs.append((asked.ids, ids))
        best = job.reranked[index]
        if best in known:
            reverse_logprobs = [score.logprob for score in self.lm.score(pairs)]
            predictions = [read_completion(self.task, one.text, example) for one in known]
            best = known[reranks.choose(predictions, [one.logprob for one in known], reverse_logprobs)]
        job.finished = max(job.finished, time.perf_counter())
        return replace(generation, completions=(replace(best, index=0),))

    def _result(
        self,
        job: Job,
        generations: Sequence[Generation],
        predictions: Sequence[Prediction],
        scores: Sequence[float],
    ) -> TaskResult:
        first = job.first or job.plan
        loops = [i for i, generation in enumerate(generations) if self._loops(job, i, generation.completions[0])]
        warnings = [*job.warnings, *predictions[0].warnings]
        if job.limited and (not self._explains or "max_tokens" in self.user_options):
            which = "the completion" if len(first.chunks) < 2 else f"{len(job.limited)} of the completions"
            warnings.append(f"{which} stopped at the limit of {max(job.limited)} tokens: use --max-tokens for more")
        if loops and not self._explains:
            which = "the completion" if len(generations) < 2 else f"{len(loops)} of {len(generations)} completions"
            warnings.append(f"{which} repeats itself over and over; it is not to be trusted")
        wall = job.finished - job.admitted if generations else 0.0
        return self._outcome(
            job,
            prediction=predictions[0],
            completion="\n".join(generation.completions[0].text for generation in generations),
            finish_reason=next((reason for reason in ("length", "stop") if reason in job.reasons), "eos"),
            input_tokens=first.input_tokens,
            used_tokens=job.used_tokens,
            output_tokens=job.output_tokens,
            truncated=first.truncated,
            chunks=len(first.chunks),
            degenerate=bool(loops),
            seconds=job.seconds + max(wall, 0.0),
            seed=generations[0].completions[0].seed if generations else None,
            alternatives=_alternatives(predictions, scores),
            warnings=tuple(dict.fromkeys(warnings)),
            completions=generations[0].completions if len(generations) == 1 else (),
        )

    def _outcome(self, job: Job, **values: Any) -> TaskResult:
        return TaskResult(
            example=job.row,
            model=self.lm.name,
            adapter=self.lm.adapter,
            adapter_sha256=self.lm.adapter_sha256,
            **values,
        )

    def fail(self, row: Row, error: NlpkitError) -> Job:
        """Return the finished job of a row that failed."""
        return Job(row=row, result=self.failure(row, error))

    def failure(self, row: Row, error: NlpkitError) -> TaskResult:
        """Return the result of a row that failed."""
        return self._outcome(Job(row=row), prediction=Prediction(""), finish_reason="error", error=str(error))


def _alternatives(predictions: Sequence[Prediction], scores: Sequence[float]) -> tuple[Alternative, ...]:
    found = [Alternative(text=one.text, score=score) for one, score in zip(predictions, scores, strict=True)]
    return tuple(found) if len(found) > 1 else ()


def _ranking(completion: Completion) -> float:
    return completion.score if completion.score is not None else completion.logprob
