"""The engine: every task, evaluation and server request goes through `generate`, `stream` or `score`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from nlpkit.core.decode.guide import check_constraint
from nlpkit.core.decode.loop import CHUNK, Loop
from nlpkit.core.decode.prefix_cache.order import plan_order
from nlpkit.core.decode.prefix_cache.prefixes import PrefixCache
from nlpkit.core.decode.request import Completion, Generation, Request, Score, TokenEvent
from nlpkit.core.decode.runner import ShowsHidden
from nlpkit.core.decode.speculation.draft_model import DraftModel
from nlpkit.core.decode.speculation.drafter import Drafter
from nlpkit.core.decode.speculation.prompt_lookup import PromptLookup
from nlpkit.core.decode.speculation.speculator import Experience, Speculator
from nlpkit.core.decode.strategies.contrastive import check_runner
from nlpkit.core.decode.strategies.lexical import Lexicon
from nlpkit.core.errors import ConfigError, ContextOverflowError, InputError

if TYPE_CHECKING:
    from nlpkit.core.decode.runner import Runner
    from nlpkit.core.tokenizers.tokenizer import Tokenizer

DEFAULT_BATCH_TOKENS = 8192
FEW = 4
"""Requests of one call up to which whole texts are kept for later ones, not their common beginnings alone."""


class Engine:
    """Decodes requests with one model.

    Results never depend on how requests are batched, on what was computed before, nor on speculation: in fp32 token
    for token, in 16-bit up to rounding.

    Attributes:
        batch_tokens: Default bound on positions of the cache in use at once.
        max_seq_len: The model's context, in tokens.
        vocab_size: Number of logits.
        prefixes: Beginnings of prompts that are kept from one call to the next; set it to None to compute every
            prompt from its first token. Give it a store to keep prefixes on disk.
        experience: What past texts taught about speculation.
    """

    def __init__(
        self,
        new_runner: Callable[[], Runner],
        tokenizer: Tokenizer,
        *,
        batch_tokens: int = DEFAULT_BATCH_TOKENS,
        prefix_tokens: int | None = None,
    ) -> None:
        """Set up an engine.

        Args:
            new_runner: Makes a runner with an empty cache; runs that overlap in time must not share one.
            tokenizer: The model's tokenizer.
            batch_tokens: Default bound on positions of the cache in use at once.
            prefix_tokens: Most tokens of prefixes that are kept from one call to the next; None is a quarter of
                `batch_tokens`, 0 shares prefixes within a call alone.
        """
        self._new_runner = new_runner
        self._scorer = new_runner()
        self._tokenizer = tokenizer
        self.batch_tokens = batch_tokens
        self.max_seq_len = self._scorer.max_seq_len
        self.vocab_size = self._scorer.vocab_size
        self.prefixes: PrefixCache | None = PrefixCache(batch_tokens // 4 if prefix_tokens is None else prefix_tokens)
        self.experience = Experience()
        self._draft: Engine | None = None

    @property
    def shows_hidden(self) -> bool:
        """Whether hidden states can be had of the model."""
        return isinstance(self._scorer, ShowsHidden)

    def new_runner(self) -> Runner:
        """Return a runner of the model, with an empty cache of its own."""
        return self._new_runner()

    def draft_with(self, small: Engine) -> None:
        """Let a smaller model guess for requests with the speculation ``draft``.

        Args:
            small: Its engine.

        Raises:
            ConfigError: Its tokenizer is another one, or it runs in a way that cannot take tokens back.
        """
        if small._tokenizer.fingerprint != self._tokenizer.fingerprint:
            raise ConfigError(
                "The draft model has another tokenizer, so its tokens mean nothing to this model. Take a smaller model "
                "of the same family."
            )
        if not small._scorer.can_rewind:
            raise ConfigError("The draft model's cache cannot take tokens back. Take a model of another family.")
        self._draft = small

    def new_loop(self, *, batch_tokens: int | None = None, chunk: int | None = CHUNK) -> Loop:
        """Return an empty loop, for callers whose requests arrive and end at any time.

        Args:
            batch_tokens: Bound on positions of the cache in use, slots times length; None takes the engine's default.
            chunk: Most prompt tokens computed between two steps of running texts; None computes prompts at once.

        Returns:
            The loop; give it requests that `check` has passed.
        """
        drafters: dict[str, Drafter] = {"prompt": PromptLookup()}
        if self._draft is not None:
            drafters["draft"] = DraftModel(self._draft._new_runner(), vocab_size=self.vocab_size)
        return Loop(
            self._new_runner(),
            self._tokenizer,
            batch_tokens=self.batch_tokens if batch_tokens is None else batch_tokens,
            chunk=chunk,
            prefixes=self.prefixes,
            speculator=Speculator(drafters, self.experience),
        )

    def check(self, request: Request) -> None:
        """Refuse a request that cannot run.

        Args:
            request: The request.

        Raises:
            InputError: The prompt is empty or holds ids outside the vocabulary.
            ContextOverflowError: Prompt and token budget exceed the context.
            ConfigError: A bias names a token outside the vocabulary, the constraint or the phrases to include
                cannot be used, or there is no draft model.
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
            check_constraint(config.constraint, self._tokenizer, prompt_ids=ids)
        if config.contrastive_alpha:
            check_runner(self._scorer)
        if config.must_include:
            Lexicon(config.must_include, self._tokenizer).check(config.max_tokens)
        if config.speculation == "draft" and self._draft is None:
            raise ConfigError(
                "speculation is 'draft', but this engine has no draft model. Give it one with draft_with, or use "
                "'prompt'."
            )
        wrong = [token_id for token_id in config.logit_bias if token_id >= self.vocab_size]
        if wrong:
            raise ConfigError(f"logit_bias names token {wrong[0]}; the model knows 0 to {self.vocab_size - 1}.")

    def generate(
        self, requests: Sequence[Request], *, batch_tokens: int | None = None
    ) -> Iterator[tuple[int, Generation]]:
        """Decode requests; all are checked before the first runs.

        Args:
            requests: In any order and mixture.
            batch_tokens: Bound on positions of the cache in use, slots times length; None takes the engine's default.

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
        # Nobody sees a text here before it is complete: all prompts first takes the least time.
        loop = self.new_loop(batch_tokens=budget, chunk=None)
        order, shared = plan_order([request.prompt_ids for request in requests])
        numbers = {loop.submit(requests[i], keep=None if len(requests) <= FEW else shared[i]): i for i in order}
        parts: dict[int, list[Completion]] = {}
        while not loop.idle:
            for event in loop.step():
                if event.completion is not None:
                    parts.setdefault(event.ticket, []).append(event.completion)
                if event.last:
                    number = numbers[event.ticket]
                    done = sorted(parts.pop(event.ticket), key=lambda completion: completion.index)
                    yield (
                        number,
                        Generation(
                            completions=tuple(done),
                            prompt_tokens=len(requests[number].prompt_ids),
                            seconds=time.perf_counter() - event.started,
                        ),
                    )
        if self.prefixes is not None:
            self.prefixes.flush()

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
        loop = self.new_loop()
        loop.submit(request, watch_text=True)
        while not loop.idle:
            for event in loop.step():
                yield TokenEvent(
                    text=event.text, index=event.index, token_id=event.token_id, completion=event.completion
                )
        if self.prefixes is not None:
            self.prefixes.flush()

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
        order, _ = plan_order([(*context, *continuation) for context, continuation in pairs])
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
