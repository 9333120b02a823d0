"""LongRoPE and dynamic scaling: each sequence as alone and as `transformers` computes it, on both sides of the border."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
import transformers

from nlpkit.core.decode.config import DecodeConfig
from nlpkit.core.decode.engine import Engine
from nlpkit.core.decode.request import Request
from nlpkit.core.errors import ConfigError
from nlpkit.core.formats.build import build_model
from nlpkit.core.formats.families import config_from_hf
from nlpkit.core.formats.weight_names import KeyMap
from nlpkit.core.language_model import LanguageModel, ModelFacts
from nlpkit.core.model.cache import KVCache
from nlpkit.core.model.gpt import GPT
from nlpkit.core.model.rope import sequence_lengths
from nlpkit.core.runners.gpt import GPTRunner

pytestmark = pytest.mark.parity

BORDER = 40
SIZES: dict[str, Any] = {
    "vocab_size": 97,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
LONG = {
    "rope_type": "longrope",
    "rope_theta": 1e4,
    "short_factor": [1.0, 1.1, 1.2, 1.3],
    "long_factor": [2.0, 3.0, 4.0, 5.0],
    "original_max_position_embeddings": BORDER,
}
DYNAMIC = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 8.0}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "phi3_longrope": (
        "Phi3",
        {"rope_parameters": LONG, "max_position_embeddings": 320, "original_max_position_embeddings": BORDER},
    ),
    "llama_dynamic": ("Llama", {"rope_parameters": DYNAMIC, "max_position_embeddings": BORDER}),
}


class Numbers:
    """A tokenizer of ids alone."""

    vocab_size, bos_id, adds_bos, eos_ids, fingerprint = 97, None, False, frozenset({2}), "numbers"

    def encode(
        self, text: str, *, add_bos: bool = False, parse_special: bool = False, at_start: bool = True
    ) -> list[int]:
        return [int(word) for word in text.split()]

    def token_bytes(self, token_id: int) -> bytes:
        return b"%d " % token_id

    def decode(self, ids: Sequence[int], *, skip_special: bool = True) -> str:
        return "".join(f"{i} " for i in ids)

    def token_to_id(self, token: str) -> int | None:
        return None


def make(case: str) -> tuple[GPT, transformers.PreTrainedModel]:
    kind, options = CASES[case]
    torch.manual_seed(0)
    reference = getattr(transformers, kind + "ForCausalLM")._from_config(
        getattr(transformers, kind + "Config")(**SIZES, **options), attn_implementation="eager", dtype=torch.float32
    )
    with torch.no_grad():
        for parameter in reference.parameters():
            if parameter.dim() > 1:
                parameter.mul_(6.0)
    config = config_from_hf(reference.config.to_dict())
    keymap = KeyMap(config)
    tensors = ((ours, value) for name, tensor in reference.state_dict().items() for ours, value in keymap.to_internal(name, tensor))  # fmt: skip
    return build_model(config, tensors, where="the test"), reference.eval()


@pytest.fixture(params=CASES)
def pair(request: pytest.FixtureRequest) -> tuple[GPT, transformers.PreTrainedModel]:
    return make(request.param)


def ids(count: int, seed: int) -> tuple[int, ...]:
    return tuple(torch.randint(3, 97, (count,), generator=torch.Generator().manual_seed(seed)).tolist())


def engine(model: GPT) -> Engine:
    return Engine(lambda: GPTRunner(model), Numbers())


def texts(engine: Engine, *prompts: tuple[int, ...], batch_tokens: int = 10**6, **options: Any) -> list[list[int]]:
    options = {"max_tokens": 12, **options}
    requests = [Request(prompt_ids=prompt, config=DecodeConfig(**options)) for prompt in prompts]
    found = dict(engine.generate(requests, batch_tokens=batch_tokens))
    return [list(done.token_ids) for number in range(len(prompts)) for done in found[number].completions]


def expected(case: str, prompt: tuple[int, ...], **options: Any) -> list[int]:
    # A new model each time: transformers' dynamic scaling remembers the longest sequence that it has seen.
    reference = make(case)[1]
    out = reference.generate(torch.tensor([prompt]), max_new_tokens=12, do_sample=False, **options)
    return list(out[0, len(prompt) :].tolist())


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("n_prompt", [20, BORDER - 5, BORDER - 1, BORDER, BORDER + 1, 70])
def test_texts_agree_alone_and_beside_others(case: str, n_prompt: int) -> None:
    model, prompt = make(case)[0], ids(n_prompt, n_prompt)
    right = expected(case, prompt)
    assert texts(engine(model), prompt) == [right]
    assert texts(engine(model), ids(11, 1), prompt, ids(75, 2))[1] == right
    # Beams and several completions hold copies of the prompt's row.
    assert texts(engine(model), prompt, ids(75, 2), beam_size=2)[0] == texts(engine(model), prompt, beam_size=2)[0]
    assert texts(engine(model), prompt, n=2, temperature=1e-9, seed=1) == [right, right]


@pytest.mark.parametrize("case", CASES)
def test_prompts_of_several_passes_agree(case: str) -> None:
    model, prompt = make(case)[0], ids(250, 3)
    right = expected(case, prompt)
    assert texts(Engine(lambda: GPTRunner(model, prefill_chunk=16), Numbers()), prompt, ids(9, 1))[0] == right
    # A scheduler that computes prompts between the steps of running texts, in small pieces.
    scheduler = engine(model).new_scheduler(chunk=16)
    scheduler.submit(Request(prompt_ids=ids(9, 1), config=DecodeConfig(max_tokens=12)))
    scheduler.step()
    ticket = scheduler.submit(Request(prompt_ids=prompt, config=DecodeConfig(max_tokens=12)))
    done = [e.completion for _ in range(200) for e in scheduler.step() if e.ticket == ticket and e.completion]
    assert list(done[0].token_ids) == right


def test_prefixes_are_kept_on_their_side_of_the_border(pair: tuple[GPT, transformers.PreTrainedModel]) -> None:
    model, _ = pair
    short, rest, other = ids(30, 4), ids(60, 5), ids(5, 6)
    warm = engine(model)
    for prompt in (short, short + rest, short + other, short + rest + other, (short + rest)[: BORDER + 2]):
        assert texts(warm, prompt) == texts(engine(model), prompt)
    family = [short, short + other, short + rest, short + rest + other, short + rest[:12]]
    assert texts(engine(model), *family) == [texts(engine(model), prompt)[0] for prompt in family]


def test_guesses_change_nothing_at_the_border(pair: tuple[GPT, transformers.PreTrainedModel]) -> None:
    model, _ = pair
    for n_prompt in (BORDER - 9, BORDER - 3, BORDER + 20):
        prompt = ids(8, 7) * (n_prompt // 8) + ids(n_prompt % 8, 8)
        plain = texts(engine(model), prompt, max_tokens=40)
        assert texts(engine(model), prompt, max_tokens=40, speculation="prompt") == plain


def test_contrastive_texts_do_not_depend_on_neighbours(pair: tuple[GPT, transformers.PreTrainedModel]) -> None:
    model, _ = pair
    options: dict[str, Any] = {"contrastive_alpha": 0.4, "top_k": 3}
    prompts = [ids(BORDER - 4, 9), ids(BORDER - 4, 10)]
    assert texts(engine(model), *prompts, **options) == [texts(engine(model), p, **options)[0] for p in prompts]


@torch.inference_mode()
def test_log_likelihoods_do_not_depend_on_neighbours(pair: tuple[GPT, transformers.PreTrainedModel]) -> None:
    model, reference = pair
    runner = GPTRunner(model)
    short, long = ids(20, 11), ids(70, 12)
    rows = [short, long, short[:18] + long[:60], short[:18]]
    for row, (found, _) in zip(rows, runner.logprobs(rows, [1, 1, 18, 17]), strict=True):
        start = len(row) - len(found)
        # The last token is never read.
        right = torch.log_softmax(make_again(reference)(torch.tensor([row[:-1]])).logits[0], -1)
        right = right[start - 1 :].gather(1, torch.tensor(row[start:])[:, None])[:, 0]
        assert float((found - right).abs().max()) < 1e-3


def make_again(reference: transformers.PreTrainedModel) -> transformers.PreTrainedModel:
    again = type(reference)._from_config(reference.config, attn_implementation="eager", dtype=torch.float32)
    again.load_state_dict(reference.state_dict())
    return again.eval()


@torch.inference_mode()
def test_packed_rows_are_computed_as_alone(pair: tuple[GPT, transformers.PreTrainedModel]) -> None:
    model, _ = pair
    rows = [torch.tensor([ids(count, count)]) for count in (9, 60, 17)]
    positions = torch.cat([torch.arange(row.shape[1]) for row in rows] + [torch.zeros(4, dtype=torch.long)])[None]
    token_ids = torch.cat([*rows, torch.zeros(1, 4, dtype=torch.long)], 1)
    owner = torch.tensor([0] * 9 + [1] * 60 + [2] * 17 + [3] * 4)
    mask = (owner[:, None] == owner) & torch.ones(90, 90, dtype=torch.bool).tril()
    found = model(token_ids, positions=positions, mask=mask[None, None])
    for row, start in zip(rows, (0, 9, 69), strict=True):
        assert float((found[:, start : start + row.shape[1]] - model(row)).abs().max()) < 1e-4


def test_lengths_of_sequences_behind_one_another() -> None:
    positions = torch.tensor([[0, 1, 2, 0, 1, 0, 0], [0, 1, 2, 3, 2, 3, 4]])
    assert sequence_lengths(positions).tolist() == [[3, 3, 3, 2, 2, 1, 1], [4, 4, 4, 4, 5, 5, 5]]


def test_segments_that_do_not_say_what_they_hold_are_refused(pair: tuple[GPT, transformers.PreTrainedModel]) -> None:
    model, _ = pair
    cache = KVCache(model.config, n_rows=1, dtype=torch.float32, device=torch.device("cpu"))
    # Without a runner nobody says for which length the rows are computed.
    with pytest.raises(RuntimeError, match="depend on their length"):
        model.hidden(torch.tensor([ids(5, 1)]), cache=cache.rows(0, 1, n_slots=5))
    segment = cache.read(0, 0, 5)
    cache.write(0, 0, segment)
    with pytest.raises(RuntimeError, match="unknown tokens"):
        cache.write(0, 0, type(segment)(segment.keys, segment.values))


def test_prefixes_are_not_kept_on_disk(pair: tuple[GPT, transformers.PreTrainedModel], tmp_path: Any) -> None:
    model, _ = pair
    with pytest.raises(ConfigError, match="depends on the length"):
        LanguageModel(
            ModelFacts(
                name="tiny", path=tmp_path, format="hf", dtype="fp32", device="cpu", family="phi3", n_parameters=1,
                scaling=model.config.rope.scaling,
            ),
            lambda: GPTRunner(model), Numbers(), None,
        ).keep_prefixes(tmp_path)  # fmt: skip
