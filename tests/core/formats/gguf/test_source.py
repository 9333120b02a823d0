"""GGUF models: name table, configuration, export; every family written and read back."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch

from nlpkit.core.errors import ModelFileError
from nlpkit.core.formats.families import ARCHITECTURES, FAMILIES
from nlpkit.core.formats.gguf import export as gguf_export
from nlpkit.core.formats.gguf.export import write_gguf
from nlpkit.core.formats.gguf.source import GGUFSource
from nlpkit.core.formats.gguf.weight_names import weight_shapes
from nlpkit.core.model.config import ModelConfig, RopeConfig
from nlpkit.core.model.gpt import GPT

BASE = ModelConfig(
    family="llama",
    vocab_size=48,
    d_model=32,
    n_layers=3,
    n_heads=4,
    n_kv_heads=2,
    head_dim=8,
    d_ff=64,
    max_seq_len=64,
    norm_eps=1e-6,
)
GEMMA = dataclasses.replace(
    BASE,
    n_layers=7,
    activation="gelu_tanh",
    norm_offset=1.0,
    norm_placement="sandwich",
    embedding_scale=32**0.5,
    sliding_window=16,
)
OLD = dataclasses.replace(
    BASE, n_kv_heads=4, norm="layer", gated_mlp=False, qkv_bias=True, o_bias=True, mlp_bias=True, norm_eps=1e-5
)


def variant(base: ModelConfig = BASE, **changes: object) -> ModelConfig:
    return dataclasses.replace(base, **changes)  # type: ignore[arg-type]


MODELS = {
    "llama": variant(),
    "llama-mha-untied": variant(n_kv_heads=4, tied_head=False),
    "llama-mqa": variant(n_kv_heads=1),
    "llama-wide-heads": variant(head_dim=16),
    "llama-biases": variant(qkv_bias=True, o_bias=True, mlp_bias=True),
    "llama-linear": variant(rope=RopeConfig(theta=50_000.0, scaling="linear", factor=4.0)),
    "llama-yarn": variant(rope=RopeConfig(scaling="yarn", factor=4.0, original_max_seq_len=16)),
    "llama-yarn-loud": variant(
        rope=RopeConfig(scaling="yarn", factor=4.0, original_max_seq_len=16, attention_factor=1.5, beta_fast=16.0)
    ),
    "llama-factors": variant(rope=RopeConfig(scaling="factors", short_factor=(1.0, 1.5, 3.0, 8.0))),
    "mistral": variant(family="mistral", sliding_window=16, sliding_layers=(0, 1, 2)),
    "qwen2": variant(family="qwen2", qkv_bias=True),
    "qwen2-sliding": variant(family="qwen2", qkv_bias=True, sliding_window=8, sliding_layers=(1, 2)),
    "qwen3": variant(family="qwen3", qk_norm="head", tied_head=False),
    "gemma2": variant(
        GEMMA,
        family="gemma2",
        sliding_layers=(0, 2, 4, 6),
        attn_softcap=50.0,
        logit_softcap=30.0,
        attn_scale=0.25,
    ),
    "gemma3": variant(
        GEMMA,
        family="gemma3_text",
        qk_norm="head",
        sliding_layers=(0, 1, 2, 3, 4, 6),
        rope=RopeConfig(theta=1e6, scaling="linear", factor=8.0),
        rope_local=RopeConfig(),
    ),
    "phi3": variant(family="phi3", sliding_window=16, sliding_layers=(0, 1, 2)),
    "phi3-longrope": variant(
        family="phi3",
        max_seq_len=256,
        rope=RopeConfig(
            scaling="longrope",
            original_max_seq_len=64,
            short_factor=(1.0, 1.25, 1.5, 2.0),
            long_factor=(1.0, 2.0, 4.0, 16.0),
        ),
    ),
    "olmo2": variant(family="olmo2", norm_placement="post", qk_norm="full", tied_head=False),
    "gptneox": variant(
        OLD, family="gpt_neox", activation="gelu", parallel_residual=True, rope=RopeConfig(dim=2), tied_head=False
    ),
    "gpt2": variant(OLD, family="gpt2", activation="gelu_tanh", positions="learned"),
}


def weights(config: ModelConfig, seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    out = {}
    for name, shape in weight_shapes(config):
        value = torch.randn(shape, generator=generator) * 0.1
        if config.norm_offset and "norm" in name:
            # Stored as weight + 1; multiples of 2**-12 survive that in fp32.
            value = torch.round(value * 4096) / 4096
        out[name] = value
    return out


def rope_free(config: ModelConfig) -> ModelConfig:
    return dataclasses.replace(config, rope=RopeConfig(), rope_local=None)


@pytest.mark.parametrize("name", MODELS)
def test_f32_file_gives_back_every_weight(name: str, tmp_path: Path) -> None:
    config = MODELS[name]
    source = weights(config)
    path = tmp_path / "model.gguf"
    write_gguf(config, source, path, dtype="f32")
    opened = GGUFSource(path)
    back = dict(opened.tensors(dtype=torch.float32))
    assert back.keys() == source.keys()
    for key, value in source.items():
        assert torch.equal(back[key], value), key
    assert rope_free(opened.config) == rope_free(config)
    assert opened.config.rope.theta == config.rope.theta
    assert opened.config.rope_local == config.rope_local
    assert sorted(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", MODELS)
def test_file_gives_equal_logits(name: str, tmp_path: Path) -> None:
    config = MODELS[name]
    source = weights(config)
    write_gguf(config, source, tmp_path / "model.gguf", dtype="f32")
    opened = GGUFSource(tmp_path / "model.gguf")
    ids = torch.arange(40).unsqueeze(0) % config.vocab_size
    positions = torch.arange(40).unsqueeze(0)
    logits = []
    for shape, state in ((config, source), (opened.config, dict(opened.tensors(dtype=torch.float32)))):
        model = GPT(shape)
        model.load_state_dict(state)
        with torch.no_grad():
            logits.append(model.eval()(ids, positions=positions))
    torch.testing.assert_close(logits[0], logits[1], rtol=1e-5, atol=1e-5)


def test_shapes_by_arithmetic_are_the_models_own() -> None:
    for config in MODELS.values():
        with torch.device("meta"):
            model = GPT(config)
        assert {name: tuple(p.shape) for name, p in model.named_parameters()} == dict(weight_shapes(config))


def test_tables_use_known_names() -> None:
    assert ARCHITECTURES["llama"] == "llama"
    assert set(ARCHITECTURES) == {family.gguf for family in FAMILIES.values()}
    by_name = {text: arch for arch, text in gguf.constants.MODEL_ARCH_NAMES.items()}
    for architecture, rules in {family.gguf: family.gguf_names for family in FAMILIES.values()}.items():
        known = {
            gguf.constants.TENSOR_NAMES[tensor].replace("{bid}", "{i}")
            for tensor in gguf.constants.MODEL_TENSORS[by_name[architecture]]
        }
        fused = {"blk.{i}.attn_qkv"} & known
        for rule in rules:
            separate = fused and rule.source.split(".")[-1] in ("attn_q", "attn_k", "attn_v")
            untied_gemma = architecture == "gemma2" and rule.source == "output"
            assert rule.source in known or separate or untied_gemma, (architecture, rule.source)


def test_f16_is_rounded_and_vectors_stay_exact(tmp_path: Path) -> None:
    config = MODELS["llama"]
    source = weights(config)
    write_gguf(config, source, tmp_path / "m.gguf", dtype="f16")
    opened = GGUFSource(tmp_path / "m.gguf")
    back = dict(opened.tensors(dtype=torch.float32))
    assert torch.equal(back["final_norm.weight"], source["final_norm.weight"])
    assert torch.equal(back["embed.weight"], source["embed.weight"].half().float())
    assert opened.file.tensors["token_embd.weight"].type.name == "F16"


def test_too_large_for_f16_is_refused_and_nothing_is_left(tmp_path: Path) -> None:
    source = weights(MODELS["llama"])
    source["embed.weight"][0, 0] = 1e6
    with pytest.raises(ModelFileError, match=r"token_embd\.weight is too large for f16"):
        write_gguf(MODELS["llama"], source, tmp_path / "m.gguf", dtype="f16")
    assert not list(tmp_path.iterdir())


def test_llama3_scaling_becomes_factors(tmp_path: Path) -> None:
    rope = RopeConfig(theta=500_000.0, scaling="llama3", factor=8.0, original_max_seq_len=16)
    config = variant(rope=rope)
    write_gguf(config, weights(config), tmp_path / "m.gguf", dtype="f32")
    back = GGUFSource(tmp_path / "m.gguf").config.rope
    assert back.scaling == "factors"
    assert len(back.short_factor) == 4
    assert max(back.short_factor) == pytest.approx(8.0)


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"rope": RopeConfig(scaling="dynamic", factor=2.0, original_max_seq_len=32)}, "rope"),
        ({"embedding_scale": 2.0}, "embedding_scale"),
        ({"family": "qwen2"}, "read back"),
        ({"activation": "relu"}, "activation"),
        ({"family": "gemma"}, "no GGUF architecture"),
    ],
)
def test_what_gguf_cannot_say_is_refused(changes: dict[str, object], what: str, tmp_path: Path) -> None:
    config = variant(**changes)
    with pytest.raises(ModelFileError, match=what):
        write_gguf(config, weights(config), tmp_path / "m.gguf", dtype="f32")
    assert not list(tmp_path.iterdir())


def test_missing_and_unknown_weights_are_named_before_writing(tmp_path: Path) -> None:
    source = weights(MODELS["llama"])
    del source["blocks.1.mlp.up.weight"]
    source["extra.weight"] = torch.zeros(1)
    with pytest.raises(ModelFileError, match=r"blocks\.1\.mlp\.up\.weight is missing; extra\.weight is unknown"):
        write_gguf(MODELS["llama"], source, tmp_path / "m.gguf")


def rewrite(
    path: Path, changes: dict[str, object], *, drop: tuple[str, ...] = (), extra: dict[str, object] | None = None
) -> Path:
    """Copy a GGUF file with other metadata or tensors, through the gguf package."""
    opened = GGUFSource(path)
    out = path.with_name("changed.gguf")
    values = {**opened.file.metadata, **changes}
    writer = gguf.GGUFWriter(out, str(values.pop("general.architecture")))
    for key, value in values.items():
        if value is None:
            continue
        if isinstance(value, np.ndarray):
            value = value.tolist()
        gguf_export._add(writer, key, value)
    for name, info in opened.file.tensors.items():
        if name not in drop:
            writer.add_tensor(name, np.array(opened.file.raw(name)).view(np.float32).reshape(info.shape))
    for name, array in (extra or {}).items():
        writer.add_tensor(name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return out


@pytest.fixture
def llama(tmp_path: Path) -> Path:
    path = tmp_path / "llama.gguf"
    write_gguf(MODELS["llama"], weights(MODELS["llama"]), path, dtype="f32")
    return path


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"general.architecture": "mamba"}, "architecture 'mamba'.*Known: llama"),
        ({"llama.embedding_length": None}, "embedding_length = None"),
        ({"llama.block_count": 0}, "n_layers = 0"),
        ({"llama.block_count": 900}, r"blocks\.3\..* is missing.* more"),
        ({"llama.block_count": 2}, "no place in the model"),
        ({"llama.attention.head_count": 0}, "n_heads = 0"),
        ({"llama.attention.head_count": 3}, "multiple"),
        ({"llama.feed_forward_length": 65}, "has shape"),
        ({"llama.feed_forward_length": 2**31}, "d_ff is 2147483648"),
        ({"llama.attention.key_length": 16, "llama.attention.value_length": 16}, "rotates 8 of 16|has shape"),
        ({"llama.attention.value_length": 4}, "value heads"),
        ({"llama.expert_count": 8}, "mixture-of-experts"),
        ({"llama.rope.scaling.type": "magic"}, "'magic'"),
        ({"llama.rope.scaling.type": "longrope"}, "but not its factors"),
        ({"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 0.0}, "must be positive"),
        ({"llama.rope.freq_base": float("nan")}, "finite"),
        ({"llama.rope.freq_base": -1.0}, "must be positive"),
        ({"llama.rope.dimension_count": 7}, "must be even"),
        ({"llama.attention.head_count_kv": [2, 1, 2]}, "same number for all layers"),
        ({"llama.context_length": "long"}, "whole number"),
    ],
)
def test_bad_metadata_are_refused(llama: Path, changes: dict[str, object], what: str) -> None:
    path = rewrite(llama, changes)
    with pytest.raises(ModelFileError, match=what):
        GGUFSource(path)


def test_bad_tensors_are_refused(llama: Path) -> None:
    with pytest.raises(ModelFileError, match=r"blocks\.0\.attn\.q\.weight is missing"):
        GGUFSource(rewrite(llama, {}, drop=("blk.0.attn_q.weight",)))
    with pytest.raises(ModelFileError, match=r"blk\.0\.odd\.weight is unknown"):
        GGUFSource(rewrite(llama, {}, extra={"blk.0.odd.weight": np.zeros((2, 2), np.float32)}))
    with pytest.raises(ModelFileError, match="no token embedding"):
        GGUFSource(rewrite(llama, {}, drop=("token_embd.weight",)))
    with pytest.raises(ModelFileError, match="3 rotary factors; 4 are needed"):
        GGUFSource(rewrite(llama, {}, extra={"rope_freqs.weight": np.ones(3, np.float32)}))
    with pytest.raises(ModelFileError, match="not all positive"):
        GGUFSource(rewrite(llama, {}, extra={"rope_freqs.weight": np.zeros(4, np.float32)}))


def test_per_layer_lists_of_equal_numbers_are_one_number(llama: Path) -> None:
    assert GGUFSource(rewrite(llama, {"llama.attention.head_count_kv": [2, 2, 2]})).config.n_kv_heads == 2


def test_head_stored_twice_is_tied(llama: Path) -> None:
    embedding = weights(MODELS["llama"])["embed.weight"].numpy()
    twice = GGUFSource(rewrite(llama, {}, extra={"output.weight": embedding}))
    assert twice.config.tied_head
    assert "head.weight" not in dict(twice.tensors(dtype=torch.float32))
    other = GGUFSource(rewrite(llama, {}, extra={"output.weight": embedding + 1}))
    assert not other.config.tied_head


@pytest.mark.parametrize(("layers", "arch", "family"), [(46, "gemma2", "gemma2"), (62, "gemma3", "gemma3_text")])
def test_largest_gemmas_have_another_attention_scale(layers: int, arch: str, family: str, tmp_path: Path) -> None:
    sliding = tuple(i for i in range(layers) if (i + 1) % (2 if arch == "gemma2" else 6))
    caps = {"attn_softcap": 50.0, "logit_softcap": 30.0} if arch == "gemma2" else {"rope_local": RopeConfig()}
    config = variant(
        GEMMA,
        family=family,
        n_layers=layers,
        head_dim=4,
        qk_norm="none" if arch == "gemma2" else "head",
        sliding_layers=sliding,
        attn_scale=8**-0.5,
        **caps,
    )
    write_gguf(config, weights(config), tmp_path / "m.gguf", dtype="f32")
    # Real files of these sizes do not carry the scale.
    path = rewrite(tmp_path / "m.gguf", {f"{arch}.attention.scale": None})
    assert GGUFSource(path).config == config


def test_split_files_are_one_model(tmp_path: Path) -> None:
    config, source = MODELS["llama"], weights(MODELS["llama"])
    write_gguf(config, source, tmp_path / "whole.gguf", dtype="f32")
    opened = GGUFSource(tmp_path / "whole.gguf")
    names = list(opened.file.tensors)
    paths = [tmp_path / f"m-{number:05d}-of-00002.gguf" for number in (1, 2)]
    for number, part in enumerate((names[:10], names[10:])):
        writer = gguf.GGUFWriter(paths[number], "llama")
        if number == 0:
            for key, value in opened.file.metadata.items():
                if key != "general.architecture":
                    gguf_export._add(writer, key, value)
        writer.add_uint16("split.count", 2)
        writer.add_uint16("split.no", number)
        writer.add_int32("split.tensors.count", len(names))
        for name in part:
            info = opened.file.tensors[name]
            writer.add_tensor(name, np.array(opened.file.raw(name)).view(np.float32).reshape(info.shape))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    for path in paths:
        split = GGUFSource(path)
        assert list(split.files()) == [p.name for p in paths]
        for key, value in split.tensors(dtype=torch.float32):
            assert torch.equal(value, source[key])
    shutil.copy(paths[0], tmp_path / "renamed.gguf")
    with pytest.raises(ModelFileError, match="not named like one"):
        GGUFSource(tmp_path / "renamed.gguf")
    paths[1].unlink()
    with pytest.raises(ModelFileError, match="00002-of-00002"):
        GGUFSource(paths[0])


@pytest.mark.parity
def test_transformers_reads_the_same_llama(tmp_path: Path) -> None:
    pytest.importorskip("accelerate")
    from transformers import AutoModelForCausalLM

    config = MODELS["llama-mha-untied"]
    source = weights(config)
    write_gguf(config, source, tmp_path / "m.gguf", dtype="f32")
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="m.gguf", dtype=torch.float32).eval()
    state = theirs.state_dict()
    assert torch.equal(state["model.layers.1.self_attn.q_proj.weight"], source["blocks.1.attn.q.weight"])
    ours = GPT(config)
    ours.load_state_dict(source)
    ids = torch.arange(40).unsqueeze(0)
    with torch.no_grad():
        expected = theirs(ids).logits
        got = ours.eval()(ids, positions=ids)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)
