"""Choosing each row's next token: processors, then the most likely token or the sampler's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from nlpkit.core.decode.guide import allowed_masks
from nlpkit.core.decode.row import process
from nlpkit.core.decode.sampler import sample, truncate, uniform

if TYPE_CHECKING:
    from nlpkit.core.decode.row import Row


def choose(rows: Sequence[Row], logits: Tensor, eos_ids: Sequence[int]) -> list[int]:
    """Choose one token a row.

    Args:
        rows: The rows, each with its own settings and history.
        logits: fp32, shape ``(len(rows), vocab_size)``; not changed.
        eos_ids: Ids that end a text.

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
            logits[i] = process(logits[i], rows[i].request, rows[i].token_ids, eos_ids, allowed=masks[i])
    chosen: list[int] = logits.argmax(-1).tolist()
    sampled = [i for i, row in enumerate(rows) if row.seed is not None]
    if sampled:
        _draw(chosen, logits, sampled, [(rows[i], len(rows[i].token_ids)) for i in sampled])
    return chosen


def verify(
    rows: Sequence[Row], guesses: Sequence[Sequence[int]], logits: Tensor, eos_ids: Sequence[int]
) -> list[list[int]]:
    """Choose each row's next tokens, as many as its guess allows.

    Every token is the one that `choose` would give after those before it: a guess that is not this token ends the
    row's tokens with the one that is.

    Args:
        rows: The rows.
        guesses: For each row the guessed tokens whose logits were computed, perhaps none.
        logits: fp32, shape ``(sum of guesses and one a row, vocab_size)``: for each row those after its newest token
            and after each guess; not changed.
        eos_ids: Ids that end a text.

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
    places: list[int] = []
    owners: list[tuple[Row, int]] = []
    for row, start, guess in zip(rows, starts, guesses, strict=True):
        if row.seed is not None and not row.is_processed:
            places += range(start, start + len(guess) + 1)
            owners += [(row, len(row.token_ids) + i) for i in range(len(guess) + 1)]
    if places:
        _draw(likeliest, logits, places, owners)
    result = []
    for row, start, guess in zip(rows, starts, guesses, strict=True):
        if row.is_processed:
            result.append(_verify_one(row, guess, logits[start : start + len(guess) + 1], eos_ids))
        else:
            kept = next((i for i, token_id in enumerate(guess) if likeliest[start + i] != token_id), len(guess))
            result.append(likeliest[start : start + kept + 1])
    return result


def _verify_one(row: Row, guess: Sequence[int], logits: Tensor, eos_ids: Sequence[int]) -> list[int]:
    """Verify one row step by step: processors, filters and constraints see only histories that come true."""
    generated, guide = list(row.token_ids), row.guide
    tokens: list[int] = []
    for i in range(len(guess) + 1):
        (mask,) = allowed_masks([guide], logits[i : i + 1])
        processed = process(logits[i], row.request, generated, eos_ids, allowed=mask)[None]
        chosen: list[int] = processed.argmax(-1).tolist()
        if row.seed is not None:
            _draw(chosen, processed, [0], [(row, len(generated))])
        tokens += chosen
        generated += chosen
        ends = chosen[0] in eos_ids and not row.config.ignore_eos
        if i == len(guess) or chosen[0] != guess[i] or ends:
            break
        guide = None if guide is None else guide.after(chosen[0])
    return tokens


def _draw(chosen: list[int], logits: Tensor, places: Sequence[int], owners: Sequence[tuple[Row, int]]) -> None:
    """Replace the tokens at some places by samples, each for a row and one of its steps."""
    part = logits if len(places) == len(logits) else logits[torch.tensor(places, device=logits.device)]
    part = truncate(part, [row.config for row, _ in owners])
    numbers = [uniform(row.seed or 0, row.index, step) for row, step in owners]
    for place, token_id in zip(places, sample(part, numbers), strict=True):
        chosen[place] = token_id
