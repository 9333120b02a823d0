"""Beam search over the same rows and processors as every other request.

Definition. A hypothesis that has ended scores ``log p / length ** length_penalty``, with log p its summed
log-probability under the processed distribution and length its number of tokens, the ending EOS included. At each step
the ``2 k`` most probable one-token continuations of the k live hypotheses are considered, best first: one that ends by
EOS, or by completing a stop string, joins the finished ones if it is among the first k; the others stay alive until
there are k. The search ends when k hypotheses have finished and no live one can still overtake the worst of the k best;
log p only falls, so a live hypothesis is bounded by its present log p over the most favourable length. At `max_tokens`
the live hypotheses end as they are.

With `beam_groups` each group has its own k / groups live and finished hypotheses, chosen one group after another
(`diverse`). With `must_include` the k places are shared among banks (`lexical`): continuations that begin or go on with
a phrase are considered too, those that could not include all by `max_tokens` are not, and only a hypothesis that
includes all may end.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from nlpkit.core.decode.diverse import penalize_taken
from nlpkit.core.decode.guide import allowed_masks, start_guide
from nlpkit.core.decode.hypotheses import Beam, Hypothesis, Result, best_of
from nlpkit.core.decode.lexical import Lexicon, Progress, share_beam
from nlpkit.core.decode.request import Completion, FinishReason, Generation, Request
from nlpkit.core.decode.row import needs_processing, process
from nlpkit.core.errors import ConfigError

if TYPE_CHECKING:
    from nlpkit.core.decode.runner import Runner
    from nlpkit.core.tokenizers.base import Tokenizer


@dataclass(frozen=True)
class Candidate:
    """A live hypothesis with one more token.

    Attributes:
        parent: Place of the hypothesis in its beam.
        token_id: The token.
        rank: What the beam sorts by: the total, less the penalty of diverse beams.
        total: Summed log-probability.
        progress: How far it has come with what it must include.
    """

    parent: int
    token_id: int
    rank: float
    total: float
    progress: Progress | None

    @property
    def remaining(self) -> int:
        """Tokens that it takes to include what is left."""
        return 0 if self.progress is None else self.progress.remaining


class Search:
    """The search for one request.

    Attributes:
        number: Index of the request.
        request: The request.
        lexicon: The phrases to include, or None.
        beams: One a group.
    """

    def __init__(self, number: int, request: Request, tokenizer: Tokenizer) -> None:
        config = request.config
        self.number = number
        self.request = request
        self.lexicon = Lexicon(config.must_include, tokenizer) if config.must_include else None
        root = Hypothesis(
            guide=None if config.constraint is None else start_guide(config.constraint, tokenizer),
            progress=None if self.lexicon is None else self.lexicon.start,
        )
        size = config.beam_size // config.beam_groups
        self.beams = [Beam(size, config.length_penalty, config.max_tokens, [root]) for _ in range(config.beam_groups)]

    @property
    def live(self) -> list[Hypothesis]:
        """The live hypotheses of all groups."""
        return [hypothesis for beam in self.beams for hypothesis in beam.live]

    @property
    def done(self) -> bool:
        """Whether all groups are done."""
        return all(beam.done for beam in self.beams)

    def end(self) -> None:
        """End the live hypotheses as they are."""
        for beam in self.beams:
            for hypothesis in beam.live:
                beam.finish(replace(hypothesis, finish_reason="length"))
            beam.live = []

    def results(self) -> list[Result]:
        """Return the best ``n`` results, best first."""
        return best_of(self.beams, self.request.config.n)


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
        searches = [Search(number, request, self._tokenizer) for number, request in group]
        self._runner.reserve(sum(request.config.beam_size for _, request in group))
        prompts = [search.request.prompt_ids for search in searches]
        logits = self._runner.extend(0, prompts, [0] * len(prompts))
        # Where each live hypothesis stands in the cache: at first the groups of a search share its prompt.
        places = [row for row, search in enumerate(searches) for _ in search.live]
        logits = logits[torch.tensor(places, device=logits.device)]
        step = 0
        while searches:
            sources: list[int] = []
            kept: list[Search] = []
            first = 0
            for search in searches:
                count = len(search.live)
                parents = self._grow(search, logits[first : first + count])
                if step + 1 >= search.request.config.max_tokens:
                    search.end()
                if search.done:
                    yield search.number, self._generation(search, time.perf_counter() - started)
                else:
                    kept.append(search)
                    sources.extend(places[first + parent] for parent in parents)
                first += count
            searches = kept
            step += 1
            if searches:
                lengths = [len(search.request.prompt_ids) + step - 1 for search in searches for _ in search.live]
                if sources != list(range(len(places))):
                    self._runner.reorder(0, sources, max(lengths))
                places = list(range(len(sources)))
                tokens = [[hypothesis.token_ids[-1]] for search in searches for hypothesis in search.live]
                logits = self._runner.extend(0, tokens, lengths)

    def _grow(self, search: Search, logits: Tensor) -> list[int]:
        """Replace a search's live hypotheses by their best continuations; return each one's parent."""
        request = search.request
        raw = torch.log_softmax(logits, -1)
        ranked = raw
        if needs_processing(request):
            masks = allowed_masks([hypothesis.guide for hypothesis in search.live], logits)
            parts = [
                process(logits[i], request, hypothesis.token_ids, self._eos, allowed=masks[i])
                for i, hypothesis in enumerate(search.live)
            ]
            ranked = torch.log_softmax(torch.stack(parts), -1)
        parents: list[int] = []
        taken: list[int] = []
        first = 0
        for beam in search.beams:
            rows = slice(first, first + len(beam.live))
            chosen = self._grow_beam(search, beam, raw[rows], ranked[rows], taken) if beam.live else []
            parents.extend(first + parent for parent in chosen)
            taken.extend(hypothesis.token_ids[-1] for hypothesis in beam.live)
            first = rows.stop
        return parents

    def _grow_beam(self, search: Search, beam: Beam, raw: Tensor, ranked: Tensor, taken: Sequence[int]) -> list[int]:
        """Do the same for one group; `taken` are the tokens of earlier groups."""
        banks: dict[int, list[Candidate]] = {}
        for candidate in self._candidates(search, beam, ranked, taken):
            banks.setdefault(candidate.remaining, []).append(candidate)
        open_banks: list[list[Candidate]] = []
        for remaining in sorted(banks, reverse=True):
            open_banks.append([])
            for place, candidate in enumerate(banks[remaining]):
                if len(open_banks[-1]) == beam.k:
                    break
                before = beam.live[candidate.parent]
                reason = self._end_of(search.request, before, candidate.token_id)
                if reason is None:
                    open_banks[-1].append(candidate)
                elif place < beam.k and self._may_end(search, before, candidate, reason):
                    beam.finish(self._extended(before, candidate, raw, reason))
        places = share_beam(beam.k, [len(bank) for bank in open_banks]) if open_banks else []
        chosen = [candidate for bank, n in zip(open_banks, places, strict=True) for candidate in bank[:n]]
        if not chosen and not beam.ended:
            raise ConfigError(
                f"No text can include all of must_include, {list(search.request.config.must_include)}: what is left of "
                "the vocabulary after bans cannot go on. Take a ban or a word away."
            )
        chosen.sort(key=lambda candidate: candidate.rank, reverse=True)
        beam.live = [self._extended(beam.live[candidate.parent], candidate, raw, None) for candidate in chosen]
        # At the limit all that live end as they are, and may still be among the best.
        if beam.done and not (beam.live and len(beam.live[0].token_ids) >= beam.max_tokens):
            beam.live = []
        return [candidate.parent for candidate in chosen[: len(beam.live)]]

    def _candidates(self, search: Search, beam: Beam, ranked: Tensor, taken: Sequence[int]) -> list[Candidate]:
        """Return the continuations to consider, best first."""
        vocab_size = ranked.shape[-1]
        totals = torch.tensor([hypothesis.total for hypothesis in beam.live], device=ranked.device)
        scores = ranked + totals[:, None]
        ranks = penalize_taken(scores, taken, search.request.config.diversity_penalty).flatten()
        places = ranks.topk(min(2 * beam.k, ranks.numel())).indices
        if search.lexicon is not None:
            further = self._further_places(search.lexicon, beam, ranked)
            places = torch.tensor(sorted({*places.tolist(), *further}), device=ranks.device)
            places = places[ranks[places].argsort(descending=True, stable=True)]
        candidates: list[Candidate] = []
        for place, rank, total in zip(
            places.tolist(), ranks[places].tolist(), scores.flatten()[places].tolist(), strict=True
        ):
            if rank == float("-inf"):
                break
            parent, token_id = divmod(place, vocab_size)
            progress = None
            if search.lexicon is not None and (before := beam.live[parent].progress) is not None:
                progress = search.lexicon.advance(before, token_id)
            candidates.append(Candidate(parent, token_id, rank, total, progress))
        left = beam.max_tokens - len(beam.live[0].token_ids) - 1
        return [candidate for candidate in candidates if candidate.remaining <= left] or candidates

    def _further_places(self, lexicon: Lexicon, beam: Beam, ranked: Tensor) -> list[int]:
        """Return the places, in flattened ranks, of each hypothesis' own best tokens and of those for its phrases."""
        vocab_size = ranked.shape[-1]
        # As many as may not end the text yet, and one more.
        own = ranked.topk(min(len(self._eos) + 1, vocab_size)).indices.tolist()
        return [
            parent * vocab_size + token_id
            for parent, hypothesis in enumerate(beam.live)
            if hypothesis.progress is not None
            for token_id in (*own[parent], *lexicon.next_tokens(hypothesis.progress))
        ]

    @staticmethod
    def _extended(before: Hypothesis, candidate: Candidate, raw: Tensor, reason: FinishReason | None) -> Hypothesis:
        token_id = candidate.token_id
        guide = before.guide
        return Hypothesis(
            (*before.token_ids, token_id),
            (*before.logprobs, float(raw[candidate.parent, token_id])),
            candidate.total,
            reason,
            guide.after(token_id) if guide is not None and reason != "eos" else guide,
            candidate.progress,
        )

    def _may_end(self, search: Search, before: Hypothesis, candidate: Candidate, reason: FinishReason) -> bool:
        """Tell whether a hypothesis that a token ends includes all that it must."""
        if search.lexicon is None:
            return True
        if reason == "stop":
            return search.lexicon.all_in(self._text(search.request, (*before.token_ids, candidate.token_id)))
        return not candidate.remaining

    def _end_of(self, request: Request, before: Hypothesis, token_id: int) -> FinishReason | None:
        if token_id in self._eos and not request.config.ignore_eos:
            return "eos"
        if request.config.stop and len(before.token_ids) + 1 > request.config.min_tokens:
            text = self._tokenizer.decode([*before.token_ids, token_id])
            if any(stop in text for stop in request.config.stop):
                return "stop"
        return None

    def _text(self, request: Request, token_ids: Sequence[int]) -> str:
        """Return the text before any stop string."""
        text = self._tokenizer.decode(token_ids)
        cuts = [text.find(stop) for stop in request.config.stop if stop in text]
        return text[: min(cuts)] if cuts else text

    def _generation(self, search: Search, seconds: float) -> Generation:
        completions = []
        for index, result in enumerate(search.results()):
            hypothesis = result.hypothesis
            stopped = hypothesis.finish_reason == "stop"
            completions.append(
                Completion(
                    text=self._text(search.request, hypothesis.token_ids)
                    if stopped
                    else self._tokenizer.decode(hypothesis.token_ids),
                    token_ids=hypothesis.token_ids,
                    logprobs=hypothesis.logprobs,
                    finish_reason=hypothesis.finish_reason or "length",
                    index=index,
                    score=result.score,
                )
            )
        return Generation(completions=tuple(completions), prompt_tokens=len(search.request.prompt_ids), seconds=seconds)
