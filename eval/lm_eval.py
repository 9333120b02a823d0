"""Lets `lm-eval` (EleutherAI's lm-evaluation-harness) score a model of ours in process.

Usage::

    import lm_eval
    from nlpkit.eval.lm_eval import NlpkitLM

    results = lm_eval.simple_evaluate(model=NlpkitLM("default"), tasks=["hellaswag"])

On its command line the model is called ``nlpkit`` once this module is imported. Texts are tokenized, split into windows
and truncated by the rules of its own ``hf`` model, so that numbers can be compared with those that it gives.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nlpkit.core.chat.message import Message
from nlpkit.core.decode.config import DecodeConfig
from nlpkit.core.decode.request import Request
from nlpkit.core.errors import ConfigError, InputError
from nlpkit.core.load import load_model

try:
    from lm_eval.api.model import LM
    from lm_eval.api.registry import register_model
except ImportError as error:
    raise ConfigError(
        "The package lm-eval, which this adapter is for, is not installed. Install it with: pip install "
        "'nlpkit[lm-eval]'."
    ) from error

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance

    from nlpkit.core.language_model import LanguageModel

BATCH = 512
"""Requests handed to the engine at once; it batches them by tokens itself."""

MAX_GEN_TOKENS = 256
"""Limit of completions for which the harness gives none, as in its own models."""

_LIMITS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
_SAMPLING = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty", "seed")
_IGNORED = frozenset({"do_sample", "until", *_LIMITS, *_SAMPLING})


@register_model("nlpkit")
class NlpkitLM(LM):  # type: ignore[misc,unused-ignore]
    """A `LanguageModel` as the harness wants it."""

    def __init__(
        self,
        model: LanguageModel | str = "default",
        *,
        adapter: str | None = None,
        dtype: str = "auto",
        device: str | None = None,
        batch_size: int | str | None = None,
        max_batch_size: int | None = None,
    ) -> None:
        """Wrap a model, or load one.

        Args:
            model: The model, or what `load_model` takes.
            adapter: LoRA adapter, for a model that is loaded here.
            dtype: Number format, for a model that is loaded here.
            device: Device, for a model that is loaded here.
            batch_size: Not used: the engine batches by tokens. The harness passes it to every model.
            max_batch_size: Not used, likewise.
        """
        super().__init__()
        if isinstance(model, str):
            model = load_model(model, adapter=adapter, dtype=dtype, device=device or "auto")
        self.lm = model

    @property
    def tokenizer_name(self) -> str:
        """What the harness keys its request cache by."""
        return f"nlpkit-{self.lm.tokenizer.fingerprint[:16]}"

    @property
    def prefix_id(self) -> int:
        """The token that stands before texts without a context: beginning of sequence, else end of sequence.

        Raises:
            ConfigError: The tokenizer has neither.
        """
        tokenizer = self.lm.tokenizer
        if tokenizer.bos_id is not None:
            return tokenizer.bos_id
        if not tokenizer.eos_ids:
            raise ConfigError(f"The tokenizer of {self.lm.name} has neither BOS nor EOS to begin a text with.")
        stated: int | None = getattr(tokenizer, "eos_id", None)
        return min(tokenizer.eos_ids) if stated is None else stated

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """Score continuations after contexts.

        Args:
            requests: Each with the arguments ``(context, continuation)``; an empty context is the prefix token.
            disable_tqdm: Not used: no bar is shown.

        Returns:
            Log-probability in nats, and whether greedy decoding would write the continuation.
        """
        pairs = [self.encode_pair(*request.args) for request in requests]
        results = []
        for request, result in zip(requests, self._score(pairs), strict=True):
            results.append(result)
            self.cache_hook.add_partial("loglikelihood", request.args, result)
        return results

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """Score whole texts, however long: each token once, with as much context as fits.

        Args:
            requests: Each with the arguments ``(text,)``.
            disable_tqdm: Not used: no bar is shown.

        Returns:
            Log-probability of each text in nats.
        """
        totals = []
        for request in requests:
            ids = self.encode(request.args[0])
            windows = list(rolling_windows(ids, self.prefix_id, self.lm.max_seq_len))
            total = sum(logprob for logprob, _ in self._score(windows))
            totals.append(total)
            self.cache_hook.add_partial("loglikelihood_rolling", request.args, total)
        return totals

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Complete prompts until a stop string, an end-of-sequence token or the limit.

        Contexts that leave no room for the completion lose their beginning, as in the harness' own models.

        Args:
            requests: Each with the arguments ``(context, generation options)``.
            disable_tqdm: Not used: no bar is shown.

        Returns:
            The completions, without the stop string.

        Raises:
            ConfigError: An option has no counterpart here.
        """
        jobs = []
        for request in requests:
            context, options = request.args
            config = self.decode_config(options)
            room = self.lm.max_seq_len - config.max_tokens
            if room < 1:
                raise ConfigError(
                    f"The harness asks for {config.max_tokens} tokens, and the context of {self.lm.name} holds "
                    f"{self.lm.max_seq_len} in all. Lower max_gen_toks."
                )
            ids = (self.encode(context) or [self.prefix_id])[-room:]
            jobs.append(Request(prompt_ids=tuple(ids), config=config))
        texts = [""] * len(jobs)
        for start in range(0, len(jobs), BATCH):
            for place, generation in self.lm.generate(jobs[start : start + BATCH]):
                texts[start + place] = generation.completions[0].text
        for request, text in zip(requests, texts, strict=True):
            self.cache_hook.add_partial("generate_until", request.args, text)
        return texts

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """Render a conversation as text; special tokens are spelled out, and read as such by `encode`.

        Raises:
            ConfigError: The model has no chat template.
        """
        if self.lm.chat is None:
            raise ConfigError(f"{self.lm.name} has no chat template. Run the harness without --apply_chat_template.")
        messages = [Message(turn["role"], turn["content"]) for turn in chat_history]
        return self.lm.chat.render(messages, add_generation_prompt=add_generation_prompt)

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        """Name the chat template for the harness' record."""
        return self.lm.chat.fingerprint if chat_template and self.lm.chat is not None else ""

    def encode(self, text: str) -> list[int]:
        """Tokenize a text as the harness' own models do: special tokens that it spells out are special.

        That is how rendered conversations come in. The beginning-of-sequence token goes in front where the tokenizer
        uses one and the text does not begin with it already.
        """
        ids = self.lm.tokenizer.encode(text, parse_special=True)
        begins = bool(ids) and ids[0] == self.lm.tokenizer.bos_id
        if getattr(self.lm.tokenizer, "adds_bos", False) and not begins and self.lm.tokenizer.bos_id is not None:
            return [self.lm.tokenizer.bos_id, *ids]
        return ids

    def encode_pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        """Tokenize a pair as the harness does: together, then cut where the context alone ends.

        Spaces at the end of the context go to the continuation, where tokenizers want them. A pair that is too long
        loses the beginning of its context.

        Args:
            context: May be empty.
            continuation: What is scored.

        Returns:
            Ids of both; each has at least one.

        Raises:
            InputError: There is nothing to score.
        """
        stated = continuation
        if not context:
            whole = self.lm.tokenizer.encode(continuation, parse_special=True)
            left, right = [self.prefix_id], whole
            if whole and whole[0] == self.prefix_id:
                left, right = whole[:1], whole[1:]
        else:
            stripped = context.rstrip()
            continuation, context = context[len(stripped) :] + continuation, stripped
            left = self.encode(context) if context else []
            whole = self.encode(context + continuation)
            right = whole[len(left) :]
            if right:
                left = whole[: len(left)]
            else:
                # It merges with its context ("th" and "e"): nothing would be scored, and win every choice.
                right = self.lm.tokenizer.encode(continuation, parse_special=True, at_start=not left)
            left = left or [self.prefix_id]
        if not right:
            raise InputError(
                f"The harness asks for the likelihood of {stated[:40]!r}, which has no tokens. Take the request out."
            )
        # The last token is only predicted, never read.
        excess = len(left) + len(right) - 1 - self.lm.max_seq_len
        if excess > 0:
            whole = [*left, *right][excess:]
            cut = max(1, len(left) - excess)
            left, right = whole[:cut], whole[cut:]
        return left, right

    def decode_config(self, options: Mapping[str, Any]) -> DecodeConfig:
        """Translate the harness' generation options.

        Raises:
            ConfigError: One has no counterpart here.
        """
        unknown = sorted(set(options) - _IGNORED)
        if unknown:
            raise ConfigError(f"The generation option {unknown[0]!r} of the harness has no counterpart in nlpkit.")
        until = options.get("until") or []
        stops = [until] if isinstance(until, str) else list(until)
        given = {name: options[name] for name in _SAMPLING if options.get(name) is not None}
        if not options.get("do_sample", float(given.get("temperature", 0.0)) > 0):
            given["temperature"] = 0.0
        elif "temperature" not in given:
            given["temperature"] = 1.0
        limit = next((options[name] for name in _LIMITS if options.get(name) is not None), MAX_GEN_TOKENS)
        return DecodeConfig(max_tokens=int(limit), stop=tuple(stop for stop in stops if stop), **given)

    def _score(self, pairs: Sequence[tuple[Sequence[int], Sequence[int]]]) -> Iterator[tuple[float, bool]]:
        for start in range(0, len(pairs), BATCH):
            for score in self.lm.score(pairs[start : start + BATCH]):
                yield score.logprob, score.is_greedy


def rolling_windows(ids: Sequence[int], prefix: int, size: int) -> Iterator[tuple[list[int], list[int]]]:
    """Cut a text into windows that predict each token once, the last one with a full context.

    Args:
        ids: The text.
        prefix: Token before the first.
        size: The model's context, in tokens read.

    Yields:
        Context and the tokens to predict after it; together one more than `size` at most.
    """
    if not ids:
        return
    first = min(size, len(ids))
    yield [prefix], list(ids[:first])
    done = first
    while done < len(ids):
        end = min(done + size, len(ids))
        # What was predicted before is context now; the window's last token is not read.
        begin = end - size - 1
        yield list(ids[begin:done]), list(ids[done:end])
        done = end
