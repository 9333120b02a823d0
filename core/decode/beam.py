"""Beam search over the same rows and processors as every other request.

Definition. A hypothesis that has ended scores ``log p / length ** length_penalty``, with log p its summed
log-probability under the processed distribution and length its number of tokens, the ending EOS included. At each step
the ``2 k`` most probable one-token continuations of the k live hypotheses are considered, best first: one that ends by
EOS, or by completing a stop string, joins the finished ones if it is among the first k; the others stay alive until
there are k. The search ends when k hypotheses have finished and no live one can still overtake the worst of the k best;
log p only falls, so a live hypothesis is bounded by its present log p over the most favourable length. At `max_tokens`
the live hypotheses end as they are.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from nlpkit.core.decode.request import Completion, FinishReason, Generation, Request
from nlpkit.core.decode.row import needs_processing, process

if TYPE_CHECKING:
    from nlpkit.core.decode.runner import Runner
    from nlpkit.core.tokenizers.base import Tokenizer


@dataclass(frozen=True)
class Hypothesis:
    """One candidate text.

    Attributes:
        token_ids: Generated ids.
        logprobs: Raw log-probability of each, in nats.
        total: Summed log-probability under the processed distribution, by which beams are ranked.
        finish_reason: Why it ended, or None while alive.
    """

    token_ids: tuple[int, ...] = ()
    logprobs: tuple[float, ...] = ()
    total: float = 0.0
    finish_reason: FinishReason | None = None

    def score(self, length_penalty: float) -> float:
        """Return ``total / length ** length_penalty``."""
        return self.total / float(max(1, len(self.token_ids)) ** length_penalty)


@dataclass
class Search:
    """The beams of one request.

    Attributes:
        number: Index of the request.
        request: The request.
        live: Hypotheses still growing, best first.
        ended: The best finished hypotheses, at most k, worst first (a heap).
    """

    number: int
    request: Request
    live: list[Hypothesis] = field(default_factory=lambda: [Hypothesis()])
    ended: list[tuple[float, int, Hypothesis]] = field(default_factory=list)
    _count: int = 0

    @property
    def k(self) -> int:
        """Beam size."""
        return self.request.config.beam_size

    def finish(self, hypothesis: Hypothesis) -> None:
        """Add an ended hypothesis, keeping the k best."""
        # The counter keeps equal scores in order of arrival and hypotheses out of the comparison.
        self._count += 1
        entry = (hypothesis.score(self.request.config.length_penalty), -self._count, hypothesis)
        if len(self.ended) < self.k:
            heapq.heappush(self.ended, entry)
        else:
            heapq.heappushpop(self.ended, entry)

    def done(self) -> bool:
        """Tell whether the search is over."""
        if not self.live:
            return True
        if len(self.ended) < self.k:
            return False
        penalty = self.request.config.length_penalty
        length = self.request.config.max_tokens if penalty > 0 else len(self.live[0].token_ids) + 1
        bound = max(hypothesis.total for hypothesis in self.live) / float(max(1, length) ** penalty)
        return bound <= self.ended[0][0]

    def results(self) -> list[tuple[float, Hypothesis]]:
        """Return the best ``n`` hypotheses with their scores, best first."""
        best = sorted(self.ended, key=lambda entry: entry[:2], reverse=True)
        return [(score, hypothesis) for score, _, hypothesis in best[: self.request.config.n]]


class BeamSearcher:
    """Runs beam requests, several at once, over one runner."""

    def __init__(self, runner: Runner, tokenizer: Tokenizer, *, batch_tokens: int = 8192) -> None:
        """Set up a searcher.

        Args:
            runner: The model with a cache of its own.
            tokenizer: For text, stop strings and end-of-sequence ids.
            batch_tokens: Most cache slots in use, rows times length.
        """
        self._runner = runner
        self._tokenizer = tokenizer
        self._eos = sorted(tokenizer.eos_ids)
        self._batch_tokens = batch_tokens

    def run(self, requests: Sequence[tuple[int, Request]]) -> Iterator[tuple[int, Generation]]:
        """Search for all requests.

        Args:
            requests: Numbered, checked requests with ``beam_size > 1``.

        Yields:
            Each request's number and result, in order of completion.
        """
        waiting = sorted(requests, key=lambda entry: len(entry[1].prompt_ids), reverse=True)
        while waiting:
            group: list[tuple[int, Request]] = []
            rows = need = 0
            for number, request in waiting:
                rows += request.config.beam_size
                need = max(need, len(request.prompt_ids) + request.config.max_tokens)
                if group and rows * need > self._batch_tokens:
                    break
                group.append((number, request))
            waiting = waiting[len(group) :]
            yield from self._run_group(group)

    def _run_group(self, group: Sequence[tuple[int, Request]]) -> Iterator[tuple[int, Generation]]:
        started = time.perf_counter()
        searches = [Search(number, request) for number, request in group]
        self._runner.reserve(sum(search.k for search in searches))
        prompts = [search.request.prompt_ids for search in searches]
        logits = self._runner.extend(0, prompts, [0] * len(prompts))
        step = 0
        while searches:
            sources: list[int] = []
            kept: list[Search] = []
            first = 0
            for search in searches:
                count = len(search.live)
                parents = self._grow(search, logits[first : first + count])
                step_limit = step + 1 >= search.request.config.max_tokens
                if step_limit:
                    for hypothesis in search.live:
                        search.finish(Hypothesis(hypothesis.token_ids, hypothesis.logprobs, hypothesis.total, "length"))
                if step_limit or search.done():
                    yield search.number, self._generation(search, time.perf_counter() - started)
                else:
                    kept.append(search)
                    sources.extend(first + parent for parent in parents)
                first += count
            searches = kept
            step += 1
            if searches:
                lengths = [len(search.request.prompt_ids) + step - 1 for search in searches for _ in search.live]
                if sources != list(range(first)):
                    self._runner.reorder(0, sources, max(lengths))
                tokens = [[hypothesis.token_ids[-1]] for search in searches for hypothesis in search.live]
                logits = self._runner.extend(0, tokens, lengths)

    def _grow(self, search: Search, logits: Tensor) -> list[int]:
        """Replace a search's live hypotheses by their best continuations; return each one's parent."""
        request, k = search.request, search.k
        raw = torch.log_softmax(logits, -1)
        ranked = raw
        if needs_processing(request):
            parts = [
                process(logits[i], request, hypothesis.token_ids, self._eos) for i, hypothesis in enumerate(search.live)
            ]
            ranked = torch.log_softmax(torch.stack(parts), -1)
        totals = torch.tensor([hypothesis.total for hypothesis in search.live], device=logits.device)
        vocab_size = logits.shape[-1]
        scores = (ranked + totals[:, None]).flatten()
        best = scores.topk(min(2 * k, scores.numel()))
        live: list[Hypothesis] = []
        parents: list[int] = []
        for rank, (total, flat) in enumerate(zip(best.values.tolist(), best.indices.tolist(), strict=True)):
            if total == float("-inf") or len(live) == k:
                break
            parent, token_id = divmod(flat, vocab_size)
            before = search.live[parent]
            reason = self._end_of(request, before, token_id)
            grown = Hypothesis(
                (*before.token_ids, token_id), (*before.logprobs, float(raw[parent, token_id])), total, reason
            )
            if reason is None:
                live.append(grown)
                parents.append(parent)
            elif rank < k:
                search.finish(grown)
        search.live = live
        return parents

    def _end_of(self, request: Request, before: Hypothesis, token_id: int) -> FinishReason | None:
        if token_id in self._eos and not request.config.ignore_eos:
            return "eos"
        if request.config.stop and len(before.token_ids) + 1 > request.config.min_tokens:
            text = self._tokenizer.decode([*before.token_ids, token_id])
            if any(stop in text for stop in request.config.stop):
                return "stop"
        return None

    def _generation(self, search: Search, seconds: float) -> Generation:
        completions = []
        for index, (score, hypothesis) in enumerate(search.results()):
            text = self._tokenizer.decode(hypothesis.token_ids)
            cuts = [text.find(stop) for stop in search.request.config.stop if stop in text]
            if hypothesis.finish_reason == "stop" and cuts:
                text = text[: min(cuts)]
            completions.append(
                Completion(
                    text=text,
                    token_ids=hypothesis.token_ids,
                    logprobs=hypothesis.logprobs,
                    finish_reason=hypothesis.finish_reason or "length",
                    index=index,
                    score=score,
                )
            )
        return Generation(completions=tuple(completions), prompt_tokens=len(search.request.prompt_ids), seconds=seconds)
