"""`Run` moves one example after another from row to result: plan, record completions, retry, merge, reduce."""

from __future__ import annotations

import heapq
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from nlpkit.apps.pipeline.plan import Plan, Planner, build_decoding, encoder_of, explicit_limit
from nlpkit.apps.pipeline.result import Alternative, TaskResult
from nlpkit.apps.tasks.task import (
    BRIEF,
    LEARNED,
    MASKS,
    ORDERED,
    SEVERAL,
    Example,
    Overflow,
    Part,
    Prediction,
    Task,
    check_example,
)
from nlpkit.apps.text.repetition import is_loop
from nlpkit.apps.text.translation.protected import MAX_MASKS
from nlpkit.core.decode.request import Completion, Generation, Request
from nlpkit.core.errors import NlpkitError

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
        example: Prepared; in later rounds what `Task.reduce` made of it.
        plan: Chunks and requests of this round.
        generations: One a request, None while it runs.
        todo: Requests to hand to the engine, with their places in `generations`.
        outstanding: Requests of this round that have not finished.
        retried: Places that were decoded a second time.
        rivals: Places whose completion is to be chosen among rivals, with the first completion.
        result: The outcome, once there is one.
    """

    row: Mapping[str, Any]
    example: Example = field(default_factory=dict)
    plan: Plan = field(default_factory=lambda: Plan(example={}, chunks=(), requests=(), input_tokens=0))
    generations: list[Generation | None] = field(default_factory=list)
    todo: list[tuple[int, Request]] = field(default_factory=list)
    outstanding: int = 0
    retried: set[int] = field(default_factory=set)
    rivals: dict[int, Completion] = field(default_factory=dict)
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


class Run:
    """One task on one model.

    Args:
        lm: The model.
        task: The task.
        overrides: `DecodeConfig` fields that the user set.
        on_overflow: What to do with inputs that do not fit; None is the task's own default.
    """

    def __init__(
        self, lm: LanguageModel, task: Task, overrides: Mapping[str, Any], on_overflow: Overflow | None
    ) -> None:
        self.lm = lm
        self.task = task
        self.encoder = encoder_of(lm)
        self.planner = Planner(
            lm=lm,
            task=task,
            decoding=build_decoding(task, overrides),
            explicit_max_tokens=explicit_limit(overrides),
            given=frozenset(name for name, value in overrides.items() if value is not None),
            on_overflow=on_overflow or task.on_overflow,
        )
        self.given = frozenset(name for name, value in overrides.items() if value is not None)

    def start(self, row: Mapping[str, Any], *, where: str) -> Job:
        """Check, prepare and plan one row.

        Args:
            row: The row.
            where: Its place, for errors.

        Raises:
            NlpkitError: The row cannot be used.
        """
        began = time.perf_counter()
        check_example(self.task, row, where=where)
        job = Job(row=row)
        prepared = self.task.prepare(row)
        if self.encoder.brief(self.task, prepared) is not None:
            masks = all(self.lm.has_token(f"⟦{number}⟧") for number in range(1, MAX_MASKS + 1))
            prepared = {**prepared, BRIEF: True, LEARNED: self.lm.languages, MASKS: masks}
        if self.given:
            prepared = {**prepared, ORDERED: True, SEVERAL: self.planner.decoding.n > 1}
        self._enter(job, self.planner.plan(prepared))
        job.seconds = time.perf_counter() - began
        if not job.todo:
            self.advance(job)
        return job

    def _enter(self, job: Job, plan: Plan) -> None:
        job.plan = plan
        job.example = plan.example
        job.first = job.first or plan
        job.generations = [None] * len(plan.requests)
        job.todo = list(enumerate(plan.requests))
        job.outstanding = len(job.todo)
        job.retried = set()
        job.rivals = {}
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
        if before is None or index in job.rivals:
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
        for index in job.rivals:
            job.generations[index] = self._chosen(job, index)
        generations = [generation for generation in job.generations if generation is not None]
        predictions, scores = self._merge(job, generations)
        for generation, request in zip(generations, job.plan.requests, strict=True):
            job.reasons.add(generation.completions[0].finish_reason)
            if generation.completions[0].finish_reason == "length":
                job.limited.append(request.config.max_tokens)
        following = self.task.reduce(predictions[0], job.example) if job.round < MAX_ROUNDS else None
        if following is not None:
            job.round += 1
            self._enter(job, self.planner.plan(following, on_overflow="chunk"))
            if not job.todo:
                self.advance(job, retry=retry)
            return
        job.result = self._result(job, generations, predictions, scores)

    def _merge(self, job: Job, generations: Sequence[Generation]) -> tuple[list[Prediction], list[float]]:
        """Return the predictions, the best or first first, and the score of each, summed over chunks."""
        wanted = self.planner.decoding.n
        if self.task.combines and wanted > 1 and len(generations) > 1:
            ranked = [sorted(one.completions, key=_ranking, reverse=True) for one in generations]
            choices = best_choices([[_ranking(one) for one in rivals] for rivals in ranked], wanted)
        else:
            ranked = [list(one.completions) for one in generations]
            n = min((len(one.completions) for one in generations), default=1)
            choices = [(i,) * len(generations) for i in range(n)]
        predictions: list[Prediction] = []
        scores: list[float] = []
        for choice in choices:
            chosen = [rivals[place] for rivals, place in zip(ranked, choice, strict=True)]
            parts = [self._part(job, index, completion) for index, completion in enumerate(chosen)]
            prediction = self.task.merge(parts, job.example)
            if self.task.combines and prediction.text in [known.text for known in predictions]:
                continue
            predictions.append(prediction)
            scores.append(sum(map(_ranking, chosen)))
        return predictions, scores

    def _part(self, job: Job, index: int, completion: Completion) -> Part:
        chunk = job.plan.chunks[index]
        return Part(
            chunk,
            self.task.parse(completion.text, chunk),
            completion.mean_logprob,
            completion.n_tokens,
            completion.min_logprob,
            completion.finish_reason,
            self._loops(job, index, completion),
        )

    def _loops(self, job: Job, index: int, completion: Completion) -> bool:
        # Without a reference more is called a loop: only what that finds is worth tokenizing the text.
        if not is_loop(completion.token_ids):
            return False
        text = str(job.plan.chunks[index].get(self.task.text_field, ""))
        return is_loop(completion.token_ids, reference=self.lm.encode(text))

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
        completion = generation.completions[0]
        options = self.task.second_try(completion.text, job.plan.chunks[index], completion.finish_reason)
        greedy = request.config.temperature == 0
        if not options and loops and greedy and self.task.retries_loops and self._loops(job, index, completion):
            options = {"no_repeat_ngram": RETRY_NGRAM}
        rivals = {} if options else self._rivals(request, completion, job.plan.chunks[index])
        options = options or rivals
        # What the user asked for is not second-guessed.
        if not options or self.given & set(options):
            return None
        job.retried.add(index)
        if rivals:
            job.rivals[index] = completion
        job.outstanding += 1
        return Request(prompt_ids=request.prompt_ids, config=request.config.replace(**options))

    def _rivals(self, request: Request, completion: Completion, chunk: Example) -> Mapping[str, Any]:
        """Return options that find rivals of a completion, where the model can choose among them."""
        config = request.config
        plain = config.temperature == 0 and config.beam_size == 1 and not config.contrastive_alpha
        if not plain or config.constraint is not None or config.logprobs is not None:
            return {}
        inverse = self.task.inverse(completion.text, chunk)
        if inverse is None or self.encoder.brief(self.task, inverse) is None:
            return {}
        return self.task.rivals(completion.logprob, chunk)

    def _chosen(self, job: Job, index: int) -> Generation | None:
        """Return the generation that holds the best of a completion and its rivals alone."""
        generation, chunk = job.generations[index], job.plan.chunks[index]
        if generation is None:
            return None
        rivals = {one.text: one for one in (*reversed(generation.completions), job.rivals[index])}
        known: list[Completion] = []
        pairs: list[tuple[list[int], list[int]]] = []
        for one in rivals.values():
            inverse = self.task.inverse(one.text, chunk)
            target = None if inverse is None else self.task.target(inverse)
            if inverse is None or target is None:
                continue
            pair = self.encoder.prompt(self.task, inverse), self.encoder.target(self.task, inverse, target)
            if len(pair[0]) + len(pair[1]) <= self.lm.max_seq_len:
                known.append(one)
                pairs.append(pair)
        best = job.rivals[index]
        if best in known:
            inverse_logprobs = [score.logprob for score in self.lm.score(pairs)]
            predictions = [self.task.parse(one.text, chunk) for one in known]
            best = known[self.task.choose(predictions, [one.logprob for one in known], inverse_logprobs)]
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
        if job.limited and (not self.task.explains or "max_tokens" in self.given):
            which = "the completion" if len(first.chunks) < 2 else f"{len(job.limited)} of the completions"
            warnings.append(f"{which} stopped at the limit of {max(job.limited)} tokens: use --max-tokens for more")
        if loops and not self.task.explains:
            which = "the completion" if len(generations) < 2 else f"{len(loops)} of {len(generations)} completions"
            warnings.append(f"{which} repeats itself over and over; it is not to be trusted")
        alternatives = [
            Alternative(text=prediction.text, score=score)
            for prediction, score in zip(predictions, scores, strict=True)
        ]
        wall = job.finished - job.admitted if generations else 0.0
        return TaskResult(
            prediction=predictions[0],
            completion="\n".join(generation.completions[0].text for generation in generations),
            finish_reason=next((reason for reason in ("length", "stop") if reason in job.reasons), "eos"),
            input_tokens=first.input_tokens,
            used_tokens=job.used_tokens,
            output_tokens=job.output_tokens,
            truncated=first.truncated,
            chunks=len(first.chunks),
            degenerate=bool(loops),
            model=self.lm.name,
            adapter=self.lm.adapter,
            adapter_sha256=self.lm.adapter_sha256,
            seconds=job.seconds + max(wall, 0.0),
            seed=generations[0].completions[0].seed if generations else None,
            alternatives=tuple(alternatives) if len(alternatives) > 1 else (),
            warnings=tuple(dict.fromkeys(warnings)),
            example=job.row,
            completions=generations[0].completions if len(generations) == 1 else (),
        )

    def fail(self, row: Mapping[str, Any], error: NlpkitError) -> Job:
        """Return the finished job of a row that failed."""
        return Job(row=row, result=self.failure(row, error))

    def failure(self, row: Mapping[str, Any], error: NlpkitError) -> TaskResult:
        """Return the result of a row that failed."""
        return TaskResult(
            prediction=Prediction(""),
            finish_reason="error",
            model=self.lm.name,
            adapter=self.lm.adapter,
            adapter_sha256=self.lm.adapter_sha256,
            error=str(error),
            example=row,
        )


def best_choices(scores: Sequence[Sequence[float]], n: int) -> list[tuple[int, ...]]:
    """Choose one candidate for each of several places in the `n` best ways, by the sum of scores.

    Args:
        scores: For each place those of its candidates, best first.
        n: Ways wanted.

    Returns:
        Indices into the candidates, the best way first; fewer where there are no more ways.
    """
    start = (0,) * len(scores)
    heap = [(0.0, start)]
    seen = {start}
    found: list[tuple[int, ...]] = []
    while heap and len(found) < n:
        loss, choice = heapq.heappop(heap)
        found.append(choice)
        for place, index in enumerate(choice):
            following = (*choice[:place], index + 1, *choice[place + 1 :])
            if index + 1 < len(scores[place]) and following not in seen:
                seen.add(following)
                heapq.heappush(heap, (loss + scores[place][index] - scores[place][index + 1], following))
    return found


def _ranking(completion: Completion) -> float:
    return completion.score if completion.score is not None else completion.logprob
