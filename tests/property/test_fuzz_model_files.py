"""Thousands of damaged model files: each loads or is refused by our own error, in bounded memory."""

from __future__ import annotations

import dataclasses
import io
import json
import random
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import gguf
import numpy as np
import pytest
import sentencepiece
import tokenizers
import torch
from mutations import GGUF_MUTATIONS, SAFETENSORS_MUTATIONS, TEMPLATE_BITS, Mutation, damaged
from safetensors.torch import save

from nlpkit.core.chat import sandbox as template_sandbox
from nlpkit.core.chat.message import Message
from nlpkit.core.chat.template import ChatTemplate
from nlpkit.core.errors import NlpkitError
from nlpkit.core.files.safetensors import open_safetensors
from nlpkit.core.formats.export import save_hf, save_native
from nlpkit.core.formats.gguf.export import write_gguf
from nlpkit.core.formats.gguf.source import GGUFSource
from nlpkit.core.formats.gguf.weight_names import weight_shapes
from nlpkit.core.load import load_model
from nlpkit.core.model.config import ModelConfig, RopeConfig
from nlpkit.core.tokenizers.bpe import HFTokenizer
from nlpkit.core.tokenizers.gguf_pretokenizers import PRE_TOKENIZERS
from nlpkit.core.tokenizers.gguf_vocab import new_bpe
from nlpkit.core.tokenizers.sentencepiece import SentencePieceTokenizer

resource = pytest.importorskip("resource")
pytestmark = pytest.mark.property

N_GGUF, N_SAFETENSORS = 2400, 2400
N_SETTINGS = 300
MAX_PYTHON_BYTES = 12_000_000
MAX_NEW_ADDRESS_SPACE = 1 << 30
WORDS = ["the cat sat on the mat", "a dog ate the hat", "12 cats and 7 dogs"]

CONFIG = ModelConfig(
    family="llama",
    vocab_size=96,
    d_model=32,
    n_layers=2,
    n_heads=4,
    n_kv_heads=2,
    head_dim=8,
    d_ff=32,
    max_seq_len=64,
    rope=RopeConfig(scaling="factors", short_factor=(1.0, 2.0, 4.0, 8.0)),
)
CHAT = "{% for m in messages %}{{ bos_token }}{{ m['role'] }}: {{ m['content'] | trim }}{{ eos_token }}{% endfor %}"


def weights() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randn(shape, generator=generator) for name, shape in weight_shapes(CONFIG)}


def byte_level_file(path: Path) -> bytes:
    tokenizer = new_bpe([], [], PRE_TOKENIZERS["smollm"], add_prefix_space=False)
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=90, special_tokens=["<|im_start|>", "<|im_end|>"], show_progress=False
    )
    tokenizer.train_from_iterator(WORDS * 4, trainer)
    ours = HFTokenizer(tokenizer, bos_id=0, eos_ids=[1])
    chat = ChatTemplate(CHAT, bos_token="<|im_start|>", eos_token="<|im_end|>")
    write_gguf(CONFIG, weights(), path, dtype="f16", tokenizer=ours, chat=chat)
    return path.read_bytes()


def sentencepiece_file(path: Path) -> bytes:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(WORDS * 10),
        model_writer=model,
        vocab_size=60,
        model_type="bpe",
        normalization_rule_name="identity",
        hard_vocab_limit=False,
        minloglevel=2,
        num_threads=1,
    )
    write_gguf(CONFIG, weights(), path, dtype="f32", tokenizer=SentencePieceTokenizer(model.getvalue()))
    return path.read_bytes()


def quantized_file(path: Path) -> bytes:
    """The same model with block-coded matrices of several types, and no tokenizer."""
    write_gguf(CONFIG, weights(), path, dtype="f32")
    opened = GGUFSource(path)
    kinds = [gguf.GGMLQuantizationType[name] for name in ("Q8_0", "Q4_1", "Q4_0", "Q5_0", "Q5_1", "BF16")]
    out = path.with_name("quantized.gguf")
    writer = gguf.GGUFWriter(out, "llama")
    for key, value in opened.file.metadata.items():
        if isinstance(value, str) and key != "general.architecture":
            writer.add_string(key, value)
        elif isinstance(value, int):
            writer.add_uint32(key, value)
        elif isinstance(value, float):
            writer.add_float32(key, value)
    for index, (name, info) in enumerate(opened.file.tensors.items()):
        array = np.array(opened.file.raw(name)).view(np.float32).reshape(info.shape)
        kind = kinds[index % len(kinds)]
        if array.ndim == 2:
            writer.add_tensor(name, gguf.quants.quantize(array, kind).view(np.uint8), raw_dtype=kind)
        else:
            writer.add_tensor(name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return out.read_bytes()


@contextmanager
def bounded_memory() -> Iterator[None]:
    """Let a runaway allocation outside of Python fail instead of swapping the machine to death."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    statm = Path("/proc/self/statm")
    if statm.exists():
        used = int(statm.read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + MAX_NEW_ADDRESS_SPACE, hard))
    tracemalloc.start()
    try:
        yield
    finally:
        tracemalloc.stop()
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def use_gguf(path: Path) -> None:
    """Open a file and read everything in it; what is broken in the tokenizer does not excuse the weights."""
    source = GGUFSource(path)
    for _, tensor in source.tensors(dtype=torch.bfloat16):
        assert tensor.dtype == torch.bfloat16
    failure = None
    try:
        chat = source.chat_template()
        if chat is not None:
            chat.render([Message("user", "the cat")])
    except NlpkitError as error:
        failure = error
    tokenizer = source.tokenizer()
    ids = tokenizer.encode("the cats <|im_end|> 12", parse_special=True)
    assert all(0 <= index < source.config.vocab_size for index in ids)
    assert isinstance(tokenizer.decode(ids), str)
    if failure is not None:
        raise failure


def use_safetensors(path: Path) -> None:
    opened = open_safetensors(path)
    for name in opened.names:
        tensor = opened.tensor(name, dtype=torch.float32)
        assert tuple(tensor.shape) == opened.info[name].shape


def run(
    use: Callable[[Path], None],
    seeds: list[tuple[bytes, int]],
    mutations: tuple[Mutation, ...],
    path: Path,
    count: int,
) -> Counter[str]:
    """Try `count` mutants; returns how many loaded and how many were refused."""
    outcomes: Counter[str] = Counter()
    for number in range(count):
        rng = random.Random(number)
        data, head = seeds[number % len(seeds)]
        mutate = mutations[number // len(seeds) % len(mutations)]
        mutant = bytes(mutate(bytearray(data), rng, head))
        path.write_bytes(mutant)
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        try:
            use(path)
        except NlpkitError as error:
            outcomes["refused" if str(error) else "silent"] += 1
        except Exception as error:
            raise AssertionError(f"mutant {number} ({mutate.__name__}) escaped as {type(error).__name__}") from error
        else:
            outcomes["loaded"] += 1
        peak = tracemalloc.get_traced_memory()[1] - before
        assert peak < MAX_PYTHON_BYTES, f"mutant {number} ({mutate.__name__}) took {peak:,} bytes"
        # In place of rewriting a mapped file: a new one, so that no mapping ever shrinks under a reader.
        path.unlink()
    return outcomes


def test_damaged_gguf_files(tmp_path: Path) -> None:
    files = [byte_level_file(tmp_path / "a.gguf"), sentencepiece_file(tmp_path / "b.gguf")]
    files.append(quantized_file(tmp_path / "c.gguf"))
    sources = [GGUFSource(tmp_path / name) for name in ("a.gguf", "b.gguf", "quantized.gguf")]
    seeds = []
    for data, source in zip(files, sources, strict=True):
        head = min(info.offset for info in source.file.tensors.values())
        seeds.append((data, head))
    use_gguf(tmp_path / "a.gguf")
    use_gguf(tmp_path / "b.gguf")
    with bounded_memory():
        outcomes = run(use_gguf, seeds, GGUF_MUTATIONS, tmp_path / "mutant.gguf", N_GGUF)
    assert outcomes.total() == N_GGUF >= 2000
    assert not outcomes["silent"]
    # Harmless damage exists (a bit of a name, a weight); so does fatal damage.
    assert outcomes["refused"] > 1000
    assert outcomes["loaded"] > 50


def test_damaged_safetensors_files(tmp_path: Path) -> None:
    small = {"a": torch.randn(4, 8), "b": torch.arange(6), "c": torch.ones(3, dtype=torch.bfloat16)}
    files = [save(small, metadata={"format": "pt"}), save(weights()), save({"x": torch.tensor(1.0)})]
    seeds = [(data, 8 + int.from_bytes(data[:8], "little")) for data in files]
    for data, head in seeds:
        assert json.loads(data[8:head])
    with bounded_memory():
        outcomes = run(use_safetensors, seeds, SAFETENSORS_MUTATIONS, tmp_path / "mutant.safetensors", N_SAFETENSORS)
    assert outcomes.total() == N_SAFETENSORS >= 2000
    assert not outcomes["silent"]
    assert outcomes["refused"] > 1000
    assert outcomes["loaded"] > 50


def folder_of(path: Path, kind: str) -> Path:
    """Write a tiny model with a tokenizer."""
    tokenizer = new_bpe([], [], PRE_TOKENIZERS["smollm"], add_prefix_space=False)
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=90, special_tokens=["<|im_start|>", "<|im_end|>"], show_progress=False
    )
    tokenizer.train_from_iterator(WORDS * 4, trainer)
    config = dataclasses.replace(CONFIG, rope=RopeConfig(scaling="yarn", factor=2.0, original_max_seq_len=32))
    save = save_native if kind == "native" else save_hf
    chat = ChatTemplate(CHAT, bos_token="<|im_start|>", eos_token="<|im_end|>")
    save(path, config, weights(), tokenizer=HFTokenizer(tokenizer, bos_id=0, eos_ids=[1]), chat=chat)
    return path


def use_folder(path: Path) -> None:
    """Load a model, run it once, and use its tokenizer and template."""
    model = load_model(path, dtype="fp32")
    ids = model.tokenizer.encode("the cats 12")
    if model.chat is not None:
        model.chat.render_tokens([Message("user", "the cat <|im_end|>")], model.tokenizer)
    str(model.tokenizer.decode(ids))
    if ids:
        model.score([(ids, ids)])


@pytest.mark.parametrize(
    ("kind", "name"),
    [("native", "nlpkit.json"), ("hf", "config.json"), ("hf", "tokenizer.json"), ("hf", "tokenizer_config.json")],
)
def test_damaged_settings(tmp_path: Path, kind: str, name: str) -> None:
    """A model whose JSON files hold junk runs, or is refused by our own error of one short paragraph."""
    path = folder_of(tmp_path / "model", kind) / name
    use_folder(tmp_path / "model")
    whole = json.loads(path.read_text("utf-8"))
    outcomes: Counter[str] = Counter()
    for number in range(N_SETTINGS // 4):
        rng = random.Random(f"{name} {number}")
        text = damaged(whole, rng)
        path.write_text(text, "utf-8")
        try:
            use_folder(tmp_path / "model")
        except NlpkitError as error:
            outcomes["refused" if 0 < len(str(error)) <= 1_800 else "silent or long"] += 1
        except Exception as error:
            raise AssertionError(f"mutant {number} escaped as {type(error).__name__}: {text[:2_000]}") from error
        else:
            outcomes["loaded"] += 1
    assert not outcomes["silent or long"]
    assert outcomes["refused"] >= 2


def test_damaged_templates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(template_sandbox, "BASE_BUDGET", 500_000)
    outcomes: Counter[str] = Counter()
    for number in range(N_SETTINGS):
        rng = random.Random(number)
        source = "".join(rng.choice(TEMPLATE_BITS) for _ in range(rng.choice((1, 2, 3, 6))))
        started = time.process_time()
        try:
            ChatTemplate(source).render([Message("user", "hi")])
        except NlpkitError as error:
            outcomes["refused" if str(error) else "silent"] += 1
        else:
            outcomes["rendered"] += 1
        assert time.process_time() - started < 3, source
    assert not outcomes["silent"]
    assert outcomes["refused"] >= 20
    assert outcomes["rendered"] > 20
