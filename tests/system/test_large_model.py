"""A model of a billion random weights: loaded block by block, within the memory that its format needs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import gguf
import numpy as np
import pytest

WIDTH, LAYERS, HEADS, KV_HEADS, FF, VOCAB = 2048, 16, 32, 8, 8192, 8192
BLOCK, BLOCK_BYTES = 32, 18
"""Weights and bytes of a Q4_0 block: a 16-bit scale and 32 numbers of 4 bits."""
MIB = 2**20

CHILD = """
import json, sys
from nlpkit.core.decode.config import DecodeConfig
from nlpkit.core.decode.request import Request
from nlpkit.core.load import load_model
lm = load_model(sys.argv[1], dtype=sys.argv[2], threads=2)
request = Request(prompt_ids=(1, 300, 301), config=DecodeConfig(max_tokens=4, ignore_eos=True))
((_, made),) = lm.generate([request])
# Not getrusage: after exec that still holds what the parent had.
lines = open("/proc/self/status").read().splitlines()
peak = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
print(json.dumps({"peak": peak, "tokens": len(made.completions[0].token_ids)}))
"""


def free_memory() -> int:
    try:
        # The child tells its peak by this file.
        if "VmHWM" not in Path("/proc/self/status").read_text():
            return 0
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return 0
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("large")
    if shutil.disk_usage(folder).free < 2 * 2**30 or free_memory() < 5 * 2**30:
        pytest.skip("needs 2 GiB on the disk and 5 GiB of memory")
    path = folder / "large.gguf"
    rng = np.random.default_rng(0)
    blocks = rng.integers(0, 256, (FF * WIDTH // BLOCK, BLOCK_BYTES), dtype=np.uint8)
    # Scales of about 0.005, so that activations stay finite.
    blocks[:, :2] = np.frombuffer(np.float16(0.005).tobytes(), np.uint8)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(2048)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(FF)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_vocab_size(VOCAB)
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    tokens += [f"▁{number}" for number in range(VOCAB - len(tokens))]
    kinds = [2, 3, 3] + [6] * 256 + [1] * (VOCAB - 259)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores([-float(i) for i in range(VOCAB)])
    writer.add_token_types(kinds)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    matrices = {"token_embd": (VOCAB, WIDTH), "output": (VOCAB, WIDTH)}
    norms = ["output_norm"]
    kv_width = KV_HEADS * WIDTH // HEADS
    for layer in range(LAYERS):
        shapes = {
            "attn_q": (WIDTH, WIDTH),
            "attn_k": (kv_width, WIDTH),
            "attn_v": (kv_width, WIDTH),
            "attn_output": (WIDTH, WIDTH),
            "ffn_gate": (FF, WIDTH),
            "ffn_up": (FF, WIDTH),
            "ffn_down": (WIDTH, FF),
        }
        matrices |= {f"blk.{layer}.{name}": shape for name, shape in shapes.items()}
        norms += [f"blk.{layer}.attn_norm", f"blk.{layer}.ffn_norm"]
    for name, (rows, columns) in matrices.items():
        data = blocks[: rows * columns // BLOCK].reshape(rows, -1)
        writer.add_tensor(f"{name}.weight", data, raw_dtype=gguf.GGMLQuantizationType.Q4_0)
    for name in norms:
        writer.add_tensor(f"{name}.weight", np.ones(WIDTH, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize("dtype", ["bf16", "int4"])
def test_a_billion_weights_load_within_bounds(large: Path, dtype: str, tmp_path: Path) -> None:
    size = large.stat().st_size
    parameters = size * BLOCK // BLOCK_BYTES
    assert parameters > 950e6
    command = [sys.executable, "-c", CHILD, str(large), dtype]
    # What is kept of it for the next start goes with the test.
    env = {**os.environ, "NLPKIT_HOME": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env, timeout=1200)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["tokens"] == 4
    # In bf16, the weights once, one block twice, the pages of the file that are in use, and what importing torch takes;
    # in 4 bits, twice the file and as much again as torch takes.
    bound = 2 * parameters + size + 500 * MIB if dtype == "bf16" else 2 * size + 300 * MIB
    print(f"{dtype}: peak {found['peak'] / MIB:.0f} MiB, file {size / MIB:.0f} MiB")
    assert found["peak"] < bound, f"{found['peak'] / MIB:.0f} MiB, {bound / MIB:.0f} allowed"
