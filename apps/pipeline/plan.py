"""From one example to the engine's requests: decoding options, overflow, chunks."""

from __future__ import annotations

import secrets
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nlpkit.apps.tasks.encoder import PromptEncoder
from nlpkit.apps.tasks.task import Budget, Example, Overflow, Task
from nlpkit.apps.text.chunking import cut_to_fit
from nlpkit.core.decode.config import DecodeConfig
from nlpkit.core.decode.constraint import Constraint
from nlpkit.core.decode.request import Request
from nlpkit.core.errors import ConfigError, ContextOverflowError

if TYPE_CHECKING:
    from nlpkit.core.language_model import LanguageModel

PHRASE_BEAMS = 8
"""Beams for words that must occur, where no number is given."""

CANDIDATES = 5
"""Candidates of contrastive search, where no number is given."""

SPLIT_ATTEMPTS = 6
"""How often a split is repeated with a smaller budget: token counts of parts do not quite add up."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to ask the model about one example.

    Attributes:
        example: The example, cut if it had to be.
        chunks: The example, or its parts.
        requests: One request a chunk.
        input_tokens: Tokens of the whole prompt before any cut.
        truncated: Whether text was cut off.
        warnings: What a user should know.
    """

    example: Example
    chunks: tuple[Example, ...]
    requests: tuple[Request, ...]
    input_tokens: int
    truncated: bool = False
    warnings: tuple[str, ...] = ()


def build_decoding(task: Task, overrides: Mapping[str, Any]) -> DecodeConfig:
    """Combine a task's decoding options with the user's.

    Asking for several completions of a task that does not sample means beam search, and so does asking for words that
    must occur; asking for beam or contrastive search of one that does means not to sample. Lists stand for tuples,
    and an object with ``kind`` and ``text`` for a constraint.

    Args:
        task: The task.
        overrides: `DecodeConfig` fields that the user set; None values count as not set.

    Raises:
        ConfigError: An option is unknown, out of range, or contradicts another one.
    """
    changes = {name: value for name, value in overrides.items() if value is not None}
    if isinstance(changes.get("stop"), (list, str)):
        changes["stop"] = (changes["stop"],) if isinstance(changes["stop"], str) else tuple(changes["stop"])
    if isinstance(changes.get("must_include"), (list, str)):
        words = changes["must_include"]
        changes["must_include"] = (words,) if isinstance(words, str) else tuple(words)
    if isinstance(changes.get("constraint"), Mapping):
        changes["constraint"] = Constraint.from_dict(changes["constraint"])
    if changes.get("must_include") and "beam_size" not in changes:
        changes["beam_size"] = max(PHRASE_BEAMS, task.decoding.beam_size, changes.get("n", 1))
    if changes.get("contrastive_alpha") and not changes.get("top_k", task.decoding.top_k):
        changes["top_k"] = CANDIDATES
    beams = changes.get("beam_size", 1)
    if (beams > 1 or changes.get("contrastive_alpha")) and "temperature" not in changes:
        changes |= {"temperature": 0.0}
    temperature = changes.get("temperature", task.decoding.temperature)
    if changes.get("n", 1) > 1 and temperature == 0 and "beam_size" not in changes:
        changes |= {"beam_size": changes["n"]}
    if "max_tokens" not in changes and changes.get("min_tokens", 0) > task.decoding.max_tokens:
        changes["max_tokens"] = changes["min_tokens"]
    return task.decoding.replace(**changes)


def with_wishes(decoding: DecodeConfig, wishes: Mapping[str, Any], *, given: Collection[str]) -> DecodeConfig:
    """Add the options that a task asks for by itself, where the user's leave room for them.

    Args:
        decoding: Options from `build_decoding`.
        wishes: What `Task.options` returned.
        given: Names of the options that the user gave.
    """
    changes = dict(wishes)
    words = tuple(dict.fromkeys((*decoding.must_include, *changes.pop("must_include", ()))))
    # Words are included by beam search, which other ways to decode rule out; then the result says what is missing.
    searches = decoding.temperature == 0 and not decoding.contrastive_alpha and decoding.constraint is None
    beams = changes.pop("beam_size", 1)
    if words and searches and decoding.beam_groups == 1:
        changes |= {"must_include": words, "beam_size": max(PHRASE_BEAMS, decoding.beam_size)}
    elif searches and not {"beam_size", "n", "logprobs"}.intersection(given):
        changes |= {"beam_size": max(beams, decoding.beam_size)}
    return decoding.replace(**changes) if changes else decoding


def encoder_of(lm: LanguageModel) -> PromptEncoder:
    """Return what makes the prompts that a model is asked with."""
    return PromptEncoder(lm.tokenizer, lm.chat, lm.brief_tasks)


@dataclass(frozen=True)
class Planner:
    """Plans the examples of one task on one model.

    Attributes:
        lm: The model.
        task: The task.
        decoding: Options from `build_decoding`.
        explicit_max_tokens: The user's own limit on the completion, or None for the task's.
        on_overflow: What to do with an input that does not fit.
        given: Names of the decoding options that the user gave.
    """

    lm: LanguageModel
    task: Task
    decoding: DecodeConfig
    explicit_max_tokens: int | None
    on_overflow: Overflow
    given: frozenset[str] = frozenset()

    def plan(self, example: Example, *, on_overflow: Overflow | None = None) -> Plan:
        """Plan one prepared example.

        Args:
            example: The example.
            on_overflow: Overrides the planner's own policy.

        Raises:
            ContextOverflowError: It does not fit and may not be cut, or nothing would be left of it.
        """
        policy = on_overflow or self.on_overflow
        whole = self.render(example)
        limit = self.max_prompt_tokens(example)
        decoding = self._seeded(example)
        warnings: tuple[str, ...] = ()
        truncated = False
        cut = example
        if len(whole) > limit:
            if policy == "error":
                raise ContextOverflowError(self._overflow_message(len(whole), limit))
            if policy == "truncate":
                cut, kept = self._truncate(example, limit)
                truncated = True
                total = self.lm.count_tokens(str(example[self.task.text_field]))
                warnings = (f"the {self.task.text_field} was cut to its first {kept} of {total} tokens",)
        chunks, prompts = self._split(cut, limit, whole=None if truncated else whole)
        requests = tuple(
            Request(prompt_ids=tuple(prompt), config=self._configure(decoding, chunk, len(prompt)))
            for chunk, prompt in zip(chunks, prompts, strict=True)
        )
        return Plan(
            example=cut,
            chunks=tuple(chunks),
            requests=requests,
            input_tokens=len(whole),
            truncated=truncated,
            warnings=warnings,
        )

    def render(self, example: Example) -> list[int]:
        """Return the token ids of an example's prompt."""
        return encoder_of(self.lm).prompt(self.task, example)

    def max_prompt_tokens(self, example: Example) -> int:
        """Return the longest prompt that leaves room for the completion.

        Raises:
            ContextOverflowError: The completion's limit alone fills the context.
        """
        context = self.lm.max_seq_len
        if self.explicit_max_tokens is not None:
            if self.explicit_max_tokens >= context:
                raise ContextOverflowError(
                    f"The limit of {self.explicit_max_tokens} tokens for the completion leaves no room for a prompt: "
                    f"the context of {self.lm.name} has {context} tokens. Lower --max-tokens."
                )
            return context - self.explicit_max_tokens
        low, high = 1, context - 1
        while low < high:
            middle = (low + high + 1) // 2
            if middle + self._default_max_tokens(example, middle) <= context:
                low = middle
            else:
                high = middle - 1
        return low

    def _default_max_tokens(self, example: Example, prompt_tokens: int) -> int:
        # In a small context a task's generous default must not crowd out the prompt.
        wanted = min(self.task.max_tokens(example, prompt_tokens), 2 * self.lm.max_seq_len // 3)
        return max(1, wanted, self.decoding.min_tokens)

    def _configure(self, decoding: DecodeConfig, chunk: Example, prompt_tokens: int) -> DecodeConfig:
        decoding = with_wishes(decoding, self.task.options(chunk), given=self.given)
        room = self.lm.max_seq_len - prompt_tokens
        if self.explicit_max_tokens is not None:
            return decoding
        wanted = self._default_max_tokens(chunk, prompt_tokens)
        return decoding.replace(max_tokens=max(min(wanted, room), decoding.min_tokens))

    def _seeded(self, example: Example) -> DecodeConfig:
        # One seed for all chunks, drawn here, so that the one reported seed reproduces the whole example.
        if self.decoding.temperature > 0 and self.decoding.seed is None:
            own = example.get("_seed")
            return self.decoding.replace(seed=own if isinstance(own, int) else secrets.randbits(31))
        return self.decoding

    def _overhead(self, example: Example) -> int:
        return len(self.render({**example, self.task.text_field: ""}))

    def _split(self, example: Example, limit: int, *, whole: list[int] | None) -> tuple[list[Example], list[list[int]]]:
        """Return the parts of an example and their prompts; `whole` is the prompt of all of it, where it is known."""
        overhead = self._overhead(example)
        longest = 0
        for attempt in range(SPLIT_ATTEMPTS):
            budget = Budget(
                count_tokens=self.lm.count_tokens,
                max_prompt_tokens=max(1, limit - (attempt * (limit - overhead)) // (2 * SPLIT_ATTEMPTS)),
                overhead=overhead,
            )
            chunks = self.task.split(example, budget)
            if whole is not None and len(chunks) == 1 and chunks[0] is example:
                prompts = [whole]
            else:
                prompts = [self.render(chunk) for chunk in chunks]
            longest = max(map(len, prompts), default=0)
            if longest <= limit:
                return chunks, prompts
            if overhead >= limit:
                break
        raise ContextOverflowError(
            f"The prompt for {self.task.name} does not fit even in pieces: a piece takes {longest} tokens, "
            f"{overhead} of them around the {self.task.text_field}, and {limit} fit beside the completion in the "
            f"context of {self.lm.name} ({self.lm.max_seq_len} tokens). Shorten the other texts of the prompt, lower "
            "--max-tokens, or use a model with a longer context."
        )

    def _truncate(self, example: Example, limit: int) -> tuple[Example, int]:
        text = str(example[self.task.text_field])
        room = limit - self._overhead(example)
        for _ in range(SPLIT_ATTEMPTS):
            if room < 1:
                break
            kept = cut_to_fit(text, room, self.lm.count_tokens)
            cut = {**example, self.task.text_field: kept}
            excess = len(self.render(cut)) - limit
            if kept and excess <= 0:
                return cut, self.lm.count_tokens(kept)
            room -= max(1, excess)
        raise ContextOverflowError(
            f"Nothing of the {self.task.text_field} would be left after cutting it to fit: the prompt around it "
            f"takes {self._overhead(example)} of {limit} tokens. Shorten the other texts of the prompt or lower "
            "--max-tokens."
        )

    def _overflow_message(self, measured: int, limit: int) -> str:
        fixes: Sequence[str] = ("--on-overflow truncate to cut it",)
        if self.task.on_overflow == "chunk":
            fixes = ("--on-overflow chunk to read it in pieces", *fixes)
        return (
            f"The input is too long: its prompt has {measured} tokens, and {limit} fit beside the completion in the "
            f"context of {self.lm.name} ({self.lm.max_seq_len} tokens). Use {', or '.join(fixes)}."
        )


def explicit_limit(overrides: Mapping[str, Any]) -> int | None:
    """Return the user's own `max_tokens`, or None.

    Raises:
        ConfigError: It is no whole number.
    """
    value = overrides.get("max_tokens")
    if value is not None and (not isinstance(value, int) or isinstance(value, bool)):
        raise ConfigError(f"max_tokens is {value!r}; it must be a whole number.")
    return value
