"""Choosing each row's next token: processors, then the most likely token or the sampler's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from nlpkit.core.decode import processors
from nlpkit.core.decode.guide import allowed_masks
from nlpkit.core.decode.processors import process
from nlpkit.core.decode.sampler import sample, truncate, uniform

if TYPE_CHECKING:
    from nlpkit.core.decode.row import Row
    from nlpkit.core.decode.special_ids import SpecialIds


def choose(rows: Sequence[Row], logits: Tensor, special: SpecialIds) -> list[int]:
    """Choose one token a row.

    Args:
        rows: The rows, each with its own settings and history.
        logits: fp32, shape ``(len(rows), vocab_size)``; not changed.
        special: Ids that end a text, and those that none may hold.

    Returns:
        One token id per row.

    Raises:
        ConfigError: As `process`.
    """
    touched = [i for i, row in enumerate(rows) if row.is_processed]
    if touched:
        logits = logits.clone()
        masks = allowed_masks([row.guide for row in rows], logits)
        for i in touched:
            logits[i] = process(logits[i], rows[i].request, rows[i].token_ids, special, allowed=masks[i])
    chosen: list[int] = logits.argmax(-1).tolist()
    owners = [(row, len(row.token_ids)) for row in rows]
    bans = [frozenset() if row.is_processed else special.banned(row.config, n) for row, n in owners]
    _replace_banned(chosen, logits, range(len(rows)), bans)
    sampled = [i for i, row in enumerate(rows) if row.seed is not None]
    if sampled:
        _draw(chosen, logits, sampled, [owners[i] for i in sampled], [bans[i] for i in sampled])
    return chosen


def verify(
    rows: Sequence[Row], guesses: Sequence[Sequence[int]], logits: Tensor, special: SpecialIds
) -> list[list[int]]:
    """Choose each row's next tokens, as many as its guess allows.

    Every token is the one that `choose` would give after those before it: a guess that is not this token ends the
    row's tokens with the one that is.

    Args:
        rows: The rows.
        guesses: For each row the guessed tokens whose logits were computed, perhaps none.
        logits: fp32, shape ``(sum of guesses and one a row, vocab_size)``: for each row those after its newest token
            and after each guess; not changed.
        special: Ids that end a text, and those that none may hold.

    Returns:
        For each row at least one token id and at most one more than it has guesses.

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
    owners: dict[int, tuple[Row, int]] = {}
    for row, start, guess in zip(rows, starts, guesses, strict=True):
        if not row.is_processed:
            places = range(start, start + len(guess) + 1)
            (greedy if row.seed is None else sampled).extend(places)
            owners.update((place, (row, len(row.token_ids) + place - start)) for place in places)
    bans = {place: special.banned(row.config, n) for place, (row, n) in owners.items()}
    _replace_banned(likeliest, logits, greedy, [bans[place] for place in greedy])
    if sampled:
        _draw(likeliest, logits, sampled, [owners[at] for at in sampled], [bans[at] for at in sampled])
    result = []
    for row, start, guess in zip(rows, starts, guesses, strict=True):
        if row.is_processed:
            result.append(_verify_one(row, guess, logits[start : start + len(guess) + 1], special))
        else:
            kept = next((i for i, token_id in enumerate(guess) if likeliest[start + i] != token_id), len(guess))
            result.append(likeliest[start : start + kept + 1])
    return result


def _verify_one(row: Row, guess: Sequence[int], logits: Tensor, special: SpecialIds) -> list[int]:
    """Verify one row step by step: processors, filters and constraints see only histories that come true."""
    generated, guide = list(row.token_ids), row.guide
    tokens: list[int] = []
    for i in range(len(guess) + 1):
        (mask,) = allowed_masks([guide], logits[i : i + 1])
        processed = process(logits[i], row.request, generated, special, allowed=mask)[None]
        chosen: list[int] = processed.argmax(-1).tolist()
        if row.seed is not None:
            _draw(chosen, processed, [0], [(row, len(generated))], [frozenset()])
        tokens += chosen
        generated += chosen
        ends = chosen[0] in special.ends and not row.config.ignore_eos
        if i == len(guess) or chosen[0] != guess[i] or ends:
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
    owners: Sequence[tuple[Row, int]],
    bans: Sequence[frozenset[int]],
) -> None:
    """Replace the tokens at some places by samples, each for a row and one of its steps, without banned tokens."""
    part = logits[torch.tensor(places, device=logits.device)]
    for banned in set(bans):
        if banned:
            at = torch.tensor([i for i, one in enumerate(bans) if one == banned], device=part.device)
            part[at[:, None], torch.tensor(sorted(banned), device=part.device)] = processors.NEVER
    part = truncate(part, [row.config for row, _ in owners])
    numbers = [uniform(row.seed or 0, row.index, step) for row, step in owners]
    for place, token_id in zip(places, sample(part, numbers), strict=True):
        chosen[place] = token_id
