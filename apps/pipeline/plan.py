"""From one example to the engine's requests: decoding options, overflow, chunks."""

from __future__ import annotations

import secrets
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nlpkit.apps.tasks.encoder import PromptEncoder, Solved
from nlpkit.apps.tasks.task import Chunk, Learned, Overflow, Task, TaskDecoding, TextBudget, as_splits
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

    example: Any
    chunks: tuple[Chunk[Any], ...]
    requests: tuple[Request, ...]
    input_tokens: int
    truncated: bool = False
    warnings: tuple[str, ...] = ()


def build_decoding(task: Task[Any], overrides: Mapping[str, Any]) -> DecodeConfig:
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
    if changes.get("max_tokens") == 0:
        # The engine takes it; of a task it would be an empty result that looks like an answer.
        raise ConfigError("max_tokens is 0; it must be at least 1.")
    if isinstance(changes.get("stop"), (list, str)):
        changes["stop"] = (changes["stop"],) if isinstance(changes["stop"], str) else tuple(changes["stop"])
    if isinstance(changes.get("must_include"), (list, str)):
        words = changes["must_include"]
        changes["must_include"] = (words,) if isinstance(words, str) else tuple(words)
    if isinstance(changes.get("constraint"), Mapping):
        changes["constraint"] = Constraint.from_dict(changes["constraint"])
    if changes.get("must_include") and "beam_size" not in changes:
        changes["beam_size"] = max(PHRASE_BEAMS, task.options.beam_size, changes.get("n", 1))
    if changes.get("contrastive_alpha") and not changes.get("top_k", task.options.top_k):
        changes["top_k"] = CANDIDATES
    beams = changes.get("beam_size", 1)
    if (beams > 1 or changes.get("contrastive_alpha")) and "temperature" not in changes:
        changes |= {"temperature": 0.0}
    temperature = changes.get("temperature", task.options.temperature)
    if changes.get("n", 1) > 1 and temperature == 0 and "beam_size" not in changes:
        changes |= {"beam_size": changes["n"]}
    if "max_tokens" not in changes and changes.get("min_tokens", 0) > task.options.max_tokens:
        changes["max_tokens"] = changes["min_tokens"]
    return task.options.replace(**changes)


def add_task_options(decoding: DecodeConfig, wanted: TaskDecoding, *, user_options: Collection[str]) -> DecodeConfig:
    """Add the options that a task asks for by itself, where the user's leave room for them; not the limit.

    Args:
        decoding: Options from `build_decoding`.
        wanted: What `Task.decoding` returned.
        user_options: Names of the options that the user gave.
    """
    changes: dict[str, Any] = {}
    if wanted.no_repeat_ngram is not None:
        changes["no_repeat_ngram"] = wanted.no_repeat_ngram
    words = tuple(dict.fromkeys((*decoding.must_include, *wanted.must_include)))
    # Words are included by beam search, which other ways to decode rule out; then the result says what is missing.
    searches = decoding.temperature == 0 and not decoding.contrastive_alpha and decoding.constraint is None
    if words and searches and decoding.beam_groups == 1:
        changes |= {"must_include": words, "beam_size": max(PHRASE_BEAMS, decoding.beam_size)}
    elif searches and not {"beam_size", "n", "logprobs"}.intersection(user_options):
        changes |= {"beam_size": max(wanted.beam_size, decoding.beam_size)}
    return decoding.replace(**changes) if changes else decoding


def encoder_of(lm: LanguageModel, solved: Solved | None = None) -> PromptEncoder:
    """Return what makes the prompts that a model is asked with."""
    return PromptEncoder(lm.tokenizer, lm.chat, lm.learned_tasks, solved)


def learned_by(lm: LanguageModel) -> Learned:
    """Return what a model learned, for examples that it is asked about with a short prompt."""
    return Learned(lm.learned_options, lm.has_token)


@dataclass(frozen=True)
class Planner:
    """Plans the examples of one task on one model.

    Attributes:
        lm: The model.
        task: The task.
        encoder: Makes the prompts.
        decoding: Options from `build_decoding`.
        explicit_max_tokens: The user's own limit on the completion, or None for the task's.
        on_overflow: What to do with an input that does not fit.
        user_options: Names of the decoding options that the user gave.
    """

    lm: LanguageModel
    task: Task[Any]
    encoder: PromptEncoder
    decoding: DecodeConfig
    explicit_max_tokens: int | None
    on_overflow: Overflow
    user_options: frozenset[str] = frozenset()

    def plan(
        self, example: Any, *, learned: Learned | None, seed: int | None = None, on_overflow: Overflow | None = None
    ) -> Plan:
        """Plan one prepared example.

        Args:
            example: The example.
            learned: What the model learned, where it is asked with the short prompt; else None.
            seed: Seed of the sampler, where the user gave none; None draws one.
            on_overflow: Overrides the planner's own policy.

        Raises:
            ContextOverflowError: It does not fit and may not be cut, or nothing would be left of it.
        """
        policy = on_overflow or self.on_overflow
        whole = self.render(example)
        limit = self.max_prompt_tokens(example, learned)
        decoding = self._seeded(seed)
        warnings: tuple[str, ...] = ()
        truncated = False
        cut = example
        if len(whole) > limit:
            if policy == "error":
                raise ContextOverflowError(self._overflow_message(len(whole), limit))
            if policy == "truncate":
                cut, kept = self._truncate(example, limit)
                truncated = True
                total = self.lm.count_tokens(self.task.text(example))
                warnings = (f"the {self.task.text_field} was cut to its first {kept} of {total} tokens",)
        chunks, prompts = self._split(cut, limit, learned, whole=None if truncated else whole)
        requests = tuple(
            Request(prompt_ids=tuple(prompt), config=self._configure(decoding, chunk.example, learned, len(prompt)))
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

    def render(self, example: Any) -> list[int]:
        """Return the token ids of an example's prompt."""
        return self.encoder.prompt(self.task, example)

    def max_prompt_tokens(self, example: Any, learned: Learned | None) -> int:
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
        wanted = self.task.decoding(example, learned=learned)
        low, high = 1, context - 1
        while low < high:
            middle = (low + high + 1) // 2
            if middle + self._default_max_tokens(wanted, middle) <= context:
                low = middle
            else:
                high = middle - 1
        return low

    def _default_max_tokens(self, wanted: TaskDecoding, prompt_tokens: int) -> int:
        # In a small context a task's generous default must not crowd out the prompt.
        limit = min(wanted.limit(prompt_tokens), 2 * self.lm.max_seq_len // 3)
        return max(1, limit, self.decoding.min_tokens)

    def _configure(
        self, decoding: DecodeConfig, example: Any, learned: Learned | None, prompt_tokens: int
    ) -> DecodeConfig:
        wanted = self.task.decoding(example, learned=learned)
        decoding = add_task_options(decoding, wanted, user_options=self.user_options)
        room = self.lm.max_seq_len - prompt_tokens
        if self.explicit_max_tokens is not None:
            return decoding
        limit = self._default_max_tokens(wanted, prompt_tokens)
        return decoding.replace(max_tokens=max(min(limit, room), decoding.min_tokens))

    def _seeded(self, seed: int | None) -> DecodeConfig:
        # One seed for all chunks, drawn here, so that the one reported seed reproduces the whole example.
        if self.decoding.temperature > 0 and self.decoding.seed is None:
            return self.decoding.replace(seed=secrets.randbits(31) if seed is None else seed)
        return self.decoding

    def _overhead(self, example: Any) -> int:
        return len(self.render(self.task.with_text(example, "")))

    def _split(
        self, example: Any, limit: int, learned: Learned | None, *, whole: list[int] | None
    ) -> tuple[list[Chunk[Any]], list[list[int]]]:
        """Return the parts of an example and their prompts; `whole` is the prompt of all of it, where it is known."""
        overhead = self._overhead(example)
        splits = as_splits(self.task)
        longest = 0
        for attempt in range(SPLIT_ATTEMPTS):
            budget = TextBudget(
                count_tokens=self.lm.count_tokens,
                max_prompt_tokens=max(1, limit - (attempt * (limit - overhead)) // (2 * SPLIT_ATTEMPTS)),
                overhead=overhead,
            )
            chunks = [Chunk(example)] if splits is None else splits.split(example, budget, learned=learned)
            if whole is not None and len(chunks) == 1 and chunks[0].example is example:
                prompts = [whole]
            else:
                prompts = [self.render(chunk.example) for chunk in chunks]
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

    def _truncate(self, example: Any, limit: int) -> tuple[Any, int]:
        text = self.task.text(example)
        room = limit - self._overhead(example)
        for _ in range(SPLIT_ATTEMPTS):
            if room < 1:
                break
            kept = cut_to_fit(text, room, self.lm.count_tokens)
            cut = self.task.with_text(example, kept)
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
        if default_overflow(self.task) == "chunk":
            fixes = ("--on-overflow chunk to read it in pieces", *fixes)
        return (
            f"The input is too long: its prompt has {measured} tokens, and {limit} fit beside the completion in the "
            f"context of {self.lm.name} ({self.lm.max_seq_len} tokens). Use {', or '.join(fixes)}."
        )


def default_overflow(task: Task[Any]) -> Overflow:
    """Return what happens to inputs that do not fit, unless the user says otherwise."""
    splits = as_splits(task)
    return "error" if splits is None else splits.on_overflow


def explicit_limit(overrides: Mapping[str, Any]) -> int | None:
    """Return the user's own `max_tokens`, or None.

    Raises:
        ConfigError: It is no whole number.
    """
    value = overrides.get("max_tokens")
    if value is not None and (not isinstance(value, int) or isinstance(value, bool)):
        raise ConfigError(f"max_tokens is {value!r}; it must be a whole number.")
    return value
