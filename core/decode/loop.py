"""The one decode loop: `Loop.step` is the whole story of how requests become texts."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from nlpkit.core.decode.hypothesis import Hypothesis
from nlpkit.core.decode.prefill import Prefill, Running, is_worth, pass_width, pick_leaders
from nlpkit.core.decode.prefix_cache.order import common_prefix
from nlpkit.core.decode.request import Completion, Request
from nlpkit.core.decode.sampler import draw_seed
from nlpkit.core.decode.slots import new_slots
from nlpkit.core.decode.special_ids import SpecialIds
from nlpkit.core.decode.strategies.base import Round, Strategy, advance
from nlpkit.core.decode.strategies.beam import Beams
from nlpkit.core.decode.strategies.contrastive import Contrastive
from nlpkit.core.decode.strategies.sampling import Sampling
from nlpkit.core.errors import ModelFileError

if TYPE_CHECKING:
    from nlpkit.core.decode.prefix_cache.prefixes import PrefixCache
    from nlpkit.core.decode.runner import Runner
    from nlpkit.core.decode.speculation.speculator import Speculator
    from nlpkit.core.tokenizers.tokenizer import Tokenizer

CHUNK = 256
"""Prompt tokens computed between two decode steps, so that no prompt holds up running texts for long."""


USUAL_ANSWER = 32
"""Tokens behind each prompt that there is room for from the start; longer texts make room as they grow."""


@dataclass(slots=True)
class Event:
    """What one step did to one completion.

    Attributes:
        ticket: The request's number, as `Loop.submit` returned it.
        index: Which of the request's completions.
        text: Text that is final now; of a text that grows step by step, only for watched requests.
        token_id: The new token, or None where there is not one: of a search that knows its texts only at the end, or
            of a request that asked for none.
        completion: The whole completion, when it is finished.
        last: Whether nothing more comes of the request.
        started: When the request was admitted, on the clock of `time.perf_counter`.
        logprob: The new token's log-probability under the model's own distribution, in nats, where there is one that
            is told step by step.
        alternatives: The likeliest tokens at its place and their log-probabilities, where the request wants them.
    """

    ticket: int
    index: int
    text: str
    token_id: int | None
    completion: Completion | None = None
    last: bool = False
    started: float = 0.0
    logprob: float | None = None
    alternatives: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True)
class _Waiting:
    """A request in the queue; the fields are the arguments of `Loop.submit`."""

    ticket: int
    request: Request
    watch_text: bool
    keep: int | None

    @property
    def width(self) -> int:
        """Slots that it will hold."""
        config = self.request.config
        return max(config.n, config.beam_size, config.top_k if config.contrastive_alpha else 1)


class Loop:
    """Runs any number of requests, whatever their strategies, over a bounded set of slots in the cache.

    Slots times the longest request's budget never exceed `batch_tokens` (but one request always runs). Requests are
    admitted in the order of their arrival; prompts that are computed at the same time advance side by side, so that a
    short one does not wait for a long one. Slots of texts that end go to the next requests at once.
    """

    def __init__(
        self,
        runner: Runner,
        tokenizer: Tokenizer,
        *,
        batch_tokens: int = 8192,
        max_slots: int = 64,
        prefill: int = 2048,
        chunk: int | None = CHUNK,
        prefixes: PrefixCache | None = None,
        speculator: Speculator | None = None,
    ) -> None:
        """Set up an empty loop.

        Args:
            runner: The model with its cache, which is empty.
            tokenizer: For text and end-of-sequence ids.
            batch_tokens: Most positions of the cache in use, slots times length.
            max_slots: Most slots at once.
            prefill: Most prompt tokens, padding included, in one pass while no text is running.
            chunk: The same while texts are running, between two of their steps; None computes all prompts first,
                which takes the least time over all.
            prefixes: Where beginnings of prompts are kept; None computes every prompt from its first token.
            speculator: Guesses tokens for the requests that ask for it; None leaves that out.
        """
        self._runner = runner
        self._tokenizer = tokenizer
        self._special = SpecialIds.of(tokenizer)
        self._slots = new_slots(runner)
        self._batch_tokens = batch_tokens
        self._max_slots = max_slots
        self._prefill = prefill
        self._chunk = chunk
        self._prefixes = prefixes
        self._speculator = speculator
        self._waiting: deque[_Waiting] = deque()
        self._running: list[Running] = []
        self._prefills: list[Prefill] = []
        self._waiting_for_prefix: list[Prefill] = []
        self._filled_last = False
        self._tickets = 0

    @property
    def idle(self) -> bool:
        """Whether nothing is waiting or running."""
        return not (self._running or self._prefills or self._waiting)

    @property
    def n_waiting(self) -> int:
        """Requests that were not admitted yet."""
        return len(self._waiting)

    @property
    def n_slots(self) -> int:
        """Slots that admitted requests hold, or wait for with their prompts."""
        started = (*self._running, *(e.running for e in (*self._prefills, *self._waiting_for_prefix)))
        return sum(running.strategy.width for running in started)

    def submit(self, request: Request, *, watch_text: bool = False, keep: int | None = None) -> int:
        """Queue a request.

        Args:
            request: A checked request.
            watch_text: Report text step by step, where the strategy knows it; beams are known only at the end.
            keep: How many of its first tokens are worth keeping for later requests; None is all, the text of a request
                that does not search included.

        Returns:
            Its ticket.
        """
        ticket = self._tickets
        self._tickets += 1
        self._waiting.append(_Waiting(ticket, request, watch_text, keep))
        return ticket

    def cancel(self, ticket: int) -> None:
        """Drop a request, waiting or running; its slots are free at once."""
        self._waiting = deque(entry for entry in self._waiting if entry.ticket != ticket)
        gone = [entry for entry in (*self._prefills, *self._waiting_for_prefix) if entry.running.ticket == ticket]
        orphans = [entry for entry in self._waiting_for_prefix if entry.leader in gone and entry not in gone]
        self._waiting_for_prefix = [e for e in self._waiting_for_prefix if e not in gone and e not in orphans]
        self._prefills = [entry for entry in self._prefills if entry not in gone]
        for running in self._running:
            if running.ticket == ticket and self._speculator is not None:
                for text in running.strategy.live:
                    self._speculator.drop(text)
        self._running = [running for running in self._running if running.ticket != ticket]
        self._move_slots(())
        for entry in orphans:
            entry.leader, entry.shared = None, 0
        self._start(orphans)

    def step(self) -> list[Event]:
        """Compute the next chunk of the prompts, or advance every running text."""
        # 1. Admit what fits: prompts enter the cache with the longest beginning that is known.
        events = self._admit(self._next_group())

        # 2. Fill prompts, in chunks that alternate with steps of the running texts. Those that are complete have their
        #    first logits, and join the running ones.
        if self._prefills and (self._chunk is None or not self._running or not self._filled_last):
            self._filled_last = True
            return events + self._fill()
        self._filled_last = False
        if not self._running:
            return events

        # 3. Guess: drafters may know how some texts go on; no text depends on it.
        texts = [text for running in self._running for text in running.strategy.live]
        with_hidden = any(running.strategy.wants_hidden for running in self._running)
        speculator = self._speculator if self._speculator is not None and self._speculator.active else None
        if with_hidden or not self._slots.takes_guesses(self._running):
            speculator = None
        guesses = None
        if speculator is not None:
            room = self._runner.max_seq_len - 1 - max(text.length for text in texts)
            guesses = speculator.draft(texts, room=room)

        # 4. One pass over all slots: the newest token of each text, and what was guessed to follow.
        logits, hidden = self._slots.extend(self._running, guesses, with_hidden=with_hidden)

        # 5. Each request's strategy advances: texts grow, fork, end.
        rounds = advance([running.strategy for running in self._running], logits, hidden, guesses)
        if speculator is not None:
            speculator.judge(texts, guesses, [count for one in rounds for count in one.accepted])

        # 6. Move slots, so that each text has its own, and report.
        return events + self._settle(self._running, rounds, texts)

    def _next_group(self) -> list[_Waiting]:
        """Take the waiting requests that fit now; none when too little is free to be worth a pass."""
        if not self._waiting:
            return []
        started = [*self._running, *(e.running for e in (*self._prefills, *self._waiting_for_prefix))]
        need = max((_need(running.request) for running in started), default=0)
        n_started = n_slots = sum(running.strategy.width for running in started)
        group: list[_Waiting] = []
        for entry in self._waiting:
            grown = max(need, _need(entry.request))
            slots = n_slots + entry.width
            if n_slots and (slots > self._max_slots or slots * grown > self._batch_tokens):
                break
            group.append(entry)
            need, n_slots = grown, slots
        all_fit = len(group) == len(self._waiting)
        n_tokens = sum(len(entry.request.prompt_ids) for entry in group)
        if n_started and not all_fit and (n_slots - n_started) * 8 < n_slots and n_tokens < CHUNK:
            return []
        for _ in group:
            self._waiting.popleft()
        return group

    def _admit(self, group: Sequence[_Waiting]) -> list[Event]:
        events: list[Event] = []
        new: list[Prefill] = []
        now = time.perf_counter()
        for entry in group:
            request, config = entry.request, entry.request.config
            if config.temperature > 0 and config.seed is None:
                # One seed for all n completions: they differ by their index.
                request = replace(request, config=config.replace(seed=draw_seed()))
            special = self._special.stopping_at(config.stop, self._tokenizer)
            texts = [
                Hypothesis((entry.ticket, index), request, self._tokenizer, special, entry.watch_text)
                for index in range(config.n)
            ]
            if config.max_tokens == 0:
                score = 0.0 if config.beam_size > 1 else None
                for index, text in enumerate(texts):
                    done = replace(text.completion(), score=score)
                    events.append(Event(entry.ticket, index, "", None, done, index == config.n - 1, now))
            else:
                running = Running(entry.ticket, request, self._strategy(texts), entry.keep, now)
                new.append(Prefill(running, request.prompt_ids))
        self._start(new)
        return events

    def _strategy(self, texts: list[Hypothesis]) -> Strategy:
        """Return what the configuration of a request asks for; `texts` are its completions, still empty."""
        config = texts[0].config
        if config.beam_size > 1:
            return Beams(texts[0])
        if config.contrastive_alpha:
            return Contrastive(texts[0], vocab_size=self._runner.vocab_size)
        return Sampling(texts)

    def _start(self, new: list[Prefill]) -> None:
        """Begin to compute prompts, or let them wait for one that computes their beginning."""
        if not new:
            return
        at_hand = [(0, -1)] * len(new)
        if self._prefixes is not None and self._runner.can_rewind:
            at_hand = [self._at_hand(entry, self._prefixes) for entry in new]
            # Hidden states are kept with a beginning, but not in slots: who wants them waits for nobody.
            ready = [
                len(e.tokens) if e.running.strategy.wants_hidden else have
                for e, (have, _) in zip(new, at_hand, strict=True)
            ]
            pick_leaders(new, ready, (*self._prefills, *self._waiting_for_prefix))
        started = [*self._running, *(e.running for e in (*self._prefills, *self._waiting_for_prefix, *new))]
        # A search that forks would copy much to make room again and again.
        longest = max(
            len(e.tokens) + (e.running.request.config.max_tokens if e.running.strategy.forks else USUAL_ANSWER)
            for e in new
        )
        self._slots.reserve(sum(running.strategy.width for running in started), longest)
        for entry, (count, source) in zip(new, at_hand, strict=True):
            if entry.leader is not None:
                self._waiting_for_prefix.append(entry)
                continue
            self._slots.enter(entry)
            if source >= 0:
                self._runner.copy_row(source, entry.slot, count)
                entry.done = count
            elif count and self._prefixes is not None:
                hidden = entry.hidden if entry.running.strategy.wants_hidden else None
                entry.done = self._prefixes.load(self._runner, entry.slot, entry.tokens[:-1], hidden=hidden)
            self._prefills.append(entry)
            if self._prefixes is not None:
                self._prefixes.reused += entry.done

    def _at_hand(self, entry: Prefill, prefixes: PrefixCache) -> tuple[int, int]:
        """Return how many tokens of a prompt can be had at once, and from which slot; -1 is from the kept ones."""
        # The last token is computed in any case: the next one follows from it.
        most = len(entry.tokens) - 1
        with_hidden = entry.running.strategy.wants_hidden
        best, source = prefixes.match(entry.tokens[:most], with_hidden=with_hidden), -1
        have = []
        if not with_hidden:
            have += [(one.request.prompt_ids, most, self._slots.prompt_slot(one)) for one in self._running]
            have += [(other.tokens, min(most, other.done), other.slot) for other in self._prefills]
        for tokens, limit, slot in have:
            if limit > best or (limit == best and source < 0):
                count = min(limit, common_prefix(entry.tokens, tokens))
                if count > best or (count == best and source < 0):
                    best, source = count, slot
        return (best, source) if is_worth(best, len(entry.tokens)) else (0, -1)

    def _fill(self) -> list[Event]:
        """Compute the next chunk of each prompt; the texts whose prompts are complete get their first token."""
        entries = self._prefills[:]
        budget = self._chunk if self._running and self._chunk is not None else self._prefill
        afresh = not any(entry.done for entry in entries)
        width = pass_width([entry.left for entry in entries], budget, afresh=afresh)
        parts = [entry.tokens[entry.done : entry.done + width] for entry in entries]
        wanted = [int(len(part) == entry.left) for part, entry in zip(parts, entries, strict=True)]
        with_hidden = any(entry.running.strategy.wants_hidden for entry in entries)
        logits, hidden = self._slots.fill(entries, parts, wanted, with_hidden=with_hidden)
        for i, (entry, part) in enumerate(zip(entries, parts, strict=True)):
            entry.done += len(part)
            if hidden is not None and entry.running.strategy.wants_hidden:
                entry.hidden.append(hidden[i])
        if len(logits) and not bool(torch.isfinite(logits.amax(-1)).all()):
            raise ModelFileError(
                "The model computes what are no numbers: its weights are damaged, or too large for the number format. "
                "Download it again, or use --dtype fp32."
            )
        self._release()
        full = [entry for entry in entries if entry.left == 0]
        if not full:
            return []
        self._prefills = [entry for entry in self._prefills if entry.left]
        states = [torch.cat(entry.hidden) if entry.hidden else logits[:0] for entry in full]
        for entry, state in zip(full, states, strict=True):
            if self._prefixes is not None and entry.running.strategy.forks:
                # Texts of searches do not stay in one slot: only their prompts are kept.
                kept = entry.tokens[: entry.running.keep]
                known = state if entry.hidden else None
                self._prefixes.keep(self._runner, entry.slot, kept, n_prompt=len(kept), hidden=known)
            for text in entry.running.strategy.live:
                text.slot = entry.slot
        started = [entry.running for entry in full]
        picks = [i for i, running in enumerate(started) for _ in running.strategy.live]
        if len(picks) > len(full):
            logits = logits[torch.tensor(picks, device=logits.device)]
        states = [states[i] for i in picks]
        rounds = advance([running.strategy for running in started], logits, states, None)
        self._running += started
        for running in started:
            speculates = not running.strategy.forks and running.request.config.speculation != "none"
            if self._speculator is not None and speculates and self._runner.can_rewind:
                for text in running.strategy.live:
                    if text.finish_reason is None:
                        self._speculator.add(text)
        return self._settle(started, rounds, (), moved=True)

    def _release(self) -> None:
        """Let prompts go on whose beginning has been computed by now."""
        for entry in self._waiting_for_prefix[:]:
            leader = entry.leader
            if leader is not None and leader.done >= entry.shared:
                self._slots.enter(entry)
                self._runner.copy_row(leader.slot, entry.slot, entry.shared)
                entry.done, entry.leader = entry.shared, None
                self._prefills.append(entry)
                self._waiting_for_prefix.remove(entry)
                if self._prefixes is not None:
                    self._prefixes.reused += entry.shared

    def _settle(
        self, advanced: Sequence[Running], rounds: Sequence[Round], before: Sequence[Hypothesis], *, moved: bool = False
    ) -> list[Event]:
        """Keep what ended, give each text that goes on its slot, and tell what happened.

        Args:
            advanced: The requests that took part in the last pass.
            rounds: What became of each.
            before: The texts that the slots held.
            moved: Whether slots must be moved in any case.
        """
        events = []
        for running, one in zip(advanced, rounds, strict=True):
            for text in one.ended:
                if self._prefixes is not None:
                    prompt = running.request.prompt_ids
                    tokens = (*prompt, *text.token_ids[:-1])[: running.keep]
                    self._prefixes.keep(self._runner, text.slot, tokens, n_prompt=len(prompt))
                if self._speculator is not None:
                    self._speculator.drop(text)
            running.strategy.live = one.live
            moved = moved or one.moved
            events += [
                Event(
                    running.ticket,
                    news.index,
                    news.text,
                    news.token_id,
                    news.completion,
                    started=running.started,
                    logprob=news.logprob,
                    alternatives=news.alternatives,
                )
                for news in one.news
            ]
            if not one.live:
                events[-1].last = True
        if moved:
            self._running = [running for running in self._running if running.strategy.live]
            self._move_slots(before)
        return events

    def _move_slots(self, before: Sequence[Hypothesis]) -> None:
        self._slots.move(self._running, self._prefills, before)
        self._running.sort(key=lambda running: running.strategy.live[0].slot)
        self._prefills.sort(key=lambda entry: entry.slot)


def _need(request: Request) -> int:
    return len(request.prompt_ids) + request.config.max_tokens
