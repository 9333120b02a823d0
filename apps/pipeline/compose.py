"""Texts that are written line by line: what a task asks for, as the engine's requests."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from nlpkit.apps.tasks.encoder import EncodedPrompt, PromptEncoder
from nlpkit.apps.tasks.task import Composes
from nlpkit.apps.text.verse.search import LINE_TOKENS, LineRequest, LineTry
from nlpkit.core.decode.config import DecodeConfig
from nlpkit.core.decode.constraint import Constraint
from nlpkit.core.decode.request import Request
from nlpkit.core.errors import ConfigError

if TYPE_CHECKING:
    from nlpkit.core.language_model import LanguageModel

FAVOUR = 3.0
"""Added to the logits of words that rhyme: about twenty times as likely, and still the model's choice among them."""
OTHER_WAYS = (
    *("beam_size", "must_include", "contrastive_alpha", "constraint"),
    *("logprobs", "stop", "min_tokens", "max_tokens"),
)
"""Decoding options of which each says how a text is written in one go, so that lines are not searched for."""


def may_compose(options: Mapping[str, Any]) -> bool:
    """Tell whether the options that a user gave leave the search for lines to us: it needs tries that differ."""
    return not any(options.get(name) for name in OTHER_WAYS) and options.get("temperature") != 0


@dataclass(frozen=True, kw_only=True)
class Composed:
    """What was written line by line.

    Attributes:
        texts: The texts with what they are worth, the best first; none where nothing was found.
        used_tokens: Tokens read, over all tries.
        output_tokens: Tokens written, over all tries.
        seconds: Wall time.
    """

    texts: tuple[tuple[str, float], ...]
    used_tokens: int
    output_tokens: int
    seconds: float


def compose(
    task: Composes[Any],
    example: Any,
    asked: EncodedPrompt,
    lm: LanguageModel,
    encoder: PromptEncoder,
    config: DecodeConfig,
    *,
    batch_tokens: int | None = None,
) -> Composed:
    """Write an example line by line, as often as texts are wanted.

    Args:
        task: The task.
        example: The example.
        asked: The prompt that lines are asked for with.
        lm: The model.
        encoder: Makes ids.
        config: How to sample; ``n`` texts are written, each from a seed of its own.
        batch_tokens: Token budget of the engine's batches; None lets the engine choose.

    Raises:
        NlpkitError: The model cannot write them.
    """
    began = time.perf_counter()
    lines = ModelLines(lm, encoder, asked, config, batch_tokens)
    seed = config.seed or 0
    try:
        found = [task.compose(example, lines, seed=seed + number) for number in range(config.n)]
    except ConfigError:
        # Tokenizers that lines cannot be constrained for; what else is wrong shows when it is written in one go.
        found = []
    return Composed(
        texts=tuple(sorted((one for one in found if one is not None), key=lambda one: -one[1])),
        used_tokens=lines.used_tokens,
        output_tokens=lines.output_tokens,
        seconds=time.perf_counter() - began,
    )


@dataclass
class ModelLines:
    """Asks a model for lines, each behind the prompt and the lines before it.

    Attributes:
        lm: The model.
        encoder: Makes ids.
        asked: The prompt.
        config: How to sample.
        batch_tokens: Token budget of the engine's batches; None lets the engine choose.
        used_tokens: Tokens read so far.
        output_tokens: Tokens written so far.
        common: Words that were looked up, with what came out.
    """

    lm: LanguageModel
    encoder: PromptEncoder
    asked: EncodedPrompt
    config: DecodeConfig
    batch_tokens: int | None = None
    used_tokens: int = 0
    output_tokens: int = 0
    common: dict[str, bool] = field(default_factory=dict)

    def write(self, requests: Sequence[LineRequest]) -> list[list[LineTry]]:
        """Return tries of lines, those of each request."""
        found: list[list[LineTry]] = [[] for _ in requests]
        asked = [self._request(one) for one in requests]
        for place, generation in self.lm.generate(asked, batch_tokens=self.batch_tokens):
            self.used_tokens += generation.prompt_tokens
            self.output_tokens += generation.completion_tokens
            found[place] = [
                LineTry(text=one.text, mean_logprob=one.mean_logprob, min_logprob=one.min_logprob)
                for one in generation.completions
                if one.finish_reason != "length"
            ]
        return found

    def is_common(self, word: str) -> bool:
        """Tell whether a word is one entry of the vocabulary, as common ones are."""
        if word not in self.common:
            self.common[word] = self.lm.count_tokens(f" {word}") == 1
        return self.common[word]

    def _request(self, one: LineRequest) -> Request:
        ids = list(self.asked.ids)
        if one.before:
            ids += self.encoder.target(self.asked, "\n".join(one.before) + "\n")
        favoured = {self.lm.tokenizer.encode(f" {word}")[0]: FAVOUR for word in one.favoured}
        config = self.config.replace(
            n=one.tries,
            seed=one.seed,
            max_tokens=min(LINE_TOKENS, max(1, self.lm.max_seq_len - len(ids))),
            stop=("\n",),
            constraint=Constraint.regex(one.pattern),
            logit_bias={**favoured, **self.config.logit_bias},
        )
        return Request(prompt_ids=tuple(ids), config=config)
