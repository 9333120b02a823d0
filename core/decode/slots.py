"""Where texts and prompts lie in the cache, and what it takes to let one go on in several ways."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from nlpkit.core.decode.prefix_cache.order import common_prefix
from nlpkit.core.decode.runner import SharesRows, ShowsHidden

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from nlpkit.core.decode.hypothesis import Hypothesis
    from nlpkit.core.decode.prefill import Prefill, Running
    from nlpkit.core.decode.runner import Runner


@dataclass(frozen=True)
class SlotCopy:
    """A slot to copy.

    Attributes:
        source: Where the tokens are.
        target: Where they should be.
        length: How many there are.
        start: How many of them the target holds already.
    """

    source: int
    target: int
    length: int
    start: int = 0


def assign(sources: Sequence[int], first: int) -> list[int]:
    """Give each sequence a slot of ``first .. first + len(sources) - 1``; one that is there already stays.

    Args:
        sources: The slots where they are; several may begin as copies of one.
        first: First slot of the range.

    Returns:
        A slot for each.
    """
    free = dict.fromkeys(range(first, first + len(sources)))
    targets = []
    for source in sources:
        targets.append(source if source in free else -1)
        free.pop(source, None)
    rest = iter(free)
    return [target if target >= 0 else next(rest) for target in targets]


def copy_slots(runner: Runner, copies: Sequence[SlotCopy]) -> None:
    """Make copies as if all were made at once, whatever overwrites what.

    Args:
        runner: Where the slots are; it must have room for the targets.
        copies: Their targets all differ.
    """
    pending = [copy for copy in copies if copy.source != copy.target]
    while pending:
        # A copy may go ahead once no other still has to read what it overwrites.
        ready = [copy for copy in pending if all(copy.target != other.source for other in pending if other is not copy)]
        if not ready:
            # What is left are rings.
            first, last = min(copy.target for copy in pending), max(copy.target for copy in pending)
            sources = list(range(first, last + 1))
            for copy in pending:
                sources[copy.target - first] = copy.source
            runner.reorder(first, sources, max(copy.length for copy in pending))
            return
        for copy in ready:
            _copy(runner, copy)
        pending = [copy for copy in pending if copy not in ready]


def _copy(runner: Runner, copy: SlotCopy) -> None:
    # What is copied by itself is copied twice.
    if copy.start and 2 * (copy.length - copy.start) <= copy.length and runner.can_rewind:
        segment = runner.save_segment(copy.source, copy.start, copy.length)
        # Where keys depend on the length of a text, one is taken whole.
        if segment is not None and segment.held is None and runner.load_segment(copy.target, copy.start, segment):
            return
    runner.copy_row(copy.source, copy.target, copy.length)


class Slots:
    """Gives prompts and texts their slots, and computes them. Each text is whole in its own.

    Texts lie in slots ``0 .. n - 1``, prompts behind them; when a text ends, the last one takes its place. A text that
    goes on in several ways is copied; where a copy replaces a text with the same beginning, only from there on.
    """

    def __init__(self, runner: Runner) -> None:
        """Use the cache of a runner, which is empty."""
        self._runner = runner
        self._used = 0

    def reserve(self, n_slots: int, n_positions: int) -> None:
        """Make room for so many slots in all, of so many tokens each, as far as that is known."""
        self._runner.reserve(n_slots, n_positions)

    def enter(self, prefill: Prefill) -> None:
        """Give a prompt a slot, behind all others."""
        prefill.slot = self._used
        self._used += 1

    def prompt_slot(self, running: Running) -> int:
        """Return a slot that holds the prompt of a request whose texts grow."""
        return running.strategy.live[0].slot

    def takes_guesses(self, running: Sequence[Running]) -> bool:
        """Tell whether a pass over the texts of these requests may take several tokens a slot."""
        return True

    def fill(
        self, prefills: Sequence[Prefill], tokens: Sequence[Sequence[int]], wanted: Sequence[int], *, with_hidden: bool
    ) -> tuple[Tensor, Sequence[Tensor] | None]:
        """Append tokens to prompts.

        Args:
            prefills: The prompts.
            tokens: For each, one or more ids.
            wanted: For each, 1 where the logits behind its last token are wanted, else 0.
            with_hidden: Whether hidden states are wanted.

        Returns:
            fp32 logits, shape ``(sum of wanted, vocab_size)``, and the hidden states of each prompt's new tokens, shape
            ``(tokens, d_model)``, or None.
        """
        slots, lengths = [prefill.slot for prefill in prefills], [prefill.done for prefill in prefills]
        logits, hidden = self._run(slots, tokens, lengths, None if all(wanted) else wanted, with_hidden)
        if with_hidden and not all(wanted):
            logits = logits[torch.tensor(wanted, device=logits.device) > 0]
        return logits, hidden

    def extend(
        self, running: Sequence[Running], guesses: Sequence[Sequence[int]] | None, *, with_hidden: bool
    ) -> tuple[Tensor, Sequence[Tensor] | None]:
        """Append the newest token of each text, and what is guessed to follow it.

        Args:
            running: The requests of all texts.
            guesses: For each text; None is none.
            with_hidden: Whether hidden states are wanted; never with guesses.

        Returns:
            As `fill`, with logits behind each token.
        """
        texts = [text for one in running for text in one.strategy.live]
        slots, lengths = [text.slot for text in texts], [text.length for text in texts]
        if guesses is None:
            homes = self._homes_of(running, slots, max(lengths) + 1)
            return self._run(slots, [text.token_ids[-1:] for text in texts], lengths, None, with_hidden, homes)
        tokens = [[text.token_ids[-1], *guess] for text, guess in zip(texts, guesses, strict=True)]
        return self._run(slots, tokens, lengths, [len(part) for part in tokens], with_hidden)

    def move(self, running: Sequence[Running], prefills: Sequence[Prefill], before: Sequence[Hypothesis]) -> None:
        """Let each text have a slot of its own, with what lies in the slot that it names; free all others.

        Args:
            running: The requests whose texts go on.
            prefills: The prompts that are being computed.
            before: The texts of the last pass.
        """
        texts = [text for one in running for text in one.strategy.live]
        targets = assign([text.slot for text in texts], 0)
        behind = assign([prefill.slot for prefill in prefills], len(texts))
        held = {text.slot: text for text in before}
        copies = [
            SlotCopy(text.slot, target, text.length, _shared(text, held.get(target)))
            for text, target in zip(texts, targets, strict=True)
            if text.slot != target
        ]
        copies += [
            SlotCopy(prefill.slot, target, prefill.done) for prefill, target in zip(prefills, behind, strict=True)
        ]
        copy_slots(self._runner, copies)
        for text, target in zip(texts, targets, strict=True):
            text.slot = target
        for prefill, target in zip(prefills, behind, strict=True):
            prefill.slot = target
        self._used = len(texts) + len(prefills)

    def _homes_of(self, running: Sequence[Running], slots: Sequence[int], width: int) -> Tensor | None:
        """Return the slot in which each of the first positions of each text lies; None where it is its own."""
        return None

    def _run(
        self,
        slots: Sequence[int],
        tokens: Sequence[Sequence[int]],
        lengths: Sequence[int],
        wanted: Sequence[int] | None,
        with_hidden: bool,
        homes: Tensor | None = None,
    ) -> tuple[Tensor, Sequence[Tensor] | None]:
        """Append tokens to slots without gaps, in any order; the arguments are those of `SharesRows.extend_rows`."""
        first = min(slots)
        if list(slots) == list(range(first, first + len(slots))):
            if with_hidden and isinstance(self._runner, ShowsHidden):
                return self._runner.extend_with_hidden(first, tokens, lengths)
            return self._runner.extend(first, tokens, lengths, wanted=wanted), None
        order = sorted(range(len(slots)), key=slots.__getitem__)
        counts = [1] * len(slots) if wanted is None else wanted
        logits, hidden = self._run(
            [slots[i] for i in order],
            [tokens[i] for i in order],
            [lengths[i] for i in order],
            None if wanted is None else [wanted[i] for i in order],
            with_hidden,
        )
        places: dict[int, range] = {}
        start = 0
        for i in order:
            places[i] = range(start, start + counts[i])
            start += counts[i]
        logits = logits[torch.tensor([row for i in range(len(slots)) for row in places[i]], device=logits.device)]
        return logits, None if hidden is None else [hidden[slot - first] for slot in slots]


class SharedSlots(Slots):
    """A text of a search is a list that says in which slot each of its positions lies: nothing is ever copied.

    A search has as many slots as it may have texts. At each step the new token of its i-th text goes to its i-th slot,
    where no token of that position has been before; what came earlier stays where it is, for all texts that go on from
    it. The prompt lies in the first slot. Nothing ever moves; texts of requests that do not search are whole.
    """

    def __init__(self, runner: Runner, sharing: SharesRows) -> None:
        """Share the rows of a runner's cache; `sharing` is the same runner."""
        super().__init__(runner)
        self._sharing = sharing
        self._slots: dict[int, list[int]] = {}
        self._free: list[int] = []
        self._homes: NDArray[np.int32] = np.zeros((0, 0), dtype=np.int32)

    def reserve(self, n_slots: int, n_positions: int) -> None:
        """Make room; see `Slots.reserve`."""
        known, width = self._homes.shape
        if n_slots > known or n_positions > width:
            n_slots, n_positions = max(n_slots, known), max(n_positions, width)
            # Where nothing else is said, a position lies in its own slot.
            grown = np.repeat(np.arange(n_slots, dtype=np.int32)[:, None], n_positions, axis=1)
            grown[:known, :width] = self._homes
            self._homes = grown
            for slot in range(known, n_slots):
                heapq.heappush(self._free, slot)
            self._runner.reserve(n_slots, n_positions)

    def enter(self, prefill: Prefill) -> None:
        """Take all slots of a request."""
        running = prefill.running
        slots = self._slots[running.ticket] = [heapq.heappop(self._free) for _ in range(running.strategy.width)]
        self._homes[slots] = np.array(slots, dtype=np.int32)[:, None]
        prefill.slot = slots[0]

    def prompt_slot(self, running: Running) -> int:
        """Return the first slot of the request."""
        return self._slots[running.ticket][0]

    def takes_guesses(self, running: Sequence[Running]) -> bool:
        """Take guesses where all texts are whole."""
        return not any(one.strategy.forks for one in running)

    def move(self, running: Sequence[Running], prefills: Sequence[Prefill], before: Sequence[Hypothesis]) -> None:
        """Say where the positions of each text lie; see `Slots.move`."""
        gone = self._slots.keys() - {one.ticket for one in (*running, *(prefill.running for prefill in prefills))}
        for ticket in gone:
            self._release(self._slots.pop(ticket))
        for one in running:
            texts, slots = one.strategy.live, self._slots[one.ticket]
            sources = [text.slot for text in texts]
            if one.strategy.forks:
                targets, length = slots[: len(texts)], texts[0].length
                if length >= self._homes.shape[1]:
                    self.reserve(0, length + length // 2 + 1)
                self._homes[targets, :length] = self._homes[sources, :length]
                self._homes[targets, length] = targets
            else:
                # The texts of a sampled request part behind the prompt, once.
                rest = iter(slot for slot in slots if slot not in sources)
                targets = [next(rest) if slot in sources[:i] else slot for i, slot in enumerate(sources)]
                for source, target, text in zip(sources, targets, texts, strict=True):
                    if source != target:
                        self._runner.copy_row(source, target, text.length)
                self._release(slot for slot in slots if slot not in targets)
                self._slots[one.ticket] = targets
            for text, target in zip(texts, targets, strict=True):
                text.slot = target

    def _release(self, slots: Iterable[int]) -> None:
        for slot in slots:
            heapq.heappush(self._free, slot)

    def _homes_of(self, running: Sequence[Running], slots: Sequence[int], width: int) -> Tensor | None:
        if self.takes_guesses(running):
            return None
        if width > self._homes.shape[1]:
            self.reserve(0, width + width // 2)
        return torch.from_numpy(self._homes[slots, :width])

    def _run(
        self,
        slots: Sequence[int],
        tokens: Sequence[Sequence[int]],
        lengths: Sequence[int],
        wanted: Sequence[int] | None,
        with_hidden: bool,
        homes: Tensor | None = None,
    ) -> tuple[Tensor, Sequence[Tensor] | None]:
        if with_hidden:
            return self._sharing.extend_rows_with_hidden(slots, tokens, lengths, homes=homes)
        return self._sharing.extend_rows(slots, tokens, lengths, wanted=wanted, homes=homes), None


def new_slots(runner: Runner) -> Slots:
    """Return the cheapest way to fork that a runner has; its cache must be empty."""
    if isinstance(runner, SharesRows) and runner.can_share:
        return SharedSlots(runner, runner)
    return Slots(runner)


def _shared(text: Hypothesis, held: Hypothesis | None) -> int:
    """Count the tokens of prompt and text with which a slot begins that held another text of the same request."""
    if held is None or held.key != text.key:
        return 0
    return len(text.request.prompt_ids) + common_prefix(tuple(text.token_ids[:-1]), tuple(held.token_ids))
