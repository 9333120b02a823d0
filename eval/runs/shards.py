"""Putting the shards of one run together."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nlpkit.core.errors import InputError
from nlpkit.core.files.hashing import hash_value
from nlpkit.eval.runs.rescoring import RunOutcome, stored_options, write_run
from nlpkit.eval.runs.run_folder import Run, differences, identity, load_run
from nlpkit.eval.runs.samples import SampleRecord

_PER_SHARD = ("data.rows", "data.sha256", "data.selection.shard")


def merge_runs(folders: Sequence[str | os.PathLike[str]], output: str | os.PathLike[str]) -> RunOutcome:
    """Merge the shards of a run into a run directory of its own, and score it.

    Args:
        folders: The run directories of all shards ``1/n`` to ``n/n``, in any order.
        output: The directory to write.

    Returns:
        The merged run.

    Raises:
        InputError: A shard is missing, comes twice, is not complete, or belongs to another run.
        ConfigError: `output` holds something else.
    """
    runs = [load_run(folder) for folder in folders]
    count = _check_shards(runs)
    samples: dict[int, SampleRecord] = {}
    for run in runs:
        for sample in run.samples:
            if sample.index in samples:
                raise InputError(f"Row {sample.index} is in two of the shards. Give each shard once.")
            samples[sample.index] = sample
    ordered = [samples[index] for index in sorted(samples)]
    first = runs[0].record
    selection = {key: value for key, value in first["data"]["selection"].items() if key != "shard"}
    record: dict[str, Any] = {
        **{key: value for key, value in first.items() if key not in ("metrics", "scoring", "notes", "counts")},
        "data": {
            **first["data"],
            "rows": len(ordered),
            # As `Dataset.sha256`, so that the whole can be compared with a run that was never cut.
            "sha256": hash_value([[sample.index, sample.row_sha256] for sample in ordered]),
            "selection": selection,
        },
        "merged": [{"folder": str(run.folder), "shard": _shard(run)} for run in runs],
        "sessions": [session for run in runs for session in run.record["sessions"]],
        "seconds": sum(float(run.record.get("seconds") or 0) for run in runs),
    }
    tokens = sum(sample.output_tokens for sample in ordered)
    record["tokens_per_second"] = round(tokens / record["seconds"], 2) if record["seconds"] else None
    outcome = write_run(Path(output), record, ordered, stored_options(first))
    return RunOutcome(outcome.folder, outcome.record, (f"{count} shards, {len(ordered)} rows",))


def _shard(run: Run) -> str:
    return str(run.record["data"]["selection"].get("shard", ""))


def _check_shards(runs: Sequence[Run]) -> int:
    for run in runs:
        if not _shard(run):
            raise InputError(f"{run.folder} is not a shard: it was run without --shard.")
        total = run.record["counts"]["rows"]
        if len(run.samples) < total:
            raise InputError(f"{run.folder} has {len(run.samples)} of {total} rows: run its command again first.")
    first = _whole(runs[0])
    for run in runs[1:]:
        changed = differences(first, _whole(run))
        if changed:
            raise InputError(f"{runs[0].folder} and {run.folder} are not shards of one run: {'; '.join(changed[:4])}.")
    count = int(_shard(runs[0]).partition("/")[2])
    found = [_shard(run) for run in runs]
    wanted = [f"{number}/{count}" for number in range(1, count + 1)]
    missing = [name for name in wanted if name not in found]
    extra = [name for name in found if name not in wanted]
    if missing or extra or len(found) != count:
        what = f"the shards {', '.join(missing)} are missing" if missing else f"there are {len(found)} shards"
        raise InputError(f"Of a run of {count} shards, {what}; got {', '.join(found)}. Give each of them once.")
    return count


def _whole(run: Run) -> dict[str, Any]:
    return {key: value for key, value in identity(run.record).items() if key not in _PER_SHARD}
