"""Opening, building, exporting and refusing models, through tiny ones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tokenizers
import torch
import transformers
from safetensors.torch import load_file, save_file
from tiny_models import ToyTokenizer, tiny_config, tiny_gpt

from nlpkit.core.chat.message import Message
from nlpkit.core.decode.config import DecodeConfig
from nlpkit.core.decode.request import Request
from nlpkit.core.errors import ConfigError, InputError, ModelFileError, NlpkitError, TokenizerError
from nlpkit.core.files.write import new_directory
from nlpkit.core.formats.build import build_model, check_vocabulary
from nlpkit.core.formats.export import convert_model, save_hf, save_native
from nlpkit.core.formats.open import open_model
from nlpkit.core.load import load_model
from nlpkit.core.machine.processor import available_cores, set_threads
from nlpkit.core.tokenizers.bpe import HFTokenizer
from nlpkit.core.tokenizers.gguf_pretokenizers import PRE_TOKENIZERS
from nlpkit.core.tokenizers.gguf_vocab import new_bpe
from nlpkit.core.tokenizers.tokenizer_json import byte_to_char


@pytest.fixture
def hf(tmp_path: Path) -> Path:
    model = tiny_gpt()
    save_hf(tmp_path / "hf", model.config, model.state_dict(), tokenizer=None)
    return tmp_path / "hf"


def logits(directory: Path) -> torch.Tensor:
    source = open_model(directory)
    model = build_model(source.config, source.tensors(dtype=torch.float32), where=str(directory))
    return model(torch.tensor([[3, 1, 4, 1, 5]]))


def test_all_directories_give_equal_logits(hf: Path, tmp_path: Path) -> None:
    model = tiny_gpt()
    expected = model(torch.tensor([[3, 1, 4, 1, 5]]))
    save_native(tmp_path / "native", model.config, model.state_dict(), tokenizer=None)
    assert open_model(hf).format == "hf"
    assert open_model(tmp_path / "native").format == "native"
    assert torch.equal(logits(hf), expected)
    assert torch.equal(logits(tmp_path / "native"), expected)
    reference = transformers.AutoModelForCausalLM.from_pretrained(hf).eval()
    with torch.inference_mode():
        theirs = reference(torch.tensor([[3, 1, 4, 1, 5]])).logits
    assert float((theirs - expected).abs().max()) < 1e-4


def test_shards_are_read(hf: Path) -> None:
    expected = logits(hf)
    tensors = load_file(hf / "model.safetensors")
    names = sorted(tensors)
    weight_map = {}
    for number, part in enumerate((names[:7], names[7:]), 1):
        file = f"model-0000{number}-of-00002.safetensors"
        save_file({name: tensors[name] for name in part}, hf / file)
        weight_map |= dict.fromkeys(part, file)
    (hf / "model.safetensors").unlink()
    index = hf / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": weight_map}))
    assert torch.equal(logits(hf), expected)
    for bad in ("../outside.safetensors", "absent.safetensors"):
        index.write_text(json.dumps({"weight_map": {**weight_map, "x": bad}}))
        with pytest.raises(ModelFileError, match="not in the directory"):
            open_model(hf)


def test_the_index_says_which_file_a_tensor_is_read_from(hf: Path) -> None:
    expected = logits(hf)
    tensors = load_file(hf / "model.safetensors")
    names = sorted(tensors)
    stale = {name: tensors[name] + 1 for name in (names[8], names[9], "model.norm.weight")}
    save_file({**{name: tensors[name] for name in names[:7]}, **stale}, hf / "a.safetensors")
    save_file({name: tensors[name] for name in names[7:]}, hf / "b.safetensors")
    (hf / "model.safetensors").unlink()
    weight_map = {name: "a.safetensors" if name in names[:7] else "b.safetensors" for name in names}
    index = hf / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": weight_map}))
    assert torch.equal(logits(hf), expected)
    del weight_map["model.norm.weight"]
    index.write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(ModelFileError, match="twice"):
        logits(hf)


@pytest.mark.parametrize("head_alone", [True, False])
def test_tied_weights_may_be_stored_once_under_either_name_or_twice(tmp_path: Path, head_alone: bool) -> None:
    model = tiny_gpt(tiny_config(tied_head=True))
    expected = model(torch.tensor([[3, 1, 4, 1, 5]]))
    save_hf(tmp_path / "hf", model.config, model.state_dict(), tokenizer=None)
    tensors = load_file(tmp_path / "hf" / "model.safetensors")
    # As `safetensors.torch.save_model` writes it.
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    if head_alone:
        del tensors["model.embed_tokens.weight"]
    save_file(tensors, tmp_path / "hf" / "model.safetensors")
    assert torch.equal(logits(tmp_path / "hf"), expected)


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.int32, torch.bool])
def test_weights_that_are_no_floating_point_numbers_are_refused(hf: Path, tmp_path: Path, dtype: torch.dtype) -> None:
    tensors = load_file(hf / "model.safetensors")
    tensors["model.layers.1.attn.bias"] = torch.ones(1, 1, 8, 8, dtype=torch.bool)
    save_file(tensors, hf / "model.safetensors")
    assert open_model(hf)
    name = "model.layers.0.mlp.up_proj.weight"
    tensors[name] = (tensors[name] * 20).to(dtype)
    save_file(tensors, hf / "model.safetensors")
    with pytest.raises(ModelFileError, match=f"{name}.*quantized"):
        open_model(hf)
    model = tiny_gpt()
    save_native(tmp_path / "native", model.config, model.state_dict(), tokenizer=None)
    own = load_file(tmp_path / "native" / "model.safetensors")
    save_file({**own, "final_norm.weight": own["final_norm.weight"].to(dtype)}, tmp_path / "native/model.safetensors")
    with pytest.raises(ModelFileError, match="floating-point"):
        open_model(tmp_path / "native")


@pytest.mark.parametrize(
    ("stated", "method"),
    [
        ({"quant_method": "gptq", "bits": 4}, "gptq"),
        ({"quant_method": "bitsandbytes", "load_in_8bit": True}, "bitsandbytes"),
        ({"load_in_4bit": True}, "bitsandbytes"),
        ({"quant_method": "fp8"}, "fp8"),
    ],
)
@pytest.mark.parametrize("inside", [False, True])
def test_quantized_models_are_refused_by_their_method(
    hf: Path, stated: dict[str, object], method: str, inside: bool
) -> None:
    config = json.loads((hf / "config.json").read_text())
    change = {"text_config": {"quantization_config": stated}} if inside else {"quantization_config": stated}
    (hf / "config.json").write_text(json.dumps({**config, **change}))
    with pytest.raises(ModelFileError, match=method):
        open_model(hf)
    (hf / "config.json").write_text(json.dumps({**config, "quantization_config": None}))
    assert open_model(hf)


@pytest.mark.parametrize("source", ["{% for %}", "{{ messages | pprint }}", "{{ messages | random }}"])
def test_a_template_that_cannot_be_compiled_leaves_a_model_that_continues_texts(tmp_path: Path, source: str) -> None:
    model = tiny_gpt(tiny_config(vocab_size=320))
    tokenizer = HFTokenizer(byte_level_bpe(), bos_id=None, eos_ids=[0])
    save_hf(tmp_path / "hf", model.config, model.state_dict(), tokenizer=tokenizer)
    (tmp_path / "hf" / "chat_template.jinja").write_text(source)
    lm = load_model(str(tmp_path / "hf"), dtype="fp32", device="cpu")
    request = Request(prompt_ids=tuple(lm.encode("ab")), config=DecodeConfig(max_tokens=2))
    assert len(list(lm.generate([request]))) == 1
    assert any("cannot be compiled" in note for note in lm.notes)
    with pytest.raises(ModelFileError, match="cannot be compiled"):
        lm.chat.render_tokens([Message("user", "hi")], lm.tokenizer)


def byte_level_bpe() -> tokenizers.Tokenizer:
    tokenizer = new_bpe(["<end>", *byte_to_char()], [], PRE_TOKENIZERS["gpt-2"], add_prefix_space=False)
    tokenizer.add_special_tokens(["<end>"])
    return tokenizer


def test_all_problems_of_the_weights_come_in_one_error(hf: Path) -> None:
    tensors = load_file(hf / "model.safetensors")
    del tensors["model.norm.weight"]
    tensors["extra.weight"] = torch.zeros(2)
    tensors["model.layers.0.mlp.up_proj.weight"] = torch.zeros(3, 3)
    save_file(tensors, hf / "model.safetensors")
    with pytest.raises(ModelFileError) as caught:
        logits(hf)
    text = str(caught.value)
    assert "Missing: final_norm.weight." in text
    assert "Unexpected: extra.weight." in text
    assert "blocks.0.mlp.up.weight is (3, 3), should be (48, 32)" in text


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"num_attention_heads": 0}, "n_heads"),
        ({"vocab_size": 10**12}, "vocab_size"),
        ({"num_hidden_layers": "many"}, "num_hidden_layers"),
        ({"hidden_act": "softsign"}, "softsign"),
        ({"rope_parameters": {"rope_type": "magic"}}, "magic"),
        ({"rope_parameters": 7}, "rope_parameters"),
        ({"num_key_value_heads": 3}, "multiple"),
        ({"rms_norm_eps": float("inf")}, "rms_norm_eps"),
        ({"model_type": ["llama"]}, "llama"),
    ],
)
def test_bad_configurations_are_refused(hf: Path, change: dict[str, object], part: str) -> None:
    config = json.loads((hf / "config.json").read_text())
    (hf / "config.json").write_text(json.dumps({**config, **change}))
    with pytest.raises(ModelFileError, match=part):
        open_model(hf)


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="no model at"):
        open_model(tmp_path / "absent")
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(ModelFileError, match="holds no model"):
        open_model(empty)
    (empty / "pytorch_model.bin").write_bytes(b"\x80\x04K\x01.")
    with pytest.raises(ModelFileError, match="pickle"):
        open_model(empty)
    text = tmp_path / "notes.txt"
    text.write_text("hello")
    with pytest.raises(ModelFileError, match="neither GGUF"):
        open_model(text)
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "config.json").write_text("{")
    with pytest.raises(ModelFileError, match="JSON"):
        open_model(broken)


def test_native_configurations_are_checked(tmp_path: Path) -> None:
    model = tiny_gpt()
    save_native(tmp_path / "m", model.config, model.state_dict(), tokenizer=None)
    path = tmp_path / "m" / "nlpkit.json"
    good = json.loads(path.read_text())
    for change, part in (
        ({"format_version": 99}, "version 99"),
        ({"model": None}, "no model configuration"),
        ({"model": {**good["model"], "colour": 3}}, "colour"),
        ({"model": {**good["model"], "d_model": -1}}, "d_model"),
    ):
        path.write_text(json.dumps({**good, **change}))
        with pytest.raises(ModelFileError, match=part):
            open_model(tmp_path / "m")


def test_nothing_half_written_is_left(tmp_path: Path) -> None:
    def stop_in_the_middle() -> None:
        with new_directory(tmp_path / "out") as aside:
            (aside / "part").write_text("x")
            raise RuntimeError("stopped in the middle")

    with pytest.raises(RuntimeError):
        stop_in_the_middle()
    assert list(tmp_path.iterdir()) == []
    full = tmp_path / "full"
    full.mkdir()
    (full / "keep").write_text("mine")
    with pytest.raises(InputError, match="already exists"), new_directory(full):
        pass
    assert (full / "keep").read_text() == "mine"


def test_unknown_targets_get_a_hint(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Did you mean 'native'"):
        convert_model(tmp_path, "nativ", tmp_path / "out")


def test_a_tokenizer_larger_than_the_embedding_is_refused() -> None:
    check_vocabulary(ToyTokenizer(29), 29, where="m")
    with pytest.raises(TokenizerError, match=r"29 ids.*28 rows"):
        check_vocabulary(ToyTokenizer(29), 28, where="m")


def test_threads_come_from_what_the_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads()
    try:
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
        assert set_threads(None) == available_cores() == torch.get_num_threads()
        assert set_threads(1) == 1 == torch.get_num_threads()
        monkeypatch.setenv("OMP_NUM_THREADS", "1")
        assert set_threads(None) == 1
        with pytest.raises(NlpkitError, match="threads"):
            set_threads(0)
    finally:
        torch.set_num_threads(before)


def test_untied_and_biased_models_survive_the_round_trip(tmp_path: Path) -> None:
    config = tiny_config(tied_head=False, qkv_bias=True, o_bias=True, mlp_bias=True)
    model = tiny_gpt(config)
    save_hf(tmp_path / "m", config, model.state_dict(), tokenizer=None)
    assert open_model(tmp_path / "m").config == config
    assert torch.equal(logits(tmp_path / "m"), model(torch.tensor([[3, 1, 4, 1, 5]])))
