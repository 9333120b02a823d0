"""The beam search for one request: which hypotheses go on, and which have ended."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from nlpkit.core.decode.guide import start_guide
from nlpkit.core.decode.request import Completion, FinishReason, Generation, Request
from nlpkit.core.decode.row import Row
from nlpkit.core.decode.stops import StopState, StopStates
from nlpkit.core.decode.strategies.hypotheses import Beam, Hypothesis, best_of
from nlpkit.core.decode.strategies.lexical import Lexicon, Progress, share_beam
from nlpkit.core.errors import ConfigError

if TYPE_CHECKING:
    from nlpkit.core.decode.special_ids import SpecialIds
    from nlpkit.core.decode.strategies.ranking import Ranking
    from nlpkit.core.tokenizers.tokenizer import Tokenizer

NEVER = float("-inf")


@dataclass(frozen=True)
class Candidate:
    """A live hypothesis with one more token.

    Attributes:
        parent: Place of the hypothesis in its beam.
        token_id: The token.
        rank: What the beam sorts by: the total, less the penalty of diverse beams.
        total: Summed log-probability.
        logprob: The token's own, under the model's distribution.
        progress: How far it has come with what it must include.
    """

    parent: int
    token_id: int
    rank: float
    total: float
    logprob: float
    progress: Progress | None = None

    @property
    def remaining(self) -> int:
        """Tokens that it takes to include what is left."""
        return 0 if self.progress is None else self.progress.remaining


class Search:
    """The search for one request.

    Attributes:
        number: Index of the request.
        request: The request.
        lexicon: The phrases to include, or None.
        beams: One a group.
        started: When it was admitted, on the clock of `time.perf_counter`.
    """

    def __init__(
        self, number: int, request: Request, tokenizer: Tokenizer, special: SpecialIds, *, started: float = 0.0
    ) -> None:
        config = request.config
        self.number = number
        self.request = request
        self.started = started
        self.lexicon = Lexicon(config.must_include, tokenizer) if config.must_include else None
        self._tokenizer = tokenizer
        self._special = special
        self._stops = StopStates(config.stop, tokenizer) if config.stop else None
        # Texts are made once a constraint has had its say.
        self._plain = request if config.constraint is None else replace(request, config=config.replace(constraint=None))
        self._completions: dict[Hypothesis, Completion] = {}
        root = Hypothesis(
            guide=None if config.constraint is None else start_guide(config.constraint, tokenizer),
            progress=None if self.lexicon is None else self.lexicon.start,
        )
        size = config.beam_size // config.beam_groups
        self.beams = [Beam(size, config.length_penalty, config.max_tokens, [root]) for _ in range(config.beam_groups)]

    @property
    def live(self) -> list[Hypothesis]:
        """The live hypotheses of all groups."""
        return [hypothesis for beam in self.beams for hypothesis in beam.live]

    @property
    def done(self) -> bool:
        """Whether no beam grows any more."""
        return not any(beam.live for beam in self.beams)

    @property
    def wanted(self) -> int:
        """Tokens to rank for each hypothesis, so that the best of a beam are among them."""
        config = self.request.config
        size = config.beam_size // config.beam_groups
        # A token that other groups took falls behind others; of those that may not end yet, one more is looked at.
        most = 2 * size + (config.beam_size - size if config.diversity_penalty else 0)
        return max(most, len(self._special.ends) + 1) if self.lexicon is not None else most

    def grow(self, ranking: Ranking, first: int) -> list[int]:
        """Replace the live hypotheses by their best continuations.

        Args:
            ranking: The tokens that may follow.
            first: Its row of the first live hypothesis.

        Returns:
            For each hypothesis that lives now, the place of its parent among those that lived before.

        Raises:
            ConfigError: Bans leave nothing with which all phrases could be included.
        """
        parents: list[int] = []
        taken: list[int] = []
        start = 0
        for beam in self.beams:
            before = len(beam.live)
            chosen = self._grow_beam(beam, ranking, first + start, taken) if beam.live else []
            parents.extend(start + parent for parent in chosen)
            taken.extend(hypothesis.token_ids[-1] for hypothesis in beam.live)
            start += before
        if all(not beam.live or len(beam.live[0].token_ids) >= beam.max_tokens for beam in self.beams):
            self._cut()
        return parents

    def _cut(self) -> None:
        """End the live hypotheses as they are."""
        for beam in self.beams:
            for hypothesis in beam.live:
                beam.finish(replace(hypothesis, finish_reason="length"))
            beam.live = []

    def generation(self, seconds: float) -> Generation:
        """Return the best ``n`` texts, best first; `seconds` is how long they took."""
        results = best_of(self.beams, self.request.config.n, self._text)
        completions = tuple(
            replace(self._completion(result.hypothesis), index=index, score=result.score)
            for index, result in enumerate(results)
        )
        return Generation(completions=completions, prompt_tokens=len(self.request.prompt_ids), seconds=seconds)

    def _grow_beam(self, beam: Beam, ranking: Ranking, first: int, taken: Sequence[int]) -> list[int]:
        """Grow one group; `taken` are the tokens of earlier groups."""
        banks: dict[int, list[Candidate]] = {}
        for candidate in self._candidates(beam, ranking, first, taken):
            banks.setdefault(candidate.remaining, []).append(candidate)
        open_banks: list[list[tuple[Candidate, StopState | None]]] = []
        for remaining in sorted(banks, reverse=True):
            open_banks.append([])
            for place, candidate in enumerate(banks[remaining]):
                if len(open_banks[-1]) == beam.k:
                    break
                before = beam.live[candidate.parent]
                stops, reason = self._end_of(before, candidate.token_id)
                if reason is None:
                    open_banks[-1].append((candidate, stops))
                elif place < beam.k:
                    ended = self._extended(
                        before, candidate, stops, reason, ranking.alternatives[first + candidate.parent]
                    )
                    if self._may_end(ended):
                        beam.finish(ended)
        places = share_beam(beam.k, [len(bank) for bank in open_banks]) if open_banks else []
        chosen = [entry for bank, n in zip(open_banks, places, strict=True) for entry in bank[:n]]
        if not chosen and not beam.ended:
            if self.lexicon is None:
                raise ConfigError("Bans leave no token to generate. Allow at least one.")
            raise ConfigError(
                f"No text can include all of must_include, {list(self.request.config.must_include)}: what is left of "
                "the vocabulary after bans cannot go on. Take a ban or a word away."
            )
        if len(open_banks) > 1:
            chosen.sort(key=lambda entry: entry[0].rank, reverse=True)
        beam.live = [
            self._extended(beam.live[one.parent], one, stops, None, ranking.alternatives[first + one.parent])
            for one, stops in chosen
        ]
        # At the limit all that live end as they are, and may still be among the best.
        at_limit = bool(beam.live) and len(beam.live[0].token_ids) >= beam.max_tokens
        if beam.done and not at_limit and not self._lacks_texts(beam):
            beam.live = []
        return [candidate.parent for candidate, _ in chosen[: len(beam.live)]]

    def _lacks_texts(self, beam: Beam) -> bool:
        """Tell whether a beam that is done must go on, since several of its texts are the same."""
        n = self.request.config.n
        if n == 1 or len(self.beams) > 1:
            return False
        return len({self._text(result.hypothesis) for result in (*beam.ended, *beam.surplus)}) < n

    def _candidates(self, beam: Beam, ranking: Ranking, first: int, taken: Sequence[int]) -> list[Candidate]:
        """Return the continuations to consider, best first."""
        penalty = self.request.config.diversity_penalty if taken else 0.0
        found: list[tuple[float, int, int, float, float]] = []
        for parent, hypothesis in enumerate(beam.live):
            row = first + parent
            base = hypothesis.total + ranking.offsets[row]
            columns = zip(ranking.token_ids[row], ranking.values[row], ranking.raw_values[row], strict=True)
            for token_id, value, raw in columns:
                if value == NEVER:
                    break
                total = base + value
                worth = total - penalty * taken.count(token_id) if penalty else total
                found.append((-worth, parent, token_id, total, raw))
        found.sort()
        if self.lexicon is None:
            return [Candidate(parent, i, -worth, total, raw) for worth, parent, i, total, raw in found[: 2 * beam.k]]
        return self._with_phrases(self.lexicon, beam, ranking, first, found, taken)

    def _with_phrases(
        self,
        lexicon: Lexicon,
        beam: Beam,
        ranking: Ranking,
        first: int,
        found: Sequence[tuple[float, int, int, float, float]],
        taken: Sequence[int],
    ) -> list[Candidate]:
        """Consider each hypothesis' own best tokens and those for its phrases too; leave out what has no room."""
        penalty = self.request.config.diversity_penalty if taken else 0.0
        chosen = {(parent, token_id): entry for entry in found[: 2 * beam.k] for _, parent, token_id, _, _ in (entry,)}
        # As many as may not end the text yet, and one more.
        n_own = len(self._special.ends) + 1
        for parent, hypothesis in enumerate(beam.live):
            if hypothesis.progress is None:
                continue
            row = first + parent
            further = [*ranking.token_ids[row][:n_own], *lexicon.next_tokens(hypothesis.progress)]
            base = hypothesis.total + ranking.offsets[row]
            for token_id, (value, raw) in zip(further, ranking.of(row, further), strict=True):
                if value != NEVER:
                    total = base + value
                    worth = total - penalty * taken.count(token_id)
                    chosen.setdefault((parent, token_id), (-worth, parent, token_id, total, raw))
        candidates = []
        for worth, parent, token_id, total, raw in sorted(chosen.values()):
            before = beam.live[parent].progress
            progress = None if before is None else lexicon.advance(before, token_id)
            candidates.append(Candidate(parent, token_id, -worth, total, raw, progress))
        left = beam.max_tokens - len(beam.live[0].token_ids) - 1
        return [candidate for candidate in candidates if candidate.remaining <= left] or candidates

    @staticmethod
    def _extended(
        before: Hypothesis,
        candidate: Candidate,
        stops: StopState | None,
        reason: FinishReason | None,
        alternatives: tuple[tuple[int, float], ...],
    ) -> Hypothesis:
        token_id = candidate.token_id
        guide = before.guide
        return Hypothesis(
            (*before.token_ids, token_id),
            (*before.logprobs, candidate.logprob),
            candidate.total,
            reason,
            guide.after(token_id) if guide is not None and reason != "eos" else guide,
            candidate.progress,
            stops,
            (*before.top_logprobs, alternatives) if alternatives else (),
        )

    def _end_of(self, before: Hypothesis, token_id: int) -> tuple[StopState | None, FinishReason | None]:
        """Return what of stop strings the text ends with behind a token, and why it ends there, if it does."""
        config = self.request.config
        if token_id in self._special.ends and not config.ignore_eos:
            return before.stops, "eos"
        if self._stops is None:
            return None, None
        stops, found = self._stops.after(before.stops, token_id)
        return stops, "stop" if found and len(before.token_ids) >= config.min_tokens else None

    def _may_end(self, ended: Hypothesis) -> bool:
        """Tell whether a hypothesis that has ended includes all that it must."""
        if self.lexicon is None:
            return True
        if ended.finish_reason == "stop":
            return self.lexicon.all_in(self._completion(ended).text)
        return ended.progress is None or not ended.progress.remaining

    def _text(self, hypothesis: Hypothesis) -> str:
        """Return a text as it is told from others: white space around it does not count."""
        return self._completion(hypothesis).text.strip()

    def _completion(self, hypothesis: Hypothesis) -> Completion:
        """Return what greedy decoding would make of the same tokens."""
        known = self._completions.get(hypothesis)
        if known is None:
            row = Row(self.number, 0, self._plain, self._tokenizer, False)
            for token_id, logprob in zip(hypothesis.token_ids, hypothesis.logprobs, strict=True):
                row.append(token_id, logprob, self._special.ends)
            row.end(hypothesis.finish_reason or "length")
            known = replace(row.completion(), top_logprobs=hypothesis.top_logprobs)
            self._completions[hypothesis] = known
        return known
