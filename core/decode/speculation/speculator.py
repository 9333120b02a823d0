"""Speculation: a drafter guesses several tokens, and one forward pass verifies them all.

Each position's token is chosen exactly as it would be without: from its own processed distribution, with its own random
number. A guess is kept where it is that token. So speculation changes how many passes a text takes, never the text.
Sampling so is simpler than the acceptance rule of Leviathan et al. 2023 (arXiv:2211.17192), and repeatable.

How far to guess is decided anew for each pass, from how often guesses came true and from what wider passes were
measured to cost: where nothing is gained, nothing is guessed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from nlpkit.core.decode.speculation.drafter import Draft, Drafter, Sought

if TYPE_CHECKING:
    from nlpkit.core.decode.hypothesis import Hypothesis

WIDTHS = (1, 2, 3, 4, 6, 8, 12, 16)
"""Draft lengths that a pass may take: few, so that what they cost is soon known."""
MARGIN = 1.05
"""Tokens per time that a draft must promise, as a multiple of what plain decoding gives."""
RETRY = 32
"""Unused drafts of a row after which one is tried again however often they failed; failures double it, twice."""
FIRST_WIDTH = 2
"""Longest draft before the cost of any was measured."""


class PassCost:
    """What passes over several tokens a row cost, as a multiple of passes over one; learnt from their durations.

    Several threads may use it: what they lose of each other's measurements is of no account.
    """

    def __init__(self) -> None:
        """Know nothing yet."""
        self._plain: dict[int, float] = {}
        self._ratios: dict[tuple[int, bool], dict[int, float]] = {}

    def known(self, n_rows: int) -> bool:
        """Tell whether a plain pass over so many rows was measured."""
        return n_rows in self._plain

    def widest(self, n_rows: int, *, costly: bool) -> int:
        """Return the longest draft whose cost can be told from what was measured."""
        return WIDTHS[-1] if (n_rows, costly) in self._ratios else FIRST_WIDTH

    def ratio(self, n_rows: int, drafted: int, *, costly: bool) -> float:
        """Estimate the duration of drafting and verifying over that of a plain pass.

        Args:
            n_rows: Rows of the pass.
            drafted: Length of its longest draft.
            costly: Whether guessing takes time too.

        Returns:
            At least 1.
        """
        measured = self._ratios.get((n_rows, costly))
        if measured:
            known = tuple(measured.items())
            nearest, ratio = min(known, key=lambda entry: abs(entry[0] - drafted))
            # A pass costs no more than one that is wider, whatever disturbed its own measurement.
            wider = [cost for length, cost in known if length >= drafted]
            return min([1 + (ratio - 1) * drafted / nearest, *wider])
        return self._expected(n_rows, drafted, costly)

    def measured(self, n_rows: int, drafted: int, seconds: float, *, costly: bool = False) -> None:
        """Take note of a pass.

        Args:
            n_rows: Its rows.
            drafted: Length of its longest draft; 0 for a plain pass.
            seconds: How long guessing and verifying took.
            costly: Whether guessing takes time too.
        """
        if drafted == 0:
            before = self._plain.get(n_rows, seconds)
            # Interruptions only ever lengthen a pass: the shortest of late is the best estimate.
            self._plain[n_rows] = min(seconds, before + 0.1 * (seconds - before))
            for kind in (False, True):
                # While nothing is drafted, what wider passes once cost counts less and less: they are tried again.
                ratios = self._ratios.get((n_rows, kind), {})
                for length, ratio in tuple(ratios.items()):
                    ratios[length] = ratio + 0.01 * (self._expected(n_rows, length, kind) - ratio)
        elif self._plain.get(n_rows, 0) > 0:
            ratio = min(max(seconds / self._plain[n_rows], 1.0), 1.0 + 2 * drafted)
            # The first pass of a new shape also prepares the kernels for it: no measurement is believed at once.
            before = self.ratio(n_rows, drafted, costly=costly)
            ratios = self._ratios.setdefault((n_rows, costly), {})
            ratios[drafted] = min(ratio, before + 0.3 * (ratio - before))

    @staticmethod
    def _expected(n_rows: int, drafted: int, costly: bool) -> float:
        # Reading the weights bounds small passes, arithmetic large ones: then a token more costs as much as the others.
        return 1 + drafted * (min(0.04 * n_rows, 0.5) + 0.1 * costly)


@dataclass
class Trust:
    """How often guesses came true, older ones counting less.

    Attributes:
        hits: Guessed tokens that were right.
        misses: Drafts that were wrong somewhere.
        unused: Drafts in a row that were not tried.
        patience: How many such drafts it takes to try one again.
    """

    hits: float = 0.0
    misses: float = 0.0
    unused: int = 0
    patience: int = RETRY

    def note(self, accepted: int, drafted: int, *, memory: float) -> None:
        """Take note of a verified draft; what came before counts `memory` times as much."""
        self.hits = self.hits * memory + accepted
        self.misses = self.misses * memory + (accepted < drafted)


@dataclass
class Experience:
    """What an engine's texts taught about speculation.

    Attributes:
        cost: What wider passes cost.
        kinds: How often drafts of each drafter and kind came true.
        drafted: Tokens guessed and verified so far.
        accepted: How many of them came true.
    """

    cost: PassCost = field(default_factory=PassCost)
    kinds: dict[tuple[str, int], Trust] = field(default_factory=dict)
    drafted: int = 0
    accepted: int = 0


@dataclass(frozen=True)
class _Found:
    """A draft for the row of this number in the pass, by the drafter of this name."""

    number: int
    name: str
    draft: Draft


class Speculator:
    """Decides for each pass which guesses to verify."""

    def __init__(
        self,
        drafters: Mapping[str, Drafter],
        experience: Experience,
        *,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """Set up speculation over one set of rows.

        Args:
            drafters: By the value of `DecodeConfig.speculation`; nothing else may use them.
            experience: What is known, and learnt here.
            clock: Tells the time, in seconds.
        """
        self._drafters = drafters
        self._experience = experience
        self._clock = clock
        self._rows: dict[tuple[int, int], Trust] = {}
        self._used: list[_Found] = []
        self._costly = False
        self._started = 0.0

    @property
    def active(self) -> bool:
        """Whether any row speculates."""
        return bool(self._rows)

    def add(self, row: Hypothesis) -> None:
        """Begin to guess for a row, if its request asks for it."""
        filtered = row.guide is not None or row.request.token_filter is not None
        # Guesses may run past a stop string, where a constraint or filter must not be asked any more.
        if row.config.speculation in self._drafters and not (filtered and row.config.stop):
            self._rows[row.key] = Trust()

    def drop(self, row: Hypothesis) -> None:
        """Stop guessing for a row."""
        if self._rows.pop(row.key, None) is not None:
            self._drafters[row.config.speculation].drop(row.key)

    def draft(self, rows: Sequence[Hypothesis], *, room: int) -> list[Sequence[int]] | None:
        """Guess the next tokens of all rows; `judge` must follow the pass.

        Args:
            rows: The rows of the next pass.
            room: Most tokens by which the longest row may grow beyond its next one.

        Returns:
            Guesses for each row, or None where a plain pass is better.
        """
        self._started = self._clock()
        self._used, self._costly = [], False
        if not self._experience.cost.known(len(rows)):
            return None
        found: list[_Found] = []
        for name, drafter in self._drafters.items():
            found += self._ask(name, drafter, rows, room)
        width = self._width(rows, found)
        guesses: list[Sequence[int]] = [()] * len(rows)
        for one in found:
            trust = self._rows[rows[one.number].key]
            if width == 0:
                trust.unused += 1
            guesses[one.number] = one.draft.token_ids[:width]
        if width == 0:
            return None
        self._used = found
        return guesses

    def judge(
        self, rows: Sequence[Hypothesis], guesses: Sequence[Sequence[int]] | None, accepted: Sequence[int]
    ) -> None:
        """Learn from a pass.

        Args:
            rows: Its rows, as `draft` was given them.
            guesses: What `draft` returned.
            accepted: For each row, how many of the first guesses came true; ignored after a plain pass.
        """
        seconds = self._clock() - self._started
        width = max(map(len, guesses)) if guesses is not None else 0
        self._experience.cost.measured(len(rows), width, seconds, costly=self._costly)
        if guesses is None:
            return
        for one in self._used:
            right, drafted = accepted[one.number], len(guesses[one.number])
            self._experience.drafted += drafted
            self._experience.accepted += right
            trust = self._rows[rows[one.number].key]
            if right:
                trust.patience = RETRY
            elif trust.unused >= trust.patience:
                trust.patience = min(2 * trust.patience, 4 * RETRY)
            trust.unused = 0
            trust.note(right, drafted, memory=0.8)
            alike = self._experience.kinds.setdefault((one.name, one.draft.kind), Trust())
            alike.note(right, drafted, memory=0.98)

    def _ask(self, name: str, drafter: Drafter, rows: Sequence[Hypothesis], room: int) -> list[_Found]:
        """Let one drafter guess for its rows."""
        mine = [
            (number, min(room, WIDTHS[-1], row.config.max_tokens - len(row.token_ids) - 1))
            for number, row in enumerate(rows)
            if row.config.speculation == name and row.key in self._rows
        ]
        mine = [(number, most) for number, most in mine if most > 0]
        if not mine:
            return []
        if drafter.costly:
            # Decided before the guess, as if it were as long as it may be: a guess that is not used costs all the same.
            width = self._width(rows, [_Found(number, name, Draft((0,) * most)) for number, most in mine], costly=True)
            if width == 0:
                for number, _ in mine:
                    self._rows[rows[number].key].unused += 1
                return []
            self._costly = True
            mine = [(number, min(width, most)) for number, most in mine]
        sought = [
            Sought(rows[number].key, rows[number].request.prompt_ids, rows[number].token_ids, most)
            for number, most in mine
        ]
        drafts = drafter.draft(sought)
        return [_Found(number, name, draft) for (number, _), draft in zip(mine, drafts, strict=True) if draft.token_ids]

    def _width(self, rows: Sequence[Hypothesis], found: Sequence[_Found], *, costly: bool | None = None) -> int:
        """Choose the draft length that promises the most tokens per time; 0 for none."""
        if not found:
            return 0
        costly = self._costly if costly is None else costly
        chances = [self._chance(rows[one.number], one) for one in found]
        lengths = [len(one.draft.token_ids) for one in found]
        cost = self._experience.cost
        longest = min(max(lengths), cost.widest(len(rows), costly=costly))
        best, best_rate = 0, MARGIN * len(rows)
        # Not even endless guesses at the price of the shortest would do: the usual case where nothing is copied.
        if len(rows) + sum(p / (1 - p) for p in chances) <= best_rate * cost.ratio(len(rows), 1, costly=costly):
            return 0
        for width in WIDTHS:
            if width > longest:
                break
            # The i-th guess counts only if all before it were right.
            gain = sum(p * (1 - p ** min(width, n)) / (1 - p) for p, n in zip(chances, lengths, strict=True))
            rate = (len(rows) + gain) / cost.ratio(len(rows), width, costly=costly)
            if rate > best_rate:
                best, best_rate = width, rate
        return best

    def _chance(self, row: Hypothesis, one: _Found) -> float:
        """Estimate how likely a guessed token is right, if all before it are."""
        own = self._rows[row.key]
        alike = self._experience.kinds.get((one.name, one.draft.kind))
        if own.unused >= own.patience:
            return 0.5
        usual = 0.5 if alike is None else (alike.hits + 1) / (alike.hits + alike.misses + 2)
        return min(0.99, (2 * usual + own.hits) / (2 + own.hits + own.misses))
