"""Damaged files through the real command line: ``python tests/benchmarks/fuzz.py [--count 20000] [--minutes M] [KIND ...]``.

Tiny whole files are made with nlpkit's own writers and damaged, in bytes and in what they say; the command line reads
each in a process with limits. What is counted: *read* (the command did its work), *refused* (one short paragraph, exit
code 2 or 3); and what must not be: *bug* (an internal error, another exit code, a message longer than 2,000
characters), *long* (over 10 seconds of CPU), *memory* (over 1.5 GB), *crash* (the process died). The numbers of what
must not be are printed, and ``--one N`` runs one again, alone, and shows what it says.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import io
import json
import multiprocessing
import os
import random
import resource
import shutil
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.update(OMP_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false", NLPKIT_OFFLINE="1")
sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

import torch
from mutations import (
    GGUF_MUTATIONS,
    SAFETENSORS_MUTATIONS,
    TEMPLATE_BITS,
    damaged,
    damaged_text,
    flip_bits,
    noise,
    splice,
    truncate,
)
from tiny_models import tiny_gpt

from nlpkit.core.chat.template import ChatTemplate
from nlpkit.core.formats.export import save_hf, save_native
from nlpkit.core.formats.gguf.export import write_gguf
from nlpkit.core.formats.gguf.source import GGUFSource
from nlpkit.core.formats.peft.save import save_adapter
from nlpkit.core.model.config import ModelConfig
from nlpkit.core.model.lora import LoraWeights
from nlpkit.core.tokenizers.bpe import HFTokenizer
from nlpkit.core.tokenizers.train import train_tokenizer

MOST_SECONDS, MOST_BYTES, MOST_ADDRESSES, MOST_CHARS = 10, 1_500_000_000, 6 << 30, 2_000
BATCH = 40
CHAT = "{% for m in messages %}{{ bos_token }}{{ m['role'] }}: {{ m['content'] | trim }}{{ eos_token }}{% endfor %}"
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {},
    "mistral": {"sliding_window": 7, "sliding_layers": (0, 1)},
    "qwen2": {"qkv_bias": True},
    "qwen3": {"qk_norm": "head"},
    "olmo2": {"qk_norm": "full", "norm_placement": "post"},
    "phi3": {},
    "gemma2": {"norm_offset": 1.0, "norm_placement": "sandwich", "attn_softcap": 50.0, "logit_softcap": 30.0,
               "embedding_scale": 32**0.5, "activation": "gelu_tanh", "sliding_window": 7, "sliding_layers": (0,)},
    "gpt2": {"positions": "learned", "norm": "layer", "gated_mlp": False, "qkv_bias": True, "o_bias": True,
             "mlp_bias": True, "activation": "gelu_tanh", "n_kv_heads": 4},
    "gpt_neox": {"norm": "layer", "gated_mlp": False, "qkv_bias": True, "o_bias": True, "mlp_bias": True,
                 "tied_head": False, "activation": "gelu", "n_kv_heads": 4},
}  # fmt: skip
ROWS = [
    {"prompt": "the cat", "id": "a", "text": " sat"},
    {"prompt": "a dog", "id": 7, "meta": {"a": [1, 2.5, None]}, "n": 1e3},
    {"prompt": "Größe 日本", "id": None},
]
TOML = """output = "out"
method = "lora"
base = "model"
task = "generation"

[[data]]
path = "rows.jsonl"
task = "generation"
weight = 1.0
limit = 3
folds = 2
fold = 0

[[eval_data]]
path = "rows.jsonl"
task = "generation"

[lora]
rank = 4
alpha = 8.0
dropout = 0.0
targets = ["q", "v"]
use_rslora = false

[train]
max_steps = 2
batch_size = 1
seq_len = 64
lr = 1e-3
warmup = 0
seed = 1
"""
JSON_MARKS = (
    b"{",
    b"}",
    b"[",
    b"]",
    b'"',
    b",",
    b":",
    b"\n",
    b"\\u",
    b"\\",
    b"\xff",
    b"1e999",
    b"NaN",
    b"\x00",
    b"\xef\xbb\xbf",
    b"\r",
)
CSV_MARKS = (b'"', b",", b"\n", b"\r", b"\t", b";", b"\xff", b"\x00", b"\xef\xbb\xbf", b'""')
TOML_MARKS = (
    b"[",
    b"]",
    b"=",
    b'"',
    b"\n",
    b"-1",
    b"nan",
    b"1e400",
    b"9" * 30,
    b"9" * 5000,
    b"{",
    b"true",
    b"[" * 3000,
    b"x = 1\n",
    b"[train]\n",
    b"\x00",
    b"'",
)


class Seeds:
    """Whole files, and how each kind of them is damaged and read."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        texts = ["the cat sat on the mat\n", "a dog ate the hat\n", "12 cats and 7 dogs\n"] * 8
        self.bpe: HFTokenizer = train_tokenizer("bpe", texts, vocab_size=300)  # type: ignore[assignment]
        self.spm = train_tokenizer("sentencepiece", texts, vocab_size=290)
        self.chat = ChatTemplate(CHAT, bos_token="", eos_token="\n")
        for family in FAMILIES:
            config, weights = self._model(family)
            save_hf(folder / family, config, weights, tokenizer=self.bpe, chat=self.chat)
        config, weights = self._model("llama")
        save_native(folder / "native", config, weights, tokenizer=self.bpe, chat=self.chat)
        for name, tokenizer, dtype in (("a", self.bpe, "f16"), ("b", self.spm, "f32")):
            write_gguf(config, weights, folder / f"{name}.gguf", dtype=dtype, tokenizer=tokenizer, chat=self.chat)
        generator = torch.Generator().manual_seed(0)
        updates = {
            f"blocks.{layer}.attn.{name}": LoraWeights(
                torch.randn(4, 32, generator=generator), torch.randn(rows, 4, generator=generator), 2.0, None
            )
            for layer in range(2)
            for name, rows in (("q", 32), ("v", 16))
        }
        (folder / "adapter").mkdir()
        save_adapter(folder / "adapter", config, updates, base_model="tiny")
        self.heads = {
            name: min(info.offset for info in GGUFSource(folder / name).file.tensors.values())
            for name in ("a.gguf", "b.gguf")
        }

    def _model(self, family: str) -> tuple[ModelConfig, dict[str, torch.Tensor]]:
        size = max(self.bpe.vocab_size, self.spm.vocab_size)
        config = ModelConfig.from_dict({
            "family": family, "vocab_size": size, "d_model": 32, "n_layers": 2, "n_heads": 4, "n_kv_heads": 2,
            "head_dim": 8, "d_ff": 64, "max_seq_len": 128, **FAMILIES[family],
        })  # fmt: skip
        return config, dict(tiny_gpt(config).state_dict())

    def gguf(self, work: Path, rng: random.Random) -> list[str]:
        name = rng.choice(list(self.heads))
        data = bytearray((self.folder / name).read_bytes())
        head = self.heads[name] if rng.random() < 0.9 else len(data)
        (work / "m.gguf").write_bytes(rng.choice(GGUF_MUTATIONS)(data, rng, head))
        return ask(work / "m.gguf", rng)

    def safetensors(self, work: Path, rng: random.Random) -> list[str]:
        path = self._copy(work, "llama") / "model.safetensors"
        data = bytearray(path.read_bytes())
        head = 8 + int.from_bytes(data[:8], "little")
        if rng.random() < 0.4:
            said = damaged(json.loads(data[8:head]), rng).encode("utf-8", "surrogatepass")
            data = bytearray(len(said).to_bytes(8, "little") + said + data[head:])
        elif rng.random() < 0.2:
            data = flip_bits(data, rng, len(data))
        else:
            data = rng.choice(SAFETENSORS_MUTATIONS)(data, rng, head)
        path.write_bytes(data)
        return ask(path.parent, rng)

    def tokenizer(self, work: Path, rng: random.Random) -> list[str]:
        folder = self._copy(work, "llama")
        names = [path.name for path in folder.glob("*.json") if path.name not in ("config.json",)]
        self._damage_json(folder / rng.choice(["tokenizer.json"] * 3 + sorted(names)), rng)
        return ask(folder, rng)

    def config(self, work: Path, rng: random.Random) -> list[str]:
        folder = self._copy(work, rng.choice(list(FAMILIES)))
        self._damage_json(folder / "config.json", rng)
        return ask(folder, rng)

    def native(self, work: Path, rng: random.Random) -> list[str]:
        folder = self._copy(work, "native")
        self._damage_json(folder / "nlpkit.json", rng)
        return ask(folder, rng)

    def adapter(self, work: Path, rng: random.Random) -> list[str]:
        folder = self._copy(work, "adapter")
        if rng.random() < 0.5:
            self._damage_json(folder / "adapter_config.json", rng)
        else:
            path = folder / "adapter_model.safetensors"
            data = bytearray(path.read_bytes())
            path.write_bytes(rng.choice(SAFETENSORS_MUTATIONS)(data, rng, 8 + int.from_bytes(data[:8], "little")))
        return [*ask(self.folder / "native", rng), "--adapter", str(folder)]

    def template(self, work: Path, rng: random.Random) -> list[str]:
        folder = self._copy(work, "llama")
        source = "".join(rng.choice((*TEMPLATE_BITS, CHAT)) for _ in range(rng.choice((1, 2, 3, 6, 12)))).encode()
        if rng.random() < 0.5:
            source = damaged_text(source, rng, (b"{{", b"}}", b"{%", b"%}", b"|", b"(", b")", b"'", b"* 9999999"))
        (folder / "chat_template.jinja").write_bytes(source)
        return ["generate", "the cat", "--chat", "-m", str(folder), "--max-tokens", "2", "--dtype", "fp32"]

    def rows(self, work: Path, rng: random.Random) -> list[str]:
        kind = rng.choice(("jsonl", "csv", "tsv", "jsonl.gz", "json"))
        if kind.startswith("json"):
            lines = [damaged(row, rng) if rng.random() < 0.3 else json.dumps(row) for row in ROWS]
            data = "\n".join(lines).encode("utf-8", "surrogatepass") + b"\n"
            marks = JSON_MARKS
        else:
            comma = "," if kind == "csv" else "\t"
            data = "".join(
                comma.join(line) + "\n" for line in (["prompt", "id"], ["the cat", "1"], ['"a, dog"', "2"])
            ).encode()
            marks = CSV_MARKS
        if rng.random() < 0.7:
            data = damaged_text(data, rng, marks)
        if kind.endswith("gz"):
            data = gzip.compress(data)
            if rng.random() < 0.5:
                data = bytes(rng.choice((flip_bits, truncate, splice, noise))(bytearray(data), rng, len(data)))
        (work / f"rows.{kind}").write_bytes(data)
        return ["generate", "-f", str(work / f"rows.{kind}"), *ask(self.folder / "native", rng)[2:]]

    def toml(self, work: Path, rng: random.Random) -> list[str]:
        os.symlink(self.folder / "native", work / "model")
        (work / "rows.jsonl").write_text("".join(json.dumps({"text": "", **row}) + "\n" for row in ROWS[:1] * 9))
        lines = TOML.encode().split(b"\n")
        for _ in range(rng.choice((1, 1, 2))):
            place = rng.randrange(len(lines))
            if b"=" in lines[place] and rng.random() < 0.7:
                lines[place] = (
                    lines[place].split(b"=")[0]
                    + b"= "
                    + rng.choice((*TOML_MARKS, b'""', b"[1]", b"{}", b"0", b"07:32:00"))
                )
        data = b"\n".join(lines)
        (work / "t.toml").write_bytes(damaged_text(data, rng, TOML_MARKS) if rng.random() < 0.5 else data)
        return ["train", "--config", str(work / "t.toml"), "--quiet", *(["--dry-run"] if rng.random() < 0.8 else [])]

    def _copy(self, work: Path, name: str) -> Path:
        shutil.copytree(self.folder / name, work / name)
        return work / name

    @staticmethod
    def _damage_json(path: Path, rng: random.Random) -> None:
        data = path.read_bytes()
        if rng.random() < 0.2:
            path.write_bytes(damaged_text(data, rng, JSON_MARKS))
        else:
            path.write_bytes(damaged(json.loads(data), rng).encode("utf-8", "surrogatepass"))


KINDS = ("gguf", "safetensors", "tokenizer", "config", "native", "adapter", "template", "rows", "toml")


def ask(model: Path, rng: random.Random) -> list[str]:
    """A command that loads a model and runs it."""
    chat = ["--chat"] if rng.random() < 0.5 else []
    dtype = rng.choice(("fp32", "fp32", "bf16"))
    return ["generate", "the cat", "-m", str(model), "--dtype", dtype, "--max-tokens", "2", *chat]


@dataclass(frozen=True)
class Outcome:
    """What became of one file."""

    number: int
    verdict: str
    said: str


def peak() -> int:
    """Most memory of this process since it was last asked, in bytes."""
    status = Path("/proc/self/status").read_text()
    found = int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) * 1024
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return found


def read_one(seeds: Seeds, kind: str, number: int, seed: int, work: Path) -> Outcome:
    """Damage a file, and let the command line read it in this process."""
    from nlpkit.cli import main

    work.mkdir()
    here = os.getcwd()
    try:
        arguments = getattr(seeds, kind)(work, random.Random(f"{seed} {kind} {number}"))
        os.chdir(work)
        out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2))
        source = io.TextIOWrapper(io.BytesIO())
        streams = sys.stdin, sys.stdout, sys.stderr
        peak()
        # A child begins with what its parent holds: what it takes beside that is its own.
        before = peak()
        started = time.process_time()
        try:
            sys.stdin, sys.stdout, sys.stderr = source, out, err
            code: int | str = main(arguments)
        except BaseException as error:
            code = f"{type(error).__name__}: {error}"
        finally:
            sys.stdin, sys.stdout, sys.stderr = streams
        seconds, most = time.process_time() - started, peak() - before
        said = err.buffer.getvalue().decode("utf-8", "replace")  # type: ignore[attr-defined]
    finally:
        os.chdir(here)
        shutil.rmtree(work)
    longest = max(map(len, said.splitlines()), default=0)
    if seconds > MOST_SECONDS:
        verdict = "long"
    elif most > MOST_BYTES:
        verdict = "memory"
    elif code not in (0, 2, 3) or "Traceback" in said or "internal error" in said or longest > MOST_CHARS:
        verdict = "bug"
    else:
        verdict = "read" if code == 0 else "refused"
    return Outcome(number, verdict, f"exit {code}, {seconds:.1f} s, {most >> 20} MiB: {said[-1500:]}")


def read_batch(seeds: Seeds, kind: str, numbers: list[int], seed: int, pipe: Any) -> None:
    """The work of a process: its limits, and file after file."""
    resource.setrlimit(resource.RLIMIT_AS, (MOST_ADDRESSES, MOST_ADDRESSES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with tempfile.TemporaryDirectory() as folder:
        os.environ["NLPKIT_HOME"] = f"{folder}/home"
        for number in numbers:
            # Whoever hangs is ended by the system: the limit is on all CPU time of the process so far.
            used = sum(os.times()[:2])
            resource.setrlimit(resource.RLIMIT_CPU, (int(used) + 3 * MOST_SECONDS, resource.RLIM_INFINITY))
            pipe.send(number)
            pipe.send(read_one(seeds, kind, number, seed, Path(folder, "work")))
    pipe.send(None)


def fuzz(seeds: Seeds, kind: str, count: int, seed: int, *, seconds: float = float("inf")) -> list[Outcome]:
    """Read so many damaged files of a kind, in processes that are forked off; fewer where the time is up."""
    outcomes: list[Outcome] = []
    context = multiprocessing.get_context("fork")
    started = time.monotonic()
    number = 0
    while number < count and time.monotonic() - started < seconds:
        numbers = list(range(number, min(number + BATCH, count)))
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=read_batch, args=(seeds, kind, numbers, seed, theirs))
        process.start()
        theirs.close()
        at: int | None = None
        while True:
            try:
                # A process that computes for ever is ended by its limit; this one is for those that wait.
                said = ours.recv() if ours.poll(900) else "silent"
            except EOFError:
                said = "died"
            if isinstance(said, int):
                at = said
            elif isinstance(said, Outcome):
                outcomes.append(said)
            else:
                break
        if said is not None:
            process.kill()
        process.join()
        ours.close()
        if said is not None and at is not None:
            kind_of = "long" if said == "silent" or process.exitcode == -24 else "crash"
            outcomes.append(Outcome(at, kind_of, f"{said}, exit code {process.exitcode}"))
        number = numbers[-1] + 1 if said is None or at is None else at + 1
    return outcomes


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=", ".join(KINDS))
    parser.add_argument("--count", type=int, default=20_000, help="files of each kind")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="most time for each kind")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--one", type=int, metavar="N", help="run one again, and show what it says")
    options = parser.parse_args()
    wrong = 0
    with tempfile.TemporaryDirectory() as folder:
        seeds = Seeds(Path(folder, "seeds"))
        if options.one is not None:
            for kind in options.kinds:
                print(kind, read_one(seeds, kind, options.one, options.seed, Path(folder, "work")))
            return 0
        verdicts = ("read", "refused", "bug", "long", "memory", "crash")
        print(
            f"{'kind':<12}{'files':>7}" + "".join(f"{verdict:>9}" for verdict in verdicts) + f"{'seconds':>9}",
            flush=True,
        )
        for kind in options.kinds or KINDS:
            started = time.monotonic()
            outcomes = fuzz(seeds, kind, options.count, options.seed, seconds=60 * options.minutes)
            counts = Counter(outcome.verdict for outcome in outcomes)
            cells = "".join(f"{counts[verdict]:>9}" for verdict in verdicts)
            print(f"{kind:<12}{len(outcomes):>7}{cells}{time.monotonic() - started:>9.0f}", flush=True)
            for outcome in outcomes:
                if outcome.verdict not in ("read", "refused"):
                    wrong += 1
                    print(f"    {outcome.number}: {outcome.verdict}: {outcome.said[-400:]}", flush=True)
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
