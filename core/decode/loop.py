"""The one decode loop: prompts in chunks, decode steps, and refilling of finished rows."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from nlpkit.core.decode.prefill import Filling, is_worth, pass_width, pick_leaders
from nlpkit.core.decode.prefix_cache.order import common_prefix
from nlpkit.core.decode.request import Completion, Request
from nlpkit.core.decode.row import Row
from nlpkit.core.decode.sampler import draw_seed
from nlpkit.core.decode.slots import RowCopy, copy_rows, place
from nlpkit.core.decode.special_ids import SpecialIds
from nlpkit.core.decode.strategies.sampling import choose, verify
from nlpkit.core.errors import ConfigError

if TYPE_CHECKING:
    from nlpkit.core.decode.prefix_cache.prefixes import PrefixCache
    from nlpkit.core.decode.runner import Runner
    from nlpkit.core.decode.speculation.speculator import Speculator
    from nlpkit.core.tokenizers.tokenizer import Tokenizer

CHUNK = 256
"""Prompt tokens computed between two decode steps, so that no prompt holds up running texts for long."""


USUAL_ANSWER = 32
"""Tokens behind each prompt that there is room for from the start; longer texts make room as they grow."""


@dataclass(frozen=True)
class Event:
    """What one step did to one completion.

    Attributes:
        ticket: The request's number, as `Scheduler.submit` returned it.
        index: Which of the request's completions.
        text: Text that is final now; only for watched requests.
        token_id: The new token, or None for a request that asked for none.
        completion: The whole completion, when it is finished.
        started: When the request was admitted, on the clock of `time.perf_counter`.
    """

    ticket: int
    index: int
    text: str
    token_id: int | None
    completion: Completion | None = None
    started: float = 0.0


@dataclass(frozen=True)
class _Waiting:
    """A request in the queue; the fields are the arguments of `Scheduler.submit`."""

    ticket: int
    request: Request
    watch_text: bool
    keep: int | None


class Scheduler:
    """Runs any number of requests over a bounded set of cache rows.

    Running texts are always rows ``0 .. n - 1``; prompts that are still being computed lie behind them. When a text
    ends, the last row takes its place. Rows times the longest row's budget never exceed `batch_tokens` (but one request
    always runs). Requests are admitted in the order of their arrival; prompts that are computed at the same time
    advance side by side, so that a short one does not wait for a long one.
    """

    def __init__(
        self,
        runner: Runner,
        tokenizer: Tokenizer,
        *,
        batch_tokens: int = 8192,
        max_rows: int = 64,
        prefill: int = 2048,
        chunk: int | None = CHUNK,
        prefixes: PrefixCache | None = None,
        speculator: Speculator | None = None,
    ) -> None:
        """Set up an empty schedule.

        Args:
            runner: The model with its cache.
            tokenizer: For text and end-of-sequence ids.
            batch_tokens: Most cache slots in use, rows times length.
            max_rows: Most rows at once.
            prefill: Most prompt tokens, padding included, in one pass while no text is running.
            chunk: The same while texts are running, between two of their steps; None computes all prompts first,
                which takes the least time over all.
            prefixes: Where beginnings of prompts are kept; None computes every prompt from its first token.
            speculator: Guesses tokens for the requests that ask for it; None leaves that out.
        """
        self._runner = runner
        self._tokenizer = tokenizer
        self._special = SpecialIds.of(tokenizer)
        self._batch_tokens = batch_tokens
        self._max_rows = max_rows
        self._prefill = prefill
        self._chunk = chunk
        self._prefixes = prefixes
        self._speculator = speculator
        self._waiting: deque[_Waiting] = deque()
        self._rows: list[Row] = []
        self._filling: list[Filling] = []
        self._held: list[Filling] = []
        self._filled_last = False
        self._tickets = 0

    @property
    def idle(self) -> bool:
        """Whether nothing is waiting or running."""
        return not (self._rows or self._filling or self._waiting)

    def submit(self, request: Request, *, watch_text: bool = False, keep: int | None = None) -> int:
        """Queue a request.

        Args:
            request: A checked request without beams or contrastive search.
            watch_text: Report text step by step.
            keep: How many of its first tokens are worth keeping for later requests; None is all, the text included.

        Returns:
            Its ticket.

        Raises:
            ConfigError: The request asks for a search, which is not run here.
        """
        if request.config.beam_size > 1 or request.config.contrastive_alpha:
            raise ConfigError("Beam and contrastive search run by themselves: give the request to Engine.generate.")
        ticket = self._tickets
        self._tickets += 1
        self._waiting.append(_Waiting(ticket, request, watch_text, keep))
        return ticket

    def cancel(self, ticket: int) -> None:
        """Drop a request, waiting or running; its rows are free at once."""
        self._waiting = deque(entry for entry in self._waiting if entry.ticket != ticket)
        gone = [entry for entry in (*self._filling, *self._held) if entry.rows[0].ticket == ticket]
        orphans = [entry for entry in self._held if entry.leader in gone and entry not in gone]
        self._held = [entry for entry in self._held if entry not in gone and entry not in orphans]
        rows, filling = self._placed()
        for row, _ in rows:
            if row.ticket == ticket and self._speculator is not None:
                self._speculator.drop(row)
        self._settle(
            [(row, slot) for row, slot in rows if row.ticket != ticket],
            [(entry, slot) for entry, slot in filling if entry not in gone],
        )
        for entry in orphans:
            entry.leader, entry.shared = None, 0
        self._start(orphans)

    def step(self) -> list[Event]:
        """Admit what fits; then compute the next chunk of the prompts, or advance every running text."""
        events = self._admit(self._next_group())
        if self._filling and (self._chunk is None or not self._rows or not self._filled_last):
            self._filled_last = True
            return events + self._fill()
        self._filled_last = False
        return events + (self._decode() if self._rows else [])

    @staticmethod
    def _need(request: Request) -> int:
        return len(request.prompt_ids) + request.config.max_tokens

    def _next_group(self) -> list[_Waiting]:
        """Take the waiting requests that fit now; none when too little is free to be worth a pass."""
        if not self._waiting:
            return []
        entries = (*self._filling, *self._held)
        need = max((self._need(row.request) for row in self._rows), default=0)
        need = max((self._need(entry.rows[0].request) for entry in entries), default=need)
        started = n_rows = len(self._rows) + sum(len(entry.rows) for entry in entries)
        group: list[_Waiting] = []
        for entry in self._waiting:
            grown = max(need, self._need(entry.request))
            rows = n_rows + entry.request.config.n
            if n_rows and (rows > self._max_rows or rows * grown > self._batch_tokens):
                break
            group.append(entry)
            need, n_rows = grown, rows
        all_fit = len(group) == len(self._waiting)
        n_tokens = sum(len(entry.request.prompt_ids) for entry in group)
        if started and not all_fit and (n_rows - started) * 8 < n_rows and n_tokens < CHUNK:
            return []
        for _ in group:
            self._waiting.popleft()
        return group

    def _admit(self, group: Sequence[_Waiting]) -> list[Event]:
        events: list[Event] = []
        new: list[Filling] = []
        now = time.perf_counter()
        for entry in group:
            request, config = entry.request, entry.request.config
            if config.temperature > 0 and config.seed is None:
                # One seed for all n completions: they differ by their index.
                request = replace(request, config=config.replace(seed=draw_seed()))
            rows = [
                Row(entry.ticket, index, request, self._tokenizer, entry.watch_text, now, entry.keep)
                for index in range(config.n)
            ]
            if config.max_tokens == 0:
                events += [Event(row.ticket, row.index, "", None, row.completion(), now) for row in rows]
            else:
                new.append(Filling(rows, request.prompt_ids))
        self._start(new)
        return events

    def _start(self, new: list[Filling]) -> None:
        """Begin to compute prompts, or let them wait for one that computes their beginning."""
        if not new:
            return
        at_hand = [(0, -1)] * len(new)
        if self._prefixes is not None and self._runner.can_rewind:
            at_hand = [self._at_hand(entry, self._prefixes) for entry in new]
            pick_leaders(new, [count for count, _ in at_hand], (*self._filling, *self._held))
        entries = (*self._filling, *self._held, *new)
        n_rows = len(self._rows) + sum(len(entry.rows) for entry in entries)
        self._runner.reserve(n_rows, max(len(entry.tokens) for entry in new) + USUAL_ANSWER)
        for entry, (count, source) in zip(new, at_hand, strict=True):
            slot = len(self._rows) + len(self._filling)
            if entry.leader is not None:
                self._held.append(entry)
                continue
            if source >= 0:
                self._runner.copy_row(source, slot, count)
                entry.done = count
            elif count and self._prefixes is not None:
                entry.done = self._prefixes.load(self._runner, slot, entry.tokens[:-1])
            self._filling.append(entry)
            if self._prefixes is not None:
                self._prefixes.reused += entry.done

    def _at_hand(self, entry: Filling, prefixes: PrefixCache) -> tuple[int, int]:
        """Return how many tokens of a prompt can be had at once, and from which row; -1 is from the kept ones."""
        # The last token is computed in any case: the next one follows from it.
        most = len(entry.tokens) - 1
        best, source = prefixes.match(entry.tokens[:most]), -1
        have = [(row.request.prompt_ids, most) for row in self._rows]
        have += [(other.tokens, min(most, other.done)) for other in self._filling]
        for slot, (tokens, limit) in enumerate(have):
            if limit > best or (limit == best and source < 0):
                count = min(limit, common_prefix(entry.tokens, tokens))
                if count > best or (count == best and source < 0):
                    best, source = count, slot
        return (best, source) if is_worth(best, len(entry.tokens)) else (0, -1)

    def _fill(self) -> list[Event]:
        """Compute the next chunk of each prompt; the texts whose prompts are complete get their first token."""
        first, entries = len(self._rows), self._filling[:]
        budget = self._chunk if self._rows and self._chunk is not None else self._prefill
        afresh = not any(entry.done for entry in entries)
        width = pass_width([entry.left for entry in entries], budget, afresh=afresh)
        parts = [entry.tokens[entry.done : entry.done + width] for entry in entries]
        wanted = [int(len(part) == entry.left) for part, entry in zip(parts, entries, strict=True)]
        logits = self._runner.extend(
            first, parts, [entry.done for entry in entries], wanted=None if all(wanted) else wanted
        )
        for entry, part in zip(entries, parts, strict=True):
            entry.done += len(part)
        if self._held:
            self._release()
        full = [entry for entry in entries if entry.left == 0]
        if not full:
            return []
        rows = [row for entry in full for row in entry.rows]
        if len(rows) > len(full):
            picks = [i for i, entry in enumerate(full) for _ in entry.rows]
            logits = logits[torch.tensor(picks, device=logits.device)]
        events = self._advance(rows, choose(rows, logits, self._special), logits)
        running, filling = self._placed()
        for entry, slot in filling:
            if entry.left == 0:
                running += [(row, slot) for row in entry.rows]
        if self._speculator is not None:
            for row in rows:
                if row.config.speculation != "none" and row.finish_reason is None and self._runner.can_rewind:
                    self._speculator.add(row)
        self._settle(running, [(entry, slot) for entry, slot in filling if entry.left])
        return events

    def _release(self) -> None:
        """Let prompts go on whose beginning has been computed by now."""
        for entry in self._held[:]:
            leader = entry.leader
            if leader is not None and leader.done >= entry.shared:
                source = len(self._rows) + self._filling.index(leader)
                self._runner.copy_row(source, len(self._rows) + len(self._filling), entry.shared)
                entry.done, entry.leader = entry.shared, None
                self._filling.append(entry)
                self._held.remove(entry)
                if self._prefixes is not None:
                    self._prefixes.reused += entry.shared

    def _decode(self) -> list[Event]:
        """Advance every running text by one token, or by more where guesses come true."""
        rows: Sequence[Row] = self._rows
        lengths = [row.length for row in rows]
        speculator = self._speculator if self._speculator is not None and self._speculator.active else None
        guesses = None
        if speculator is not None:
            guesses = speculator.draft(rows, room=self._runner.max_seq_len - 1 - max(lengths))
        if guesses is None:
            logits = self._runner.extend(0, [row.token_ids[-1:] for row in rows], lengths)
            chosen = choose(rows, logits, self._special)
            if speculator is not None:
                speculator.judge(rows, None, ())
        else:
            tokens = [[row.token_ids[-1], *guess] for row, guess in zip(rows, guesses, strict=True)]
            logits = self._runner.extend(0, tokens, lengths, wanted=[len(part) for part in tokens])
            found = verify(rows, guesses, logits, self._special)
            if speculator is not None:
                speculator.judge(rows, guesses, [len(part) - 1 for part in found])
            rows, chosen, logits = _flat(rows, guesses, found, logits)
        events = self._advance(rows, chosen, logits)
        if any(row.finish_reason is not None for row in self._rows):
            self._settle(*self._placed())
        return events

    def _advance(self, rows: Sequence[Row], chosen: Sequence[int], logits: Tensor) -> list[Event]:
        """Append tokens to rows; `rows` are those of `logits`, one as often as it gets tokens."""
        log_total = logits.logsumexp(-1)
        index = torch.tensor(chosen, device=logits.device)[:, None]
        logprobs = (logits.gather(1, index)[:, 0] - log_total).tolist()
        events = []
        for i, row in enumerate(rows):
            if row.finish_reason is not None:
                continue  # a guess that came true, but behind the end of the text
            wanted = row.config.logprobs
            if wanted is not None:
                best = logits[i].topk(min(wanted, logits.shape[-1]))
                values = (best.values - log_total[i]).tolist()
                row.top_logprobs.append(tuple(zip(best.indices.tolist(), values, strict=True)))
            text = row.append(chosen[i], logprobs[i], self._special.ends)
            done = row.completion() if row.finish_reason is not None else None
            events.append(Event(row.ticket, row.index, text, chosen[i], done, row.started))
        return events

    def _placed(self) -> tuple[list[tuple[Row, int]], list[tuple[Filling, int]]]:
        """Return running texts and prompts with their cache rows."""
        first = len(self._rows)
        running = [(row, slot) for slot, row in enumerate(self._rows)]
        return running, [(entry, slot) for slot, entry in enumerate(self._filling, first)]

    def _settle(self, running: Sequence[tuple[Row, int]], filling: Sequence[tuple[Filling, int]]) -> None:
        """Drop the texts that have ended, and close the gaps: running texts first, prompts behind them.

        Args:
            running: Texts and the cache rows where they are; several may still share one.
            filling: The same of prompts.
        """
        for row, slot in running:
            if row.finish_reason is not None:
                if self._prefixes is not None:
                    tokens = (*row.request.prompt_ids, *row.token_ids[:-1])[: row.keep]
                    self._prefixes.keep(self._runner, slot, tokens, n_prompt=len(row.request.prompt_ids))
                if self._speculator is not None:
                    self._speculator.drop(row)
        live = [(row, slot) for row, slot in running if row.finish_reason is None]
        targets = place([slot for _, slot in live], 0)
        behind = place([slot for _, slot in filling], len(live))
        copies = [RowCopy(slot, target, row.length) for (row, slot), target in zip(live, targets, strict=True)]
        copies += [RowCopy(slot, target, entry.done) for (entry, slot), target in zip(filling, behind, strict=True)]
        copy_rows(self._runner, copies)
        self._rows = [row for _, (row, _) in sorted(zip(targets, live, strict=True), key=lambda pair: pair[0])]
        self._filling = [entry for _, (entry, _) in sorted(zip(behind, filling, strict=True), key=lambda pair: pair[0])]


def _flat(
    rows: Sequence[Row], guesses: Sequence[Sequence[int]], found: Sequence[Sequence[int]], logits: Tensor
) -> tuple[list[Row], list[int], Tensor]:
    """Return a row, a token and logits for each token found, out of the logits of all guesses."""
    owners = [row for row, tokens in zip(rows, found, strict=True) for _ in tokens]
    places: list[int] = []
    start = 0
    for guess, tokens in zip(guesses, found, strict=True):
        places += range(start, start + len(tokens))
        start += len(guess) + 1
    if len(places) < start:
        logits = logits[torch.tensor(places, device=logits.device)]
    return owners, [token_id for tokens in found for token_id in tokens], logits
