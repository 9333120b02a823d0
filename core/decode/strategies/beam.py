"""Beam search over the same rows and processors as every other request.

Definition. A hypothesis that has ended scores ``log p / length ** length_penalty``, with log p its summed
log-probability under the processed distribution and length its number of tokens, the ending EOS included. At each step
the ``2 k`` most probable one-token continuations of the k live hypotheses are considered, best first: one that ends by
EOS, or by completing a stop string, joins the finished ones if it is among the first k; the others stay alive until
there are k. The search ends when k hypotheses have finished and no live one can still overtake the worst of the k best;
log p only falls, so a live hypothesis is bounded by its present log p over the most favourable length. At `max_tokens`
the live hypotheses are cut as they are; those come after all that ended. Where several completions are wanted, the
search goes on until as many different texts have ended.

With `beam_groups` each group has its own k / groups live and finished hypotheses, chosen one group after another
(`diverse`). With `must_include` the k places are shared among banks (`lexical`): continuations that begin or go on with
a phrase are considered too, those that could not include all by `max_tokens` are not, and only a hypothesis that
includes all may end.

`search` has the search for one request, `ranking` the tokens that a pass makes likely, `forks` where the hypotheses lie
in the cache.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch

from nlpkit.core.decode.request import Generation, Request
from nlpkit.core.decode.special_ids import SpecialIds
from nlpkit.core.decode.strategies.forks import Entry, Forks, Move, new_forks
from nlpkit.core.decode.strategies.ranking import rank
from nlpkit.core.decode.strategies.search import Search

if TYPE_CHECKING:
    from torch import Tensor

    from nlpkit.core.decode.runner import Runner
    from nlpkit.core.tokenizers.tokenizer import Tokenizer

_WORTH_A_PASS = 8
"""New searches wait until they are at least this part of all rows, so that prompts are computed several at once."""


class BeamSearcher:
    """Runs beam requests, many at once, over one runner; those that are done make room for the next."""

    def __init__(self, runner: Runner, tokenizer: Tokenizer, *, batch_tokens: int = 8192) -> None:
        """Set up a searcher.

        Args:
            runner: The model with a cache of its own.
            tokenizer: For text, stop strings and special tokens.
            batch_tokens: Most cache slots in use, rows times length.
        """
        self._runner = runner
        self._tokenizer = tokenizer
        self._special = SpecialIds.of(tokenizer)
        self._batch_tokens = batch_tokens

    def run(self, requests: Sequence[tuple[int, Request]]) -> Iterator[tuple[int, Generation]]:
        """Search for all requests.

        Args:
            requests: Numbered, checked requests with ``beam_size > 1``.

        Yields:
            Each request's number and result, in order of completion.

        Raises:
            ConfigError: Bans leave nothing to write, or nothing that could include all phrases.
        """
        forks = new_forks(self._runner)
        waiting = deque(sorted(requests, key=lambda entry: len(entry[1].prompt_ids), reverse=True))
        grown: list[tuple[Search, list[int]]] = []
        while waiting or grown:
            new = self._admitted(waiting, [search for search, _ in grown])
            if new:
                logits = forks.enter([_entry(search) for search in new])
                started = self._grow(new, _one_each(new, logits))
                yield from self._ended(started, forks)
                grown += [entry for entry in started if not entry[0].done]
            if grown:
                logits = forks.step([_move(search, parents) for search, parents in grown])
                grown = self._grow([search for search, _ in grown], logits)
                yield from self._ended(grown, forks)
                grown = [entry for entry in grown if not entry[0].done]

    def _admitted(self, waiting: deque[tuple[int, Request]], running: Sequence[Search]) -> list[Search]:
        """Take the waiting requests that fit now; none when too little is free to be worth a pass."""
        n_rows = n_running = sum(search.request.config.beam_size for search in running)
        need = max((_need(search.request) for search in running), default=0)
        taken = 0
        for _, request in waiting:
            rows, grown = n_rows + request.config.beam_size, max(need, _need(request))
            if n_rows and rows * grown > self._batch_tokens:
                break
            n_rows, need, taken = rows, grown, taken + 1
        if running and taken < len(waiting) and (n_rows - n_running) * _WORTH_A_PASS < n_rows:
            return []
        now = time.perf_counter()
        entries = [waiting.popleft() for _ in range(taken)]
        return [Search(number, request, self._tokenizer, self._special, started=now) for number, request in entries]

    def _grow(self, searches: Sequence[Search], logits: Tensor) -> list[tuple[Search, list[int]]]:
        """Let all searches choose; `logits` has a row for each live hypothesis."""
        owners = [(search.request, hypothesis) for search in searches for hypothesis in search.live]
        ranking = rank(logits, owners, self._special, most=max(search.wanted for search in searches))
        grown = []
        first = 0
        for search in searches:
            count = len(search.live)
            grown.append((search, search.grow(ranking, first)))
            first += count
        return grown

    @staticmethod
    def _ended(grown: Sequence[tuple[Search, list[int]]], forks: Forks) -> Iterator[tuple[int, Generation]]:
        for search, _ in grown:
            if search.done:
                forks.leave(search.number)
                yield search.number, search.generation(time.perf_counter() - search.started)


def _need(request: Request) -> int:
    return len(request.prompt_ids) + request.config.max_tokens


def _entry(search: Search) -> Entry:
    request = search.request
    return Entry(search.number, request.prompt_ids, request.config.beam_size, _need(request))


def _move(search: Search, parents: Sequence[int]) -> Move:
    tokens = [hypothesis.token_ids[-1] for hypothesis in search.live]
    return Move(search.number, parents, tokens, len(search.request.prompt_ids) + len(search.live[0].token_ids) - 1)


def _one_each(searches: Sequence[Search], logits: Tensor) -> Tensor:
    """Repeat each prompt's logits for every group of its search: at first, they share it."""
    picks = [row for row, search in enumerate(searches) for _ in search.live]
    return logits if len(picks) == len(logits) else logits[torch.tensor(picks, device=logits.device)]
