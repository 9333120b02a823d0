"""The one decode loop: prefill, decode steps, and refilling of finished rows."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from nlpkit.core.decode.guide import allowed_masks
from nlpkit.core.decode.request import Completion, Request
from nlpkit.core.decode.row import Row, draw_seed, needs_processing, process
from nlpkit.core.decode.sampler import sample, truncate, uniform

if TYPE_CHECKING:
    from nlpkit.core.decode.runner import Runner
    from nlpkit.core.tokenizers.base import Tokenizer


@dataclass(frozen=True)
class Event:
    """What one step did to one completion.

    Attributes:
        ticket: The request's number, as `Scheduler.submit` returned it.
        index: Which of the request's completions.
        text: Text that is final now; only for watched requests.
        token_id: The new token, or None for a request that asked for none.
        completion: The whole completion, when it is finished.
    """

    ticket: int
    index: int
    text: str
    token_id: int | None
    completion: Completion | None = None


class Scheduler:
    """Runs any number of requests over a bounded set of cache rows.

    Active rows are always rows ``0 .. n - 1``: when one finishes, the last takes its place, and waiting requests are
    prefilled behind. Rows times the longest row's budget never exceed `batch_tokens` (but one request always runs).
    Requests are admitted in the order of their arrival.
    """

    def __init__(
        self, runner: Runner, tokenizer: Tokenizer, *, batch_tokens: int = 8192, max_rows: int = 64, prefill: int = 4096
    ) -> None:
        """Set up an empty schedule.

        Args:
            runner: The model with its cache.
            tokenizer: For text and end-of-sequence ids.
            batch_tokens: Most cache slots in use, rows times length.
            max_rows: Most rows at once.
            prefill: Most prompt tokens, padding included, in one prefill of several requests.
        """
        self._runner = runner
        self._tokenizer = tokenizer
        self._eos = frozenset(tokenizer.eos_ids)
        self._eos_list = sorted(self._eos)
        self._batch_tokens = batch_tokens
        self._max_rows = max_rows
        self._prefill = prefill
        self._waiting: deque[tuple[int, Request, bool]] = deque()
        self._rows: list[Row] = []
        self._tickets = 0

    @property
    def idle(self) -> bool:
        """Whether nothing is waiting or running."""
        return not self._rows and not self._waiting

    def submit(self, request: Request, *, watch_text: bool = False) -> int:
        """Queue a request.

        Args:
            request: A checked request without beams.
            watch_text: Report text step by step.

        Returns:
            Its ticket.
        """
        ticket = self._tickets
        self._tickets += 1
        self._waiting.append((ticket, request, watch_text))
        return ticket

    def cancel(self, ticket: int) -> None:
        """Drop a request, waiting or running; its rows are free at once."""
        self._waiting = deque(entry for entry in self._waiting if entry[0] != ticket)
        for slot in reversed([slot for slot, row in enumerate(self._rows) if row.ticket == ticket]):
            self._remove(slot)

    def step(self) -> list[Event]:
        """Prefill waiting requests if there is room, or else advance every active row by one token."""
        group = self._next_group()
        if group:
            return self._admit(group)
        if not self._rows:
            return []
        tokens = [[row.token_ids[-1]] for row in self._rows]
        logits = self._runner.extend(0, tokens, [row.length for row in self._rows])
        return self._advance(self._rows[:], logits)

    @staticmethod
    def _need(request: Request) -> int:
        return len(request.prompt_ids) + request.config.max_tokens

    def _next_group(self) -> list[tuple[int, Request, bool]]:
        """Take the waiting requests that fit now; none when too little is free to be worth a prefill."""
        need = max((self._need(row.request) for row in self._rows), default=0)
        n_rows, longest = len(self._rows), 0
        group: list[tuple[int, Request, bool]] = []
        for entry in self._waiting:
            request = entry[1]
            grown = max(need, self._need(request))
            rows = n_rows + request.config.n
            padded = max(longest, len(request.prompt_ids))
            fits = rows <= self._max_rows and rows * grown <= self._batch_tokens
            if not fits and (self._rows or group):
                break
            if group and padded * (len(group) + 1) > self._prefill:
                break
            group.append(entry)
            need, n_rows, longest = grown, rows, padded
        started = len(self._rows)
        all_fit = len(group) == len(self._waiting)
        if group and started and not all_fit and (n_rows - started) * 4 < n_rows:
            return []
        for _ in group:
            self._waiting.popleft()
        return group

    def _admit(self, group: list[tuple[int, Request, bool]]) -> list[Event]:
        events: list[Event] = []
        rows: list[Row] = []
        picks: list[int] = []
        prompts: list[tuple[int, ...]] = []
        for ticket, request, watch in group:
            config = request.config
            if config.max_tokens == 0:
                for index in range(config.n):
                    done = Row(ticket, index, request, self._tokenizer, watch).completion()
                    events.append(Event(ticket, index, "", None, done))
                continue
            if config.temperature > 0 and config.seed is None:
                # One seed for all n completions: they differ by their index.
                request = replace(request, config=config.replace(seed=draw_seed()))
            for index in range(config.n):
                rows.append(Row(ticket, index, request, self._tokenizer, watch))
                picks.append(len(prompts))
            prompts.append(request.prompt_ids)
        if not rows:
            return events
        first = len(self._rows)
        self._runner.reserve(first + len(rows))
        logits = self._runner.extend(first, prompts, [0] * len(prompts))
        # Copies go from the last row backwards, so that no prompt's row is overwritten before it was copied.
        for target in reversed(range(len(rows))):
            self._runner.copy_row(first + picks[target], first + target, len(prompts[picks[target]]))
        self._rows.extend(rows)
        return events + self._advance(rows, logits[torch.tensor(picks, device=logits.device)])

    def _advance(self, rows: Sequence[Row], logits: Tensor) -> list[Event]:
        """Choose and append one token per row; `rows` are the rows of `logits`."""
        chosen = self._choose(rows, logits)
        log_total = logits.logsumexp(-1)
        index = torch.tensor(chosen, device=logits.device)[:, None]
        logprobs = (logits.gather(1, index)[:, 0] - log_total).tolist()
        events = []
        for i, row in enumerate(rows):
            wanted = row.config.logprobs
            if wanted is not None:
                best = logits[i].topk(min(wanted, logits.shape[-1]))
                values = (best.values - log_total[i]).tolist()
                row.top_logprobs.append(tuple(zip(best.indices.tolist(), values, strict=True)))
            text = row.append(chosen[i], logprobs[i], self._eos)
            done = row.completion() if row.finish_reason is not None else None
            events.append(Event(row.ticket, row.index, text, chosen[i], done))
        finished = [slot for slot, row in enumerate(self._rows) if row.finish_reason is not None]
        for slot in reversed(finished):
            self._remove(slot)
        return events

    def _choose(self, rows: Sequence[Row], logits: Tensor) -> list[int]:
        generated = [row.token_ids for row in rows]
        touched = [i for i, row in enumerate(rows) if needs_processing(row.request)]
        if touched:
            logits = logits.clone()
            masks = allowed_masks([row.guide for row in rows], logits)
            for i in touched:
                logits[i] = process(logits[i], rows[i].request, generated[i], self._eos_list, allowed=masks[i])
        chosen: list[int] = logits.argmax(-1).tolist()
        sampled = [i for i, row in enumerate(rows) if row.seed is not None]
        if sampled:
            part = truncate(logits[torch.tensor(sampled, device=logits.device)], [rows[i].config for i in sampled])
            numbers = [uniform(rows[i].seed or 0, rows[i].index, len(generated[i])) for i in sampled]
            for i, token_id in zip(sampled, sample(part, numbers), strict=True):
                chosen[i] = token_id
        return chosen

    def _remove(self, slot: int) -> None:
        last = len(self._rows) - 1
        if slot != last:
            moved = self._rows[last]
            self._runner.copy_row(last, slot, moved.length)
            self._rows[slot] = moved
        self._rows.pop()
