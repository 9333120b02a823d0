"""What a strategy is: it decides how the texts of one request go on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch

if TYPE_CHECKING:
    from torch import Tensor

    from nlpkit.core.decode.hypothesis import Hypothesis
    from nlpkit.core.decode.request import Completion


@dataclass(slots=True)
class News:
    """What is certain now of one of a request's texts.

    Attributes:
        index: Which of the request's completions.
        text: Text that is final now.
        token_id: The new token; None where there is not one.
        completion: The whole completion, when it is finished.
        logprob: The new token's log-probability under the model's own distribution, in nats; None where there is no
            new token.
        alternatives: The likeliest tokens at its place and their log-probabilities, where the request wants them.
    """

    index: int
    text: str
    token_id: int | None
    completion: Completion | None
    logprob: float | None = None
    alternatives: tuple[tuple[int, float], ...] = ()


@dataclass
class Round:
    """What became of a request in one pass.

    Attributes:
        live: The texts that go on, each with the slot of the text that it goes on from and a new last token.
        news: What is certain now.
        accepted: For each text before the pass, how many of the tokens guessed for it came true.
        ended: Texts that ended, and whose slots hold them to the end.
        moved: Whether `live` are other texts than before the pass.
    """

    live: list[Hypothesis]
    news: list[News]
    accepted: list[int]
    ended: Sequence[Hypothesis] = ()
    moved: bool = True


class Strategy(Protocol):
    """Decides how the texts of one request go on.

    Attributes:
        live: Its texts, one at least until it is done. While the prompt is computed they have no tokens; after that, a
            pass computes the newest token of each.
        forks: Whether texts may go on in several ways, or in none, at any step; else each keeps to its slot.
        wants_hidden: Whether it needs hidden states, of the prompt too.
    """

    live: list[Hypothesis]
    forks: bool
    wants_hidden: bool

    @property
    def width(self) -> int:
        """Most slots that it holds from now on."""
        ...

    @staticmethod
    def advance(
        strategies: Sequence[Any],
        logits: Tensor,
        hidden: Sequence[Tensor] | None,
        guesses: Sequence[Sequence[int]] | None,
    ) -> list[Round]:
        """Let all requests of this kind choose, together because that takes few operations.

        What each does depends on its own rows alone.

        Args:
            strategies: Of this class.
            logits: fp32, a row for each live text, or, where there are guesses, one more for each of them; shape
                ``(rows, vocab_size)``. Behind a prompt, all texts of a request have the same.
            hidden: For each live text the hidden states of its tokens of this pass, shape ``(tokens, d_model)``; behind
                a prompt, of all its tokens. None unless it is wanted.
            guesses: For each live text the tokens that were guessed to follow its newest; None is none.

        Returns:
            A round for each.

        Raises:
            ConfigError: Bans, constraints and filters leave no token.
        """
        ...


def advance(
    strategies: Sequence[Strategy],
    logits: Tensor,
    hidden: Sequence[Tensor] | None,
    guesses: Sequence[Sequence[int]] | None,
) -> list[Round]:
    """Let requests of any kinds choose; the arguments are those of `Strategy.advance`."""
    kinds = list(dict.fromkeys(type(strategy) for strategy in strategies))
    if len(kinds) == 1:
        return kinds[0].advance(strategies, logits, hidden, guesses)
    texts: list[range] = []
    rows: list[range] = []
    n_texts = n_rows = 0
    for strategy in strategies:
        count = len(strategy.live)
        size = count if guesses is None else count + sum(map(len, guesses[n_texts : n_texts + count]))
        texts.append(range(n_texts, n_texts + count))
        rows.append(range(n_rows, n_rows + size))
        n_texts, n_rows = n_texts + count, n_rows + size
    rounds: dict[int, Round] = {}
    for kind in kinds:
        members = [number for number, strategy in enumerate(strategies) if type(strategy) is kind]
        at = torch.tensor([row for number in members for row in rows[number]], device=logits.device)
        own = [text for number in members for text in texts[number]]
        found = kind.advance(
            [strategies[number] for number in members],
            logits[at],
            None if hidden is None else [hidden[text] for text in own],
            None if guesses is None else [guesses[text] for text in own],
        )
        rounds.update(zip(members, found, strict=True))
    return [rounds[number] for number in range(len(strategies))]
