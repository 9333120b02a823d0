"""Greedy decoding and sampling: each text goes on by its likeliest token, or by one that is drawn.

The texts of a request share their prompt; from then on each keeps to its slot.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from nlpkit.core.decode import processors
from nlpkit.core.decode.guide import allowed_masks
from nlpkit.core.decode.processors import process
from nlpkit.core.decode.sampler import sample, truncate, uniform
from nlpkit.core.decode.strategies.base import News, Round

if TYPE_CHECKING:
    from nlpkit.core.decode.hypothesis import Hypothesis


class Sampling:
    """The texts of one request that does not search."""

    forks = False
    wants_hidden = False

    def __init__(self, texts: list[Hypothesis]) -> None:
        """Begin with ``config.n`` empty texts."""
        self.live = texts

    @property
    def width(self) -> int:
        """A slot for each text that still grows."""
        return len(self.live)

    @staticmethod
    def advance(
        strategies: Sequence[Sampling],
        logits: Tensor,
        hidden: Sequence[Tensor] | None,
        guesses: Sequence[Sequence[int]] | None,
    ) -> list[Round]:
        """Append a token to each text, or more where guesses come true; see `Strategy.advance`."""
        texts = [text for strategy in strategies for text in strategy.live]
        owners: Sequence[Hypothesis] = texts
        accepted = [0] * len(texts)
        if guesses is None:
            chosen = choose(texts, logits)
        else:
            found = verify(texts, guesses, logits)
            accepted = [len(tokens) - 1 for tokens in found]
            owners, chosen, logits = _flat(texts, guesses, found, logits)
        news: dict[tuple[int, int], list[News]] = {text.key: [] for text in texts}
        _append(owners, chosen, logits, news)
        rounds = []
        first = 0
        for strategy in strategies:
            live = strategy.live
            stop = first + len(live)
            own = [one for text in live for one in news[text.key]]
            ended = [text for text in live if text.finish_reason is not None]
            if ended:
                live = [text for text in live if text.finish_reason is None]
            rounds.append(Round(live, own, accepted[first:stop], ended, bool(ended)))
            first = stop
        return rounds


def _append(
    texts: Sequence[Hypothesis], chosen: Sequence[int], logits: Tensor, news: dict[tuple[int, int], list[News]]
) -> None:
    """Append tokens to the texts of a pass, and tell of each; a text comes as often as it gets tokens."""
    log_total = logits.logsumexp(-1)
    index = torch.tensor(chosen, device=logits.device)[:, None]
    logprobs = (logits.gather(1, index)[:, 0] - log_total).tolist()
    for i, text in enumerate(texts):
        if text.finish_reason is not None:
            continue  # a guess that came true, but behind the end of the text
        wanted = text.config.logprobs
        alternatives: tuple[tuple[int, float], ...] = ()
        if wanted is not None:
            best = logits[i].topk(min(wanted, logits.shape[-1]))
            values = (best.values - log_total[i]).tolist()
            alternatives = tuple(zip(best.indices.tolist(), values, strict=True))
            text.top_logprobs.append(alternatives)
        piece = text.append(chosen[i], logprobs[i])
        done = text.completion() if text.finish_reason is not None else None
        news[text.key].append(News(text.key[1], piece, chosen[i], done, logprobs[i], alternatives))


def _flat(
    texts: Sequence[Hypothesis], guesses: Sequence[Sequence[int]], found: Sequence[Sequence[int]], logits: Tensor
) -> tuple[list[Hypothesis], list[int], Tensor]:
    """Return a text, a token and logits for each token found, out of the logits of all guesses."""
    owners = [text for text, tokens in zip(texts, found, strict=True) for _ in tokens]
    places: list[int] = []
    start = 0
    for guess, tokens in zip(guesses, found, strict=True):
        places += range(start, start + len(tokens))
        start += len(guess) + 1
    if len(places) < start:
        logits = logits[torch.tensor(places, device=logits.device)]
    return owners, [token_id for tokens in found for token_id in tokens], logits


def choose(texts: Sequence[Hypothesis], logits: Tensor) -> list[int]:
    """Choose one token a text.

    Args:
        texts: The texts, each with its own settings and history.
        logits: fp32, shape ``(len(texts), vocab_size)``; not changed.

    Returns:
        One token id per text.

    Raises:
        ConfigError: As `process`.
    """
    touched = [i for i, text in enumerate(texts) if text.is_processed]
    if touched:
        logits = logits.clone()
        masks = allowed_masks([text.guide for text in texts], logits)
        for i in touched:
            logits[i] = process(logits[i], texts[i].request, texts[i].token_ids, texts[i].special, allowed=masks[i])
    chosen: list[int] = logits.argmax(-1).tolist()
    owners = [(text, len(text.token_ids)) for text in texts]
    bans = [frozenset() if text.is_processed else text.special.banned(text.config, n) for text, n in owners]
    _replace_banned(chosen, logits, range(len(texts)), bans)
    sampled = [i for i, text in enumerate(texts) if text.seed is not None]
    if sampled:
        _draw(chosen, logits, sampled, [owners[i] for i in sampled], [bans[i] for i in sampled])
    return chosen


def verify(texts: Sequence[Hypothesis], guesses: Sequence[Sequence[int]], logits: Tensor) -> list[list[int]]:
    """Choose each text's next tokens, as many as its guess allows.

    Every token is the one that `choose` would give after those before it: a guess that is not this token ends the
    text's tokens with the one that is.

    Args:
        texts: The texts.
        guesses: For each text the guessed tokens whose logits were computed, perhaps none.
        logits: fp32, shape ``(sum of guesses and one a text, vocab_size)``: for each text those after its newest token
            and after each guess; not changed.

    Returns:
        For each text at least one token id and at most one more than it has guesses.

    Raises:
        ConfigError: As `process`.
    """
    starts, total = [], 0
    for guess in guesses:
        starts.append(total)
        total += len(guess) + 1
    likeliest: list[int] = logits.argmax(-1).tolist()
    greedy: list[int] = []
    sampled: list[int] = []
    owners: dict[int, tuple[Hypothesis, int]] = {}
    for text, start, guess in zip(texts, starts, guesses, strict=True):
        if not text.is_processed:
            places = range(start, start + len(guess) + 1)
            (greedy if text.seed is None else sampled).extend(places)
            owners.update((place, (text, len(text.token_ids) + place - start)) for place in places)
    bans = {place: text.special.banned(text.config, n) for place, (text, n) in owners.items()}
    _replace_banned(likeliest, logits, greedy, [bans[place] for place in greedy])
    if sampled:
        _draw(likeliest, logits, sampled, [owners[at] for at in sampled], [bans[at] for at in sampled])
    result = []
    for text, start, guess in zip(texts, starts, guesses, strict=True):
        if text.is_processed:
            result.append(_verify_one(text, guess, logits[start : start + len(guess) + 1]))
        else:
            kept = next((i for i, token_id in enumerate(guess) if likeliest[start + i] != token_id), len(guess))
            result.append(likeliest[start : start + kept + 1])
    return result


def _verify_one(text: Hypothesis, guess: Sequence[int], logits: Tensor) -> list[int]:
    """Verify one text step by step: processors, filters and constraints see only histories that come true."""
    generated, guide = list(text.token_ids), text.guide
    tokens: list[int] = []
    for i in range(len(guess) + 1):
        (mask,) = allowed_masks([guide], logits[i : i + 1])
        processed = process(logits[i], text.request, generated, text.special, allowed=mask)[None]
        chosen: list[int] = processed.argmax(-1).tolist()
        if text.seed is not None:
            _draw(chosen, processed, [0], [(text, len(generated))], [frozenset()])
        tokens += chosen
        generated += chosen
        if i == len(guess) or chosen[0] != guess[i] or text.ends_with(chosen[0]):
            break
        guide = None if guide is None else guide.after(chosen[0])
    return tokens


def _replace_banned(chosen: list[int], logits: Tensor, places: Sequence[int], bans: Sequence[frozenset[int]]) -> None:
    """Where the likeliest token is banned, take the likeliest of the others: hardly ever, so that bans cost nothing."""
    for place, banned in zip(places, bans, strict=True):
        if chosen[place] in banned:
            chosen[place] = int(processors.ban(logits[place], sorted(banned)).argmax())


def _draw(
    chosen: list[int],
    logits: Tensor,
    places: Sequence[int],
    owners: Sequence[tuple[Hypothesis, int]],
    bans: Sequence[frozenset[int]],
) -> None:
    """Replace the tokens at some places by samples, each for a text and one of its steps, without banned tokens."""
    part = logits[torch.tensor(places, device=logits.device)]
    for banned in set(bans):
        if banned:
            at = torch.tensor([i for i, one in enumerate(bans) if one == banned], device=part.device)
            part[at[:, None], torch.tensor(sorted(banned), device=part.device)] = processors.NEVER
    part = truncate(part, [text.config for text, _ in owners])
    numbers = [uniform(text.seed or 0, text.key[1], step) for text, step in owners]
    for place, token_id in zip(places, sample(part, numbers), strict=True):
        chosen[place] = token_id
