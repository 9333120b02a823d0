"""Beam search over the same rows and processors as every other request.

Definition. A hypothesis that has ended scores ``log p / length ** length_penalty``, with log p its summed
log-probability under the processed distribution and length its number of tokens, the ending EOS included. At each step
the ``2 k`` most probable one-token continuations of the k live hypotheses are considered, best first: one that ends by
EOS, or by completing a stop string, joins the finished ones if it is among the first k; the others stay alive until
there are k. The search ends when k hypotheses have finished and no live one can still overtake the worst of the k best;
log p only falls, so a live hypothesis is bounded by its present log p over the most favourable length. At `max_tokens`
the live hypotheses are cut as they are; those come after all that ended. Where several completions are wanted, the
search goes on until as many different texts have ended.

With `beam_groups` each group has its own k / groups live and finished hypotheses, chosen one group after another
(`diverse`). With `must_include` the k places are shared among banks (`lexical`): continuations that begin or go on with
a phrase are considered too, those that could not include all by `max_tokens` are not, and only a hypothesis that
includes all may end.

`ended` has what a beam keeps, `ranking` the tokens that a pass makes likely, `lexical` the phrases.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from nlpkit.core.decode.request import FinishReason
from nlpkit.core.decode.stops import StopState, StopStates
from nlpkit.core.decode.strategies.base import News, Round
from nlpkit.core.decode.strategies.ended import Beam, best_of, text_of
from nlpkit.core.decode.strategies.lexical import Lexicon, PhraseProgress, share_beam
from nlpkit.core.decode.strategies.ranking import rank
from nlpkit.core.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

    from nlpkit.core.decode.hypothesis import Hypothesis
    from nlpkit.core.decode.strategies.ranking import Ranking

NEVER = float("-inf")


@dataclass(frozen=True)
class Extension:
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
    progress: PhraseProgress | None = None

    @property
    def remaining(self) -> int:
        """Tokens that it takes to include what is left."""
        return 0 if self.progress is None else self.progress.remaining


class Beams:
    """The search for one request.

    Attributes:
        lexicon: The phrases to include, or None.
        beams: One a group.
        live: The live hypotheses of all groups.
    """

    forks = True
    wants_hidden = False

    def __init__(self, text: Hypothesis) -> None:
        """Begin with an empty text in each group."""
        config = text.config
        self.lexicon = Lexicon(config.must_include, text.tokenizer) if config.must_include else None
        text.progress = None if self.lexicon is None else self.lexicon.start
        self._config = config
        self._special = text.special
        prompt_ids = text.request.prompt_ids
        self._stops = StopStates(config.stop, text.tokenizer, prompt_ids=prompt_ids) if config.stop else None
        size = config.beam_size // config.beam_groups
        self.beams = [Beam(size, config.length_penalty, config.max_tokens, [text]) for _ in range(config.beam_groups)]
        self.live = [text] * config.beam_groups

    @property
    def width(self) -> int:
        """A slot for each hypothesis that may live."""
        return self._config.beam_size

    @staticmethod
    def advance(
        strategies: Sequence[Beams],
        logits: Tensor,
        hidden: Sequence[Tensor] | None,
        guesses: Sequence[Sequence[int]] | None,
    ) -> list[Round]:
        """Replace the hypotheses of each search by their best continuations; see `Strategy.advance`."""
        texts = [text for strategy in strategies for text in strategy.live]
        ranking = rank(logits, texts, most=max(strategy.wanted for strategy in strategies))
        rounds = []
        first = 0
        for strategy in strategies:
            count = len(strategy.live)
            strategy.grow(ranking, first)
            live = [text for beam in strategy.beams for text in beam.live]
            rounds.append(Round(live, [] if live else strategy.results(), accepted=[0] * count))
            first += count
        return rounds

    @property
    def wanted(self) -> int:
        """Tokens to rank for each hypothesis, so that the best of a beam are among them."""
        config = self._config
        size = config.beam_size // config.beam_groups
        # A token that other groups took falls behind others; of those that may not end yet, one more is looked at.
        most = 2 * size + (config.beam_size - size if config.diversity_penalty else 0)
        return max(most, len(self._special.ends) + 1) if self.lexicon is not None else most

    def grow(self, ranking: Ranking, first: int) -> None:
        """Replace the live hypotheses by their best continuations.

        Args:
            ranking: The tokens that may follow.
            first: Its row of the first live hypothesis.

        Raises:
            ConfigError: Bans leave nothing with which all phrases could be included.
        """
        taken: list[int] = []
        for beam in self.beams:
            before = len(beam.live)
            if beam.live:
                self._grow_beam(beam, ranking, first, taken)
            taken.extend(hypothesis.token_ids[-1] for hypothesis in beam.live)
            first += before
        if all(not beam.live or len(beam.live[0].token_ids) >= beam.max_tokens for beam in self.beams):
            # Those that live at the limit end as they are.
            for beam in self.beams:
                for hypothesis in beam.live:
                    hypothesis.finish_reason = "length"
                    beam.finish(hypothesis)
                beam.live = []

    def results(self) -> list[News]:
        """Return the best ``n`` texts, best first."""
        found = []
        for index, result in enumerate(best_of(self.beams, self._config.n)):
            done = replace(result.hypothesis.completion(), index=index, score=result.score)
            found.append(News(index, done.text, None, done))
        return found

    def _grow_beam(self, beam: Beam, ranking: Ranking, first: int, taken: Sequence[int]) -> None:
        """Grow one group; `taken` are the tokens of earlier groups."""
        banks: dict[int, list[Extension]] = {}
        for candidate in self._candidates(beam, ranking, first, taken):
            banks.setdefault(candidate.remaining, []).append(candidate)
        open_banks: list[list[tuple[Extension, StopState | None]]] = []
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
                f"No text can include all of must_include, {list(self._config.must_include)}: what is left of "
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

    def _lacks_texts(self, beam: Beam) -> bool:
        """Tell whether a beam that is done must go on, since several of its texts are the same."""
        n = self._config.n
        if n == 1 or len(self.beams) > 1:
            return False
        return len({text_of(result.hypothesis) for result in (*beam.ended, *beam.surplus)}) < n

    def _candidates(self, beam: Beam, ranking: Ranking, first: int, taken: Sequence[int]) -> list[Extension]:
        """Return the continuations to consider, best first."""
        penalty = self._config.diversity_penalty if taken else 0.0
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
            return [Extension(parent, i, -worth, total, raw) for worth, parent, i, total, raw in found[: 2 * beam.k]]
        return self._with_phrases(self.lexicon, beam, ranking, first, found, taken)

    def _with_phrases(
        self,
        lexicon: Lexicon,
        beam: Beam,
        ranking: Ranking,
        first: int,
        found: Sequence[tuple[float, int, int, float, float]],
        taken: Sequence[int],
    ) -> list[Extension]:
        """Consider each hypothesis' own best tokens and those for its phrases too; leave out what has no room."""
        penalty = self._config.diversity_penalty if taken else 0.0
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
            candidates.append(Extension(parent, token_id, -worth, total, raw, progress))
        left = beam.max_tokens - len(beam.live[0].token_ids) - 1
        return [candidate for candidate in candidates if candidate.remaining <= left] or candidates

    @staticmethod
    def _extended(
        before: Hypothesis,
        candidate: Extension,
        stops: StopState | None,
        reason: FinishReason | None,
        alternatives: tuple[tuple[int, float], ...],
    ) -> Hypothesis:
        text = before.fork(candidate.token_id, candidate.logprob)
        text.total, text.finish_reason = candidate.total, reason
        if text.guide is not None and not before.ends_with(candidate.token_id):
            text.guide = text.guide.after(candidate.token_id)
        text.progress, text.stops = candidate.progress, stops
        text.top_logprobs = [*before.top_logprobs, alternatives] if alternatives else []
        return text

    def _end_of(self, before: Hypothesis, token_id: int) -> tuple[StopState | None, FinishReason | None]:
        """Return what of stop strings the text ends with behind a token, and why it ends there, if it does."""
        if before.ends_with(token_id):
            return before.stops, "stop" if token_id in before.special.stops else "eos"
        if self._stops is None:
            return None, None
        stops, found = self._stops.after(before.stops, token_id)
        return stops, "stop" if found and len(before.token_ids) >= self._config.min_tokens else None

    def _may_end(self, ended: Hypothesis) -> bool:
        """Tell whether a hypothesis that has ended includes all that it must."""
        if self.lexicon is None:
            return True
        if ended.finish_reason == "stop":
            return self.lexicon.all_in(ended.completion().text)
        return ended.progress is None or not ended.progress.remaining
