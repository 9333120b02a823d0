"""Contrastive search (Su et al. 2022, arXiv:2202.06417): likely tokens that do not repeat what was said.

At each step the k most probable tokens are tried. Taken is the one with the highest
``(1 - alpha) * p - alpha * s``, where p is its probability under the processed distribution and s the largest cosine
between the model's normalised last hidden state after it and those after all tokens before it, the prompt's included.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from nlpkit.core.decode import processors
from nlpkit.core.decode.guide import allowed_masks
from nlpkit.core.decode.processors import process
from nlpkit.core.decode.runner import ShowsHidden
from nlpkit.core.decode.strategies.base import News, Round
from nlpkit.core.errors import ConfigError

if TYPE_CHECKING:
    from nlpkit.core.decode.hypothesis import Hypothesis
    from nlpkit.core.decode.runner import Runner


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


class Contrastive:
    """The text of one request: it forks into its candidates, and goes on as the best of them."""

    forks = True
    wants_hidden = True

    def __init__(self, text: Hypothesis, *, vocab_size: int) -> None:
        """Begin with an empty text.

        Args:
            text: The text.
            vocab_size: Number of logits.
        """
        self.live = [text]
        self._text = text
        self._k = min(text.config.top_k, vocab_size)
        self._logits = torch.empty(0)
        self._probs = torch.empty(0)
        self._directions = torch.empty(0, 0)

    @property
    def width(self) -> int:
        """A slot for each candidate."""
        return self._k

    @staticmethod
    def advance(
        strategies: Sequence[Contrastive],
        logits: Tensor,
        hidden: Sequence[Tensor] | None,
        guesses: Sequence[Sequence[int]] | None,
    ) -> list[Round]:
        """Let each text take its best candidate, and look for the next; see `Strategy.advance`."""
        if hidden is None:
            raise ValueError("contrastive search was given no hidden states")
        rounds = []
        first = 0
        for strategy in strategies:
            stop = first + len(strategy.live)
            rounds.append(strategy._advance(logits[first:stop], hidden[first:stop]))
            first = stop
        return rounds

    def _advance(self, logits: Tensor, hidden: Sequence[Tensor]) -> Round:
        text = self._text
        if self.live[0] is text:
            best, news = 0, []
            n_prompt = len(hidden[0])
            # Room for the whole text at once, so that it is never copied.
            self._directions = torch.empty(
                n_prompt + text.config.max_tokens, hidden[0].shape[-1], device=hidden[0].device
            )
            self._directions[:n_prompt] = F.normalize(hidden[0].float(), dim=-1)
        else:
            directions = F.normalize(torch.stack([part[-1] for part in hidden]).float(), dim=-1)
            n_known = len(text.request.prompt_ids) + len(text.token_ids)
            best = self._best((directions @ self._directions[:n_known].T).amax(-1))
            self._directions[n_known] = directions[best]
            news = [self._append(self.live[best].token_ids[-1])]
        if text.finish_reason is not None:
            return Round([], news, accepted=[0] * len(hidden))
        self._logits = logits[best]
        return Round(self._candidates(self.live[best].slot), news, accepted=[0] * len(hidden))

    def _candidates(self, slot: int) -> list[Hypothesis]:
        """Return the text with each of the likeliest tokens."""
        text, logits = self._text, self._logits
        if text.is_processed:
            (mask,) = allowed_masks([text.guide], logits[None])
            logits = process(logits, text.request, text.token_ids, text.special, allowed=mask)
        elif banned := text.special.banned(text.config, len(text.token_ids)):
            logits = processors.ban(logits, sorted(banned))
        likeliest = logits.topk(self._k)
        self._probs = (likeliest.values - logits.logsumexp(-1)).exp()
        candidates = [text.fork(token_id) for token_id in likeliest.indices.tolist()]
        for candidate in candidates:
            candidate.slot = slot
        return candidates

    def _best(self, similarities: Tensor) -> int:
        """Return the place of the candidate to take; one that processors removed is none."""
        alpha = self._text.config.contrastive_alpha
        scores = (1 - alpha) * self._probs - alpha * similarities
        return int(scores.masked_fill(self._probs == 0, -torch.inf).argmax())

    def _append(self, token_id: int) -> News:
        text, logprobs = self._text, torch.log_softmax(self._logits, -1)
        if text.config.logprobs is not None:
            best = logprobs.topk(min(text.config.logprobs, len(logprobs)))
            text.top_logprobs.append(tuple(zip(best.indices.tolist(), best.values.tolist(), strict=True)))
        piece = text.append(token_id, float(logprobs[token_id]))
        done = text.completion() if text.finish_reason is not None else None
        return News(0, piece, token_id, done)
