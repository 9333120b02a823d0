"""Drafts by a smaller model with the same tokenizer (Leviathan et al. 2023, arXiv:2211.17192)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from nlpkit.core.decode.prefix_cache.order import common_prefix
from nlpkit.core.decode.speculation.drafter import Draft, Sought

if TYPE_CHECKING:
    from nlpkit.core.decode.runner import Runner


@dataclass(eq=False)
class _Sequence:
    """One row of the draft model's cache: the tokens that it holds."""

    key: tuple[int, int]
    cached: list[int] = field(default_factory=list)


class DraftModel:
    """Guesses what a small model would write greedily.

    The passes of all its sequences are shared. A guess that the large model refuses costs nothing here: the row is
    taken back to the tokens that stand.
    """

    costly = True

    def __init__(self, runner: Runner, *, vocab_size: int) -> None:
        """Set up a drafter.

        Args:
            runner: The small model with a cache of its own; it must be able to rewind.
            vocab_size: Tokens that the large model knows; a guess beyond them ends the draft.
        """
        self._runner = runner
        self._vocab_size = vocab_size
        self._sequences: list[_Sequence] = []

    def draft(self, sought: Sequence[Sought]) -> list[Draft]:
        """Guess; see `Drafter.draft`."""
        wanted = {one.key: one for one in sought if self._fits(one)}
        if not wanted:
            return [Draft(()) for _ in sought]
        self._enter(wanted)
        feeds: list[list[int]] = []
        lengths: list[int] = []
        for sequence in self._sequences:
            one = wanted.get(sequence.key)
            if one is None:
                # A row that is not asked for computes its last token once more, which changes nothing.
                feeds.append(sequence.cached[-1:])
            else:
                whole = (*one.prompt_ids, *one.token_ids)
                stands = min(common_prefix(tuple(sequence.cached), whole), len(whole) - 1)
                feeds.append(list(whole[stands:]))
                sequence.cached = list(whole)
            lengths.append(len(sequence.cached) - len(feeds[-1]))
        guesses: list[list[int]] = [[] for _ in self._sequences]
        steps = max(one.most for one in wanted.values())
        for step in range(steps):
            chosen: list[int] = self._runner.extend(0, feeds, lengths).argmax(-1).tolist()
            for i, sequence in enumerate(self._sequences):
                if sequence.key in wanted:
                    guesses[i].append(chosen[i])
                    lengths[i] += len(feeds[i])
                    if step + 1 < steps:
                        feeds[i] = [chosen[i]]
                        sequence.cached.append(chosen[i])
        found = {sequence.key: guess for sequence, guess in zip(self._sequences, guesses, strict=True)}
        return [Draft(self._known(found[one.key][: one.most])) if one.key in wanted else Draft(()) for one in sought]

    def drop(self, key: tuple[int, int]) -> None:
        """Forget a sequence."""
        places = [i for i, sequence in enumerate(self._sequences) if sequence.key == key]
        for place in places:
            last = self._sequences.pop()
            if place < len(self._sequences):
                self._runner.copy_row(len(self._sequences), place, len(last.cached))
                self._sequences[place] = last

    def _fits(self, one: Sought) -> bool:
        longest = len(one.prompt_ids) + len(one.token_ids) + one.most
        return (
            longest <= self._runner.max_seq_len
            and max(one.prompt_ids) < self._runner.vocab_size
            and (max(one.token_ids) < self._runner.vocab_size)
        )

    def _enter(self, wanted: dict[tuple[int, int], Sought]) -> None:
        """Give new sequences rows, and compute their prompts."""
        known = {sequence.key for sequence in self._sequences}
        new = [one for key, one in wanted.items() if key not in known]
        if not new:
            return
        first = len(self._sequences)
        self._runner.reserve(first + len(new))
        prompts = [list(one.prompt_ids) for one in new]
        self._runner.extend(first, prompts, [0] * len(new), wanted=[0] * len(new))
        self._sequences += [_Sequence(one.key, prompt) for one, prompt in zip(new, prompts, strict=True)]

    def _known(self, guess: list[int]) -> list[int]:
        cut = next((i for i, token_id in enumerate(guess) if token_id >= self._vocab_size), len(guess))
        return guess[:cut]
