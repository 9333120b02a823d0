"""Logits processors: pure functions, applied in one documented order.

1. bias and bans (`add_bias`)  2. grammar mask (`allow_only`)  3. repetition penalty  4. frequency and presence penalty
5. n-gram ban  6. minimum length (end-of-sequence tokens banned)  7. temperature  8. top-k  9. typical  10. top-p
11. min-p. Steps 1 to 6 also apply to greedy decoding; steps 7 to 11 only to sampling.

All take logits in fp32. A removed token's logit becomes ``-inf``. No function keeps the input's memory.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from nlpkit.core.decode import processors
from nlpkit.core.decode.request import Request
from nlpkit.core.decode.special_ids import SpecialIds
from nlpkit.core.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor


NEVER = float("-inf")
BAN_BIAS = -100.0


def add_bias(logits: Tensor, bias: Mapping[int, float]) -> Tensor:
    """Add a bias per token; -100 or less removes the token, as the completions API defines it.

    Args:
        logits: Shape ``(vocab_size,)``.
        bias: Token id to bias.

    Returns:
        Shape ``(vocab_size,)``.
    """
    ids = torch.tensor(list(bias), dtype=torch.long, device=logits.device)
    amounts = [NEVER if value <= BAN_BIAS else value for value in bias.values()]
    return logits.index_add(0, ids, torch.tensor(amounts, dtype=logits.dtype, device=logits.device))


def ban(logits: Tensor, token_ids: Sequence[int]) -> Tensor:
    """Remove tokens from ``(vocab_size,)`` logits."""
    index = torch.tensor(list(token_ids), dtype=torch.long, device=logits.device)
    return logits.index_fill(0, index, NEVER)


def allow_only(logits: Tensor, allowed: Tensor) -> Tensor:
    """Remove all tokens but those where the bool mask `allowed`, shape ``(vocab_size,)``, is True."""
    return logits.masked_fill(~allowed, NEVER)


def penalize_repetition(logits: Tensor, token_ids: Sequence[int], penalty: float) -> Tensor:
    """Divide positive and multiply negative logits of seen tokens by `penalty` (CTRL, arXiv:1909.05858).

    Args:
        logits: Shape ``(vocab_size,)``.
        token_ids: Prompt and generated tokens; how often one occurs does not matter.
        penalty: Above 1 discourages, below 1 encourages.

    Returns:
        Shape ``(vocab_size,)``.
    """
    index = torch.tensor(sorted(set(token_ids)), dtype=torch.long, device=logits.device)
    seen = logits[index]
    return logits.index_copy(0, index, torch.where(seen > 0, seen / penalty, seen * penalty))


def penalize_counts(logits: Tensor, counts: Mapping[int, int], *, frequency: float, presence: float) -> Tensor:
    """Apply ``logit[j] -= count[j] * frequency + (count[j] > 0) * presence`` (OpenAI completions reference).

    Args:
        logits: Shape ``(vocab_size,)``.
        counts: How often each token has been generated so far; the prompt does not count.
        frequency: Penalty per occurrence.
        presence: Penalty for any occurrence.

    Returns:
        Shape ``(vocab_size,)``.
    """
    index = torch.tensor(list(counts), dtype=torch.long, device=logits.device)
    amounts = [-(count * frequency + presence) for count in counts.values()]
    return logits.index_add(0, index, torch.tensor(amounts, dtype=logits.dtype, device=logits.device))


def repeated_ngram_ends(token_ids: Sequence[int], n: int) -> list[int]:
    """Return the tokens that would complete an n-gram already present in `token_ids`."""
    if n < 1 or len(token_ids) < n:
        return []
    tail = tuple(token_ids[len(token_ids) - n + 1 :])
    starts = range(len(token_ids) - n + 1)
    return sorted({token_ids[start + n - 1] for start in starts if tuple(token_ids[start : start + n - 1]) == tail})


def keep_top_k(logits: Tensor, k: Tensor) -> Tensor:
    """Keep the k largest logits of each row; ties with the k-th stay (Fan et al. 2018, arXiv:1805.04833).

    Args:
        logits: Shape ``(rows, vocab_size)``.
        k: Whole numbers, shape ``(rows,)``; 0 keeps all.

    Returns:
        Shape ``(rows, vocab_size)``.
    """
    vocab_size = logits.shape[-1]
    wanted = torch.where(k > 0, k.clamp(max=vocab_size), vocab_size)
    active = wanted < vocab_size
    if not bool(active.any()):
        return logits.clone()
    most = int(wanted[active].max())
    best = logits.topk(most, dim=-1).values
    threshold = best.gather(1, (wanted.clamp(max=most) - 1)[:, None])
    return logits.masked_fill((logits < threshold) & active[:, None], NEVER)


def _nucleus_size(sorted_probs: Tensor, mass: Tensor) -> Tensor:
    """Count, per row, the tokens before which less than `mass` has been collected (at least one)."""
    before = sorted_probs.cumsum(-1) - sorted_probs
    return (before < mass[:, None]).sum(-1).clamp(min=1)


def keep_top_p(logits: Tensor, p: Tensor) -> Tensor:
    """Keep each row's smallest set of most likely tokens whose mass reaches p (arXiv:1904.09751).

    Only as many tokens are sorted as the largest nucleus needs. Among equal logits the lower id comes first.

    Args:
        logits: Shape ``(rows, vocab_size)``.
        p: Shape ``(rows,)``; 1 keeps all. The most likely token always stays.

    Returns:
        Shape ``(rows, vocab_size)``.
    """
    probs = torch.softmax(logits, -1)
    vocab_size = logits.shape[-1]
    active = p < 1
    size = 256
    while True:
        size = min(size, vocab_size)
        if size < vocab_size:
            values, ids = probs.topk(size, dim=-1)
        else:
            values, ids = probs.sort(dim=-1, descending=True, stable=True)
        if size == vocab_size or bool(((values.sum(-1) >= p) | ~active).all()):
            break
        size *= 8
    count = _nucleus_size(values, p)
    kept = torch.arange(size, device=logits.device) < count[:, None]
    keep = torch.zeros_like(probs, dtype=torch.bool).scatter_(1, ids, kept)
    return logits.masked_fill(~keep & active[:, None], NEVER)


def keep_typical(logits: Tensor, mass: Tensor) -> Tensor:
    """Keep the tokens whose surprise is closest to the row's entropy, up to a mass (arXiv:2202.00666).

    Args:
        logits: Shape ``(rows, vocab_size)``.
        mass: Shape ``(rows,)``; 1 keeps all.

    Returns:
        Shape ``(rows, vocab_size)``.
    """
    logprobs = torch.log_softmax(logits, -1)
    probs = logprobs.exp()
    entropy = -(probs * logprobs.clamp(min=-1e30)).sum(-1, keepdim=True)
    order = (-logprobs - entropy).abs().sort(dim=-1, stable=True).indices
    count = _nucleus_size(probs.gather(1, order), mass)
    kept = torch.arange(logits.shape[-1], device=logits.device) < count[:, None]
    keep = torch.zeros_like(kept).scatter_(1, order, kept)
    return logits.masked_fill(~keep & (mass < 1)[:, None], NEVER)


def keep_min_p(logits: Tensor, min_p: Tensor) -> Tensor:
    """Remove tokens less likely than ``min_p`` times the most likely one (arXiv:2407.01082).

    Args:
        logits: Shape ``(rows, vocab_size)``.
        min_p: Shape ``(rows,)``; 0 keeps all.

    Returns:
        Shape ``(rows, vocab_size)``.
    """
    floor = logits.amax(-1, keepdim=True) + torch.log(min_p)[:, None]
    return logits.masked_fill(logits < floor, NEVER)


def needs_processing(request: Request) -> bool:
    """Tell whether the logits must go through `process`; for bans alone `SpecialIds.banned` is enough."""
    config = request.config
    return bool(
        config.logit_bias
        or config.constraint is not None
        or request.token_filter is not None
        or config.repetition_penalty != 1.0
        or config.frequency_penalty
        or config.presence_penalty
        or config.no_repeat_ngram
    )


def process(
    logits: Tensor, request: Request, generated: Sequence[int], special: SpecialIds, *, allowed: Tensor | None = None
) -> Tensor:
    """Apply the processors that precede temperature, in their documented order.

    The n-gram ban and the minimum length give way where they would leave no token at all.

    Args:
        logits: fp32, shape ``(vocab_size,)``; not changed.
        request: Whose settings to use.
        generated: Ids generated so far.
        special: Ids that end a text, and those that none may hold.
        allowed: Bool mask of the tokens that the request's constraint allows, shape ``(vocab_size,)``.

    Returns:
        Shape ``(vocab_size,)``.

    Raises:
        ConfigError: Biases, constraint and token filter together allow no token.
    """
    config = request.config
    if config.logit_bias:
        logits = processors.add_bias(logits, config.logit_bias)
    # A constraint says itself which special tokens may stand in the text.
    banned = special.control.difference(config.logit_bias) if allowed is None else frozenset()
    banned |= special.ends - special.stops if config.ignore_eos else frozenset()
    if banned:
        logits = processors.ban(logits, sorted(banned))
    if request.token_filter is not None:
        logits = processors.allow_only(logits, request.token_filter(generated))
    if allowed is not None:
        logits = processors.allow_only(logits, allowed)
    if (config.logit_bias or request.token_filter is not None or allowed is not None) and not _any_left(logits):
        raise ConfigError(
            "The logit biases, the constraint and the token filter together leave no token to generate. Allow at "
            "least one."
        )
    if config.repetition_penalty != 1.0:
        seen = [*request.prompt_ids, *generated]
        logits = processors.penalize_repetition(logits, seen, config.repetition_penalty)
    if generated and (config.frequency_penalty or config.presence_penalty):
        logits = processors.penalize_counts(
            logits, Counter(generated), frequency=config.frequency_penalty, presence=config.presence_penalty
        )
    if config.no_repeat_ngram:
        ends = processors.repeated_ngram_ends(generated, config.no_repeat_ngram)
        if ends:
            logits = _ban_unless_last(logits, ends)
    if len(generated) < config.min_tokens and special.ends:
        logits = _ban_unless_last(logits, sorted(special.ends))
    return logits


def _any_left(logits: Tensor) -> bool:
    return bool((logits > processors.NEVER).any())


def _ban_unless_last(logits: Tensor, token_ids: Sequence[int]) -> Tensor:
    banned = processors.ban(logits, token_ids)
    return banned if _any_left(banned) else logits
