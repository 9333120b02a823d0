"""Translations beside CTranslate2: ``python tests/benchmarks/bench_translation.py [ROWS.jsonl] [--peer-python PATH]``.

The same sentences, by their token counts alone, go through a random model of the shape of nlpkit's translation model
(int8, greedily and with four beams) and through CTranslate2 in int8 (greedily and with four beams) with a random
encoder-decoder of the size of OPUS-MT's models: Transformer base, 74 M weights (Junczys-Dowmunt et al. 2018,
arXiv:1804.00344). What random weights write says nothing, so all write as much as is asked for: no end is allowed
before the length of each row's target.

A row of ROWS.jsonl has ``source`` and ``target``, token counts. Without a file they are drawn: sources uniformly from 15
to 35, targets from 15 to 35, by a fixed seed. nlpkit's prompts have 5 tokens more, for languages and marks. nlpkit gets
all rows in one call and batches them itself, `--batch` sentences at a time; CTranslate2 gets batches of as many rows
sorted by length, each as long as its rows' mean, so that both write equally many tokens. Every engine runs in a process
of its own, in turn; figures are medians of the seconds from the first sentence to the last text, without loading.

Nothing is ever gated on these numbers.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

MARKS = 5
SHAPES = {
    "44m": {"d_model": 512, "n_layers": 12, "n_heads": 8, "n_kv_heads": 8, "d_ff": 1376},
    "11m": {"d_model": 256, "n_layers": 8, "n_heads": 4, "n_kv_heads": 4, "d_ff": 704},
}
VOCAB = 16_384
PEER_VOCAB = 58_101
ENGINES = ("nlpkit-1", "nlpkit-4", "ctranslate2-1", "ctranslate2-4")


def rows_of(path: Path | None, limit: int) -> list[tuple[int, int]]:
    """Return counts of source and target tokens."""
    if path is None:
        chance = random.Random(0)
        return [(chance.randint(15, 35), chance.randint(15, 35)) for _ in range(limit)]
    with path.open(encoding="utf-8") as file:
        rows = [json.loads(line) for line, _ in zip(file, range(limit), strict=False)]
    return [(int(row["source"]), int(row["target"])) for row in rows]


def make_model(shape: str, folder: Path) -> None:
    """Write a random model with a tokenizer of as many tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    from nlpkit.core.formats.export import save_native
    from nlpkit.core.model.config import ModelConfig
    from nlpkit.core.tokenizers.bpe import HFTokenizer
    from nlpkit.core.tokenizers.tokenizer_json import byte_to_char
    from nlpkit.core.train.init import new_model

    vocab = {char: i for i, char in enumerate(byte_to_char())}
    merges: list[tuple[str, str]] = []
    letters = "abcdefghijklmnopqrstuvwxyz"
    pairs = [(a, b) for a in letters for b in letters]
    for left, right in [*pairs, *((a + b, c) for a, b in pairs for c in letters)]:
        if len(vocab) < VOCAB - 2:
            vocab[left + right] = len(vocab)
            merges.append((left, right))
    library = Tokenizer(models.BPE(vocab, merges))
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    library.decoder = decoders.ByteLevel()
    library.add_special_tokens(["<|im_start|>", "<|im_end|>"])
    end = library.token_to_id("<|im_end|>")
    tokenizer = HFTokenizer(library, bos_id=None, eos_ids=[end])
    config = ModelConfig.from_dict(
        {"family": "qwen3", "qk_norm": "head", "tied_head": True, "vocab_size": VOCAB, "head_dim": 64,
         "max_seq_len": 512, **SHAPES[shape]}
    )  # fmt: skip
    tensors = {name: value for name, value in new_model(config, seed=0).state_dict().items() if name != "head.weight"}
    save_native(folder, config, tensors, tokenizer=tokenizer)


def run_nlpkit(beams: int, args: argparse.Namespace) -> dict[str, Any]:
    from nlpkit.core.decode.config import DecodeConfig
    from nlpkit.core.decode.request import Request
    from nlpkit.core.load import load_model

    lm = load_model(str(args.model), dtype="int8", threads=args.threads)
    chance = random.Random(1)
    requests = [
        Request(
            prompt_ids=tuple(chance.randrange(300, VOCAB - 2) for _ in range(source + MARKS)),
            config=DecodeConfig(max_tokens=target, beam_size=beams, ignore_eos=True, stop=("\n",)),
        )
        for source, target in rows_of(args.rows, args.limit)
    ]
    # Prompts have nothing in common, and nothing may be left of the first run.
    lm.engine.prefixes = None
    slots = args.batch * beams * max(len(request.prompt_ids) + request.config.max_tokens for request in requests)
    list(lm.generate(requests[:8], batch_tokens=slots))
    began, used = time.perf_counter(), time.process_time()
    found = list(lm.generate(requests, batch_tokens=slots))
    seconds, cpu = time.perf_counter() - began, time.process_time() - used
    return {"seconds": seconds, "cpu": cpu, "tokens": sum(one.completions[0].n_tokens for _, one in found)}


def make_peer(folder: Path) -> None:
    """Write a random Transformer base in CTranslate2's format, in int8; needs only CTranslate2 and NumPy."""
    import numpy as np
    from ctranslate2.specs import common_spec, transformer_spec

    width, inner, layers, heads = 512, 2048, 6, 8
    generator = np.random.default_rng(0)

    def matrix(*shape: int) -> Any:
        return (generator.standard_normal(shape) * 0.05).astype(np.float32)

    def fill(linear: Any, outputs: int, inputs: int) -> None:
        linear.weight, linear.bias = matrix(outputs, inputs), np.zeros(outputs, np.float32)

    def norm(layer: Any) -> None:
        layer.gamma, layer.beta = np.ones(width, np.float32), np.zeros(width, np.float32)

    spec = transformer_spec.TransformerSpec.from_config(
        layers, heads, pre_norm=False, activation=common_spec.Activation.SWISH
    )
    words = matrix(PEER_VOCAB, width)
    table = np.arange(512)[:, None] / 10000 ** (np.arange(width // 2) / (width // 2))
    positions = np.concatenate([np.sin(table), np.cos(table)], 1).astype(np.float32)
    spec.encoder.embeddings[0].weight = words
    spec.decoder.embeddings.weight = words
    spec.encoder.position_encodings.encodings = positions
    spec.decoder.position_encodings.encodings = positions
    spec.decoder.projection.weight, spec.decoder.projection.bias = words, np.zeros(PEER_VOCAB, np.float32)
    for side in (spec.encoder, spec.decoder):
        side.scale_embeddings = True
        for layer in side.layer:
            fill(layer.self_attention.linear[0], 3 * width, width)
            fill(layer.self_attention.linear[1], width, width)
            norm(layer.self_attention.layer_norm)
            if side is spec.decoder:
                for place, outputs in enumerate((width, 2 * width, width)):
                    fill(layer.attention.linear[place], outputs, width)
                norm(layer.attention.layer_norm)
            fill(layer.ffn.linear_0, inner, width)
            fill(layer.ffn.linear_1, width, inner)
            norm(layer.ffn.layer_norm)
    tokens = ["</s>", "<unk>", *(f"w{i}" for i in range(PEER_VOCAB - 3)), "<pad>"]
    spec.register_source_vocabulary(tokens)
    spec.register_target_vocabulary(tokens)
    spec.config.add_source_eos = True
    spec.config.decoder_start_token = "<pad>"
    spec.validate()
    spec.optimize(quantization="int8")
    folder.mkdir()
    spec.save(str(folder))


def run_ctranslate2(beams: int, args: argparse.Namespace) -> dict[str, Any]:
    import ctranslate2

    model: Any = ctranslate2.Translator(
        str(args.model), device="cpu", compute_type="int8", inter_threads=1, intra_threads=args.threads
    )
    chance = random.Random(1)
    rows = sorted(rows_of(args.rows, args.limit), key=lambda row: (row[1], row[0]))
    batches = [rows[first : first + args.batch] for first in range(0, len(rows), args.batch)]

    def translate(batch: list[tuple[int, int]]) -> int:
        length = round(sum(target for _, target in batch) / len(batch))
        found = model.translate_batch(
            [[f"w{chance.randrange(PEER_VOCAB - 3)}" for _ in range(source)] for source, _ in batch],
            beam_size=beams,
            max_decoding_length=length,
            min_decoding_length=length,
        )
        return sum(len(one.hypotheses[0]) for one in found)

    translate(batches[0][:8])
    began, used = time.perf_counter(), time.process_time()
    tokens = sum(map(translate, batches))
    return {"seconds": time.perf_counter() - began, "cpu": time.process_time() - used, "tokens": tokens}


def run_apart(python: str, command: list[str], args: argparse.Namespace) -> str:
    """Run one part of this script in a process of its own; return the last line that it prints."""
    given = [sys.argv[0], *([str(args.rows)] if args.rows is not None else []), "--limit", str(args.limit),
             "--threads", str(args.threads), "--batch", str(args.batch), "--shape", args.shape, *command]  # fmt: skip
    env = {**os.environ, "OMP_NUM_THREADS": str(args.threads)}
    done = subprocess.run([python, *given], capture_output=True, text=True, check=False, env=env)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stderr[-3000:]}")
    return (done.stdout.splitlines() or [""])[-1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="?", type=Path, metavar="ROWS.jsonl")
    parser.add_argument("--shape", choices=SHAPES, default="44m")
    parser.add_argument("--limit", type=int, default=500)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--batch", type=int, default=32, help="sentences at a time")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--peer-python", default=sys.executable, help="an interpreter that has ctranslate2")
    parser.add_argument("--engines", nargs="*", choices=ENGINES, default=list(ENGINES))
    parser.add_argument("--part", help=argparse.SUPPRESS)
    parser.add_argument("--model", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.part is not None:
        name, _, beams = args.part.partition("-")
        if name == "make":
            make_model(args.shape, args.model) if beams == "nlpkit" else make_peer(args.model)
        else:
            print(json.dumps((run_nlpkit if name == "nlpkit" else run_ctranslate2)(int(beams), args)))
        return
    with tempfile.TemporaryDirectory() as name:
        pythons = {"nlpkit": sys.executable, "ctranslate2": args.peer_python}
        for kind in dict.fromkeys(engine.partition("-")[0] for engine in args.engines):
            run_apart(pythons[kind], ["--part", f"make-{kind}", "--model", f"{name}/{kind}"], args)
        found: dict[str, list[dict[str, float]]] = {engine: [] for engine in args.engines}
        for run in range(args.runs):
            for engine in args.engines if run % 2 == 0 else reversed(args.engines):
                kind = engine.partition("-")[0]
                said = run_apart(pythons[kind], ["--part", engine, "--model", f"{name}/{kind}"], args)
                found[engine].append(json.loads(said))
                print(f"{engine}: {said}", file=sys.stderr, flush=True)
    print(f"{args.limit} sentences, {args.batch} at a time, {args.threads} threads, medians of {args.runs} runs")
    middle = {
        engine: {key: statistics.median(run[key] for run in runs) for key in runs[0]} for engine, runs in found.items()
    }
    first = middle[args.engines[0]]
    for engine, run in middle.items():
        print(f"  {engine:14} {run['seconds']:7.2f} s ({run['seconds'] / first['seconds']:4.2f} x)  "
              f"CPU {run['cpu']:7.2f} s ({run['cpu'] / first['cpu']:4.2f} x)  {run['tokens'] / run['seconds']:6.0f} "
              f"tokens/s  {run['tokens']:.0f} tokens")  # fmt: skip


if __name__ == "__main__":
    main()
