"""The engine: every task, evaluation and server request goes through `generate`, `stream` or `score`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from nlpkit.core.decode.beam import BeamSearcher
from nlpkit.core.decode.guide import start_guide
from nlpkit.core.decode.lexical import Lexicon
from nlpkit.core.decode.request import Completion, Generation, Request, Score, TokenEvent
from nlpkit.core.decode.scheduler import Scheduler
from nlpkit.core.errors import ConfigError, ContextOverflowError, InputError

if TYPE_CHECKING:
    from nlpkit.core.decode.runner import Runner
    from nlpkit.core.tokenizers.base import Tokenizer

DEFAULT_BATCH_TOKENS = 8192


class Engine:
    """Decodes requests with one model.

    Results never depend on how requests are batched: in fp32 token for token, in 16-bit up to rounding.
    """

    def __init__(
        self, new_runner: Callable[[], Runner], tokenizer: Tokenizer, *, batch_tokens: int = DEFAULT_BATCH_TOKENS
    ) -> None:
        """Set up an engine.

        Args:
            new_runner: Makes a runner with an empty cache; runs that overlap in time must not share one.
            tokenizer: The model's tokenizer.
            batch_tokens: Default bound on cache slots in use at once.
        """
        self._new_runner = new_runner
        self._scorer = new_runner()
        self._tokenizer = tokenizer
        self.batch_tokens = batch_tokens
        self.max_seq_len = self._scorer.max_seq_len
        self.vocab_size = self._scorer.vocab_size

    def check(self, request: Request) -> None:
        """Refuse a request that cannot run.

        Args:
            request: The request.

        Raises:
            InputError: The prompt is empty or holds ids outside the vocabulary.
            ContextOverflowError: Prompt and token budget exceed the context.
            ConfigError: A bias names a token outside the vocabulary, or the constraint or the phrases to include
                cannot be used.
        """
        ids, config = request.prompt_ids, request.config
        if not ids:
            raise InputError("The prompt is empty: it has no tokens. Give at least one character.")
        if min(ids) < 0 or max(ids) >= self.vocab_size:
            raise InputError(
                f"The prompt holds token id {max(ids) if max(ids) >= self.vocab_size else min(ids)}; the model knows "
                f"0 to {self.vocab_size - 1}. Use the tokenizer that belongs to the model."
            )
        if len(ids) + config.max_tokens > self.max_seq_len:
            raise ContextOverflowError(
                f"The prompt has {len(ids)} tokens and {config.max_tokens} more may be generated, together "
                f"{len(ids) + config.max_tokens}; the model's context holds {self.max_seq_len}. Shorten the text, or "
                "lower max_tokens."
            )
        if config.constraint is not None:
            start_guide(config.constraint, self._tokenizer)
        if config.must_include:
            Lexicon(config.must_include, self._tokenizer).check(config.max_tokens)
        wrong = [token_id for token_id in config.logit_bias if token_id >= self.vocab_size]
        if wrong:
            raise ConfigError(f"logit_bias names token {wrong[0]}; the model knows 0 to {self.vocab_size - 1}.")

    def generate(
        self, requests: Sequence[Request], *, batch_tokens: int | None = None
    ) -> Iterator[tuple[int, Generation]]:
        """Decode requests; all are checked before the first runs.

        Args:
            requests: In any order and mixture.
            batch_tokens: Bound on cache slots in use, rows times length; None takes the engine's default.

        Yields:
            The request's index and its result, as they finish: long prompts first, not in the caller's order.

        Raises:
            NlpkitError: As `check`.
            ConfigError: `batch_tokens` is below 1.
        """
        budget = self.batch_tokens if batch_tokens is None else batch_tokens
        if budget < 1:
            raise ConfigError(f"batch_tokens is {budget}; it must be at least 1.")
        for request in requests:
            self.check(request)
        return self._generate(requests, budget)

    def _generate(self, requests: Sequence[Request], budget: int) -> Iterator[tuple[int, Generation]]:
        beams = [(number, request) for number, request in enumerate(requests) if request.config.beam_size > 1]
        empty = [number for number, request in beams if request.config.max_tokens == 0]
        for number in empty:
            done = Completion(text="", token_ids=(), logprobs=(), finish_reason="length", score=0.0)
            yield number, Generation(completions=(done,), prompt_tokens=len(requests[number].prompt_ids))
        plain = [number for number, request in enumerate(requests) if request.config.beam_size == 1]
        # Similar lengths together waste little padding; the longest first shows at once whether memory suffices.
        plain.sort(key=lambda number: len(requests[number].prompt_ids), reverse=True)
        if plain:
            scheduler = Scheduler(self._new_runner(), self._tokenizer, batch_tokens=budget)
            numbers = {scheduler.submit(requests[number]): number for number in plain}
            started: dict[int, float] = {}
            parts: dict[int, list[Completion]] = {}
            while not scheduler.idle:
                before = time.perf_counter()
                for event in scheduler.step():
                    started.setdefault(event.ticket, before)
                    if event.completion is None:
                        continue
                    done_so_far = parts.setdefault(event.ticket, [])
                    done_so_far.append(event.completion)
                    request = requests[numbers[event.ticket]]
                    if len(done_so_far) == request.config.n:
                        completions = tuple(sorted(done_so_far, key=lambda completion: completion.index))
                        yield (
                            numbers[event.ticket],
                            Generation(
                                completions=completions,
                                prompt_tokens=len(request.prompt_ids),
                                seconds=time.perf_counter() - started[event.ticket],
                            ),
                        )
                        del parts[event.ticket]
        searched = [(number, request) for number, request in beams if number not in empty]
        if searched:
            yield from BeamSearcher(self._new_runner(), self._tokenizer, batch_tokens=budget).run(searched)

    def stream(self, request: Request) -> Iterator[TokenEvent]:
        """Decode one request step by step.

        Args:
            request: A request without beams.

        Yields:
            An event per token; the last one of each completion carries it. Texts joined per completion equal its text.

        Raises:
            NlpkitError: As `check`.
            ConfigError: The request asks for beam search, whose text is only known at the end.
        """
        if request.config.beam_size > 1:
            raise ConfigError(
                f"beam_size {request.config.beam_size} cannot be streamed: beam search knows its text only at the end."
            )
        self.check(request)
        return self._stream(request)

    def _stream(self, request: Request) -> Iterator[TokenEvent]:
        scheduler = Scheduler(self._new_runner(), self._tokenizer, batch_tokens=self.batch_tokens)
        scheduler.submit(request, watch_text=True)
        while not scheduler.idle:
            for event in scheduler.step():
                yield TokenEvent(
                    text=event.text, index=event.index, token_id=event.token_id, completion=event.completion
                )

    def score(self, pairs: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[Score]:
        """Compute log-likelihoods of continuations.

        Args:
            pairs: Context ids (at least one) and continuation ids (may be empty).

        Returns:
            One score per pair, in order.

        Raises:
            InputError: A context is empty, or an id is outside the vocabulary.
            ContextOverflowError: A pair is longer than the model's context.
        """
        for context, continuation in pairs:
            if not context:
                raise InputError("A context to score after is empty; give at least one token, such as the BOS id.")
            whole = [*context, *continuation]
            if min(whole) < 0 or max(whole) >= self.vocab_size:
                raise InputError(f"A sequence to score holds ids outside the vocabulary of {self.vocab_size} tokens.")
            # The last token is only predicted, never read.
            if len(whole) - 1 > self.max_seq_len:
                raise ContextOverflowError(
                    f"A sequence to score has {len(whole)} tokens; the model's context holds {self.max_seq_len}. Cut "
                    "it into windows."
                )
        order = sorted(range(len(pairs)), key=lambda i: len(pairs[i][0]) + len(pairs[i][1]), reverse=True)
        wanted = [i for i in order if len(pairs[i][1])]
        scores = [Score(logprob=0.0, token_logprobs=(), is_greedy=True)] * len(pairs)
        if not wanted:
            return scores
        sequences = [[*pairs[i][0], *pairs[i][1]] for i in wanted]
        found = self._scorer.logprobs(sequences, [len(pairs[i][0]) for i in wanted])
        for i, (logprobs, greedy) in zip(wanted, found, strict=True):
            values = tuple(logprobs.tolist())
            scores[i] = Score(logprob=sum(values), token_logprobs=values, is_greedy=bool(greedy.all()))
        return scores
