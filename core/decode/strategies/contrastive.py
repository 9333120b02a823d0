"""Contrastive search (Su et al. 2022, arXiv:2202.06417): likely tokens that do not repeat what was said.

At each step the k most probable tokens are tried. Taken is the one with the highest
``(1 - alpha) * p - alpha * s``, where p is its probability under the processed distribution and s the largest cosine
between the model's normalised last hidden state after it and those after all tokens before it, the prompt's included.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Protocol, cast, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor

from nlpkit.core.decode import processors
from nlpkit.core.decode.guide import allowed_masks
from nlpkit.core.decode.processors import needs_processing, process
from nlpkit.core.decode.request import Completion, Generation, Request, TokenEvent
from nlpkit.core.decode.row import Row
from nlpkit.core.decode.special_ids import SpecialIds
from nlpkit.core.errors import ConfigError

if TYPE_CHECKING:
    from nlpkit.core.decode.runner import Runner
    from nlpkit.core.model.cache import KVSegment
    from nlpkit.core.tokenizers.tokenizer import Tokenizer


@runtime_checkable
class ShowsHidden(Protocol):
    """What contrastive search needs of a runner beside `nlpkit.core.decode.runner.Runner`."""

    def extend_with_hidden(
        self, start_row: int, tokens: Sequence[Sequence[int]], lengths: Sequence[int]
    ) -> tuple[Tensor, list[Tensor]]:
        """Append tokens to consecutive rows, as `Runner.extend`.

        Args:
            start_row: First row.
            tokens: For each row, one or more ids to append.
            lengths: For each row, its length before.

        Returns:
            fp32 logits after each row's last token, shape ``(rows, vocab_size)``, and for each row the hidden states,
            after the final norm, of the tokens appended, shape ``(tokens, d_model)``.
        """
        ...

    def save_segment(self, row: int, start: int, stop: int) -> KVSegment:
        """Return a copy of what a row holds of its tokens ``start .. stop - 1``."""
        ...

    def load_segment(self, row: int, start: int, segment: KVSegment) -> bool:
        """Let a row hold a segment from token `start` on."""
        ...


def check_runner(runner: Runner) -> None:
    """Refuse a runner that cannot search.

    Raises:
        ConfigError: It gives no hidden states.
    """
    if not isinstance(runner, ShowsHidden):
        raise ConfigError(
            "Contrastive search needs hidden states, which a model that runs through transformers does not give here. "
            "Leave contrastive_alpha out, or use a model of a family that nlpkit's own core runs."
        )


class _Text:
    """A text while it grows: its logits, and the directions of its hidden states."""

    def __init__(self, number: int, row: Row, logits: Tensor, hidden: Tensor) -> None:
        self.number = number
        self.row = row
        self.logits = logits
        self.k = min(row.config.top_k, len(logits))
        self._n = len(hidden)
        # Room for the whole text at once, so that it is never copied.
        self._directions = torch.empty(self._n + row.config.max_tokens, hidden.shape[-1], device=hidden.device)
        self._directions[: self._n] = F.normalize(hidden.float(), dim=-1)

    @property
    def length(self) -> int:
        """Tokens of prompt and text."""
        return self._n

    def similarities(self, hidden: Tensor) -> Tensor:
        """Return each candidate's largest cosine with what came before, of hidden states ``(k, d_model)``."""
        return (F.normalize(hidden.float(), dim=-1) @ self._directions[: self._n].T).amax(-1)

    def grow(self, logits: Tensor, hidden: Tensor) -> None:
        """Take the logits and the hidden state of the new last token."""
        self.logits = logits
        self._directions[self._n] = F.normalize(hidden.float(), dim=-1)
        self._n += 1


class ContrastiveSearcher:
    """Runs requests with `contrastive_alpha`, several at once, over one runner.

    Each request has as many rows as candidates, all with the same text; a step appends one candidate to each, and then
    the best one's row is copied over the others.
    """

    def __init__(self, runner: Runner, tokenizer: Tokenizer, *, batch_tokens: int = 8192) -> None:
        """Set up a searcher.

        Args:
            runner: The model with a cache of its own.
            tokenizer: For text and end-of-sequence ids.
            batch_tokens: Most cache slots in use, rows times length.

        Raises:
            ConfigError: The runner gives no hidden states.
        """
        check_runner(runner)
        self._runner = runner
        self._hidden = cast("ShowsHidden", runner)
        self._tokenizer = tokenizer
        self._special = SpecialIds.of(tokenizer)
        self._batch_tokens = batch_tokens

    def run(self, requests: Sequence[tuple[int, Request]]) -> Iterator[tuple[int, Generation]]:
        """Search for all requests.

        Args:
            requests: Numbered, checked requests.

        Yields:
            Each request's number and result, in order of completion.

        Raises:
            ConfigError: A constraint came to a dead end, or bans leave no token.
        """
        lengths = {number: len(request.prompt_ids) for number, request in requests}
        for group in self._groups(requests):
            started = time.perf_counter()
            for number, event in self._events(group, watch_text=False):
                if event.completion is not None:
                    yield (
                        number,
                        Generation(
                            completions=(event.completion,),
                            prompt_tokens=lengths[number],
                            seconds=time.perf_counter() - started,
                        ),
                    )

    def stream(self, request: Request) -> Iterator[TokenEvent]:
        """Search for one checked request step by step; see `nlpkit.core.decode.engine.Engine.stream`."""
        for _, event in self._events([(0, request)], watch_text=True):
            yield event

    def _groups(self, requests: Sequence[tuple[int, Request]]) -> Iterator[list[tuple[int, Request]]]:
        """Pack requests of similar length, within the bound on cache slots."""
        waiting = sorted(requests, key=lambda entry: len(entry[1].prompt_ids), reverse=True)
        while waiting:
            rows = need = taken = 0
            for _, request in waiting:
                rows += self._width(request)
                need = max(need, len(request.prompt_ids) + request.config.max_tokens)
                if taken and rows * need > self._batch_tokens:
                    break
                taken += 1
            yield waiting[:taken]
            waiting = waiting[taken:]

    def _width(self, request: Request) -> int:
        return min(request.config.top_k, self._runner.vocab_size)

    def _events(self, group: Sequence[tuple[int, Request]], *, watch_text: bool) -> Iterator[tuple[int, TokenEvent]]:
        for number, request in group:
            if request.config.max_tokens == 0:
                done = Completion(text="", token_ids=(), logprobs=(), finish_reason="length")
                yield number, TokenEvent(text="", completion=done)
        texts = self._prefill([entry for entry in group if entry[1].config.max_tokens], watch_text=watch_text)
        while texts:
            candidates = [self._candidates(text) for text in texts]
            tokens = [[token_id] for ids, _ in candidates for token_id in ids.tolist()]
            lengths = [text.length for text in texts for _ in range(text.k)]
            logits, hidden = self._hidden.extend_with_hidden(0, tokens, lengths)
            states = torch.stack([part[-1] for part in hidden])
            first = 0
            chosen: list[int] = []
            kept: list[_Text] = []
            for text, (ids, probs) in zip(texts, candidates, strict=True):
                best = first + self._best(text, probs, states[first : first + text.k])
                event = self._append(text, int(ids[best - first]))
                if event.completion is None:
                    text.grow(logits[best], states[best])
                    chosen.append(best)
                    kept.append(text)
                first += text.k
                yield text.number, event
            self._settle(kept, chosen, moved=len(kept) < len(texts))
            texts = kept

    def _settle(self, texts: Sequence[_Text], chosen: Sequence[int], *, moved: bool) -> None:
        """Let all rows of a text hold its new last token; `chosen` are the rows that do."""
        if moved:
            sources = [row for text, row in zip(texts, chosen, strict=True) for _ in range(text.k)]
            if sources:
                self._runner.reorder(0, sources, max(text.length for text in texts))
            return
        # While no row moves, those of a text differ in their last token alone.
        first = 0
        for text, row in zip(texts, chosen, strict=True):
            segment = self._hidden.save_segment(row, text.length - 1, text.length)
            for other in range(first, first + text.k):
                if other != row:
                    self._hidden.load_segment(other, text.length - 1, segment)
            first += text.k

    def _prefill(self, group: Sequence[tuple[int, Request]], *, watch_text: bool) -> list[_Text]:
        if not group:
            return []
        prompts = [request.prompt_ids for _, request in group]
        sources = [place for place, (_, request) in enumerate(group) for _ in range(self._width(request))]
        self._runner.reserve(len(sources))
        logits, hidden = self._hidden.extend_with_hidden(0, prompts, [0] * len(prompts))
        if sources != list(range(len(sources))):
            self._runner.reorder(0, sources, max(map(len, prompts)))
        return [
            _Text(number, Row(number, 0, request, self._tokenizer, watch_text), logits[place], hidden[place])
            for place, (number, request) in enumerate(group)
        ]

    def _candidates(self, text: _Text) -> tuple[Tensor, Tensor]:
        """Return the likeliest tokens and their probabilities under the processed distribution, shape ``(k,)`` each."""
        logits, row = text.logits, text.row
        if needs_processing(row.request):
            (mask,) = allowed_masks([row.guide], logits[None])
            logits = process(logits, row.request, row.token_ids, self._special, allowed=mask)
        elif banned := self._special.banned(row.config, len(row.token_ids)):
            logits = processors.ban(logits, sorted(banned))
        best = logits.topk(text.k)
        return best.indices, (best.values - logits.logsumexp(-1)).exp()

    @staticmethod
    def _best(text: _Text, probs: Tensor, states: Tensor) -> int:
        """Return the place of the candidate to take; one that processors removed is none."""
        alpha = text.row.config.contrastive_alpha
        scores = (1 - alpha) * probs - alpha * text.similarities(states)
        return int(scores.masked_fill(probs == 0, -torch.inf).argmax())

    def _append(self, text: _Text, token_id: int) -> TokenEvent:
        row, logprobs = text.row, torch.log_softmax(text.logits, -1)
        if row.config.logprobs is not None:
            best = logprobs.topk(min(row.config.logprobs, len(logprobs)))
            row.top_logprobs.append(tuple(zip(best.indices.tolist(), best.values.tolist(), strict=True)))
        piece = row.append(token_id, float(logprobs[token_id]), self._special.ends)
        return TokenEvent(
            text=piece, token_id=token_id, completion=row.completion() if row.finish_reason is not None else None
        )
