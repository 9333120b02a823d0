"""Gets models from the Hugging Face hub into our own cache.

`huggingface_hub` finds the files, the commit and the user's token; the bytes come through our own downloader, which
goes on where a killed download stopped. Only weights in safe formats, settings and tokenizer files are downloaded;
never pickles, never code. What was fetched once is found again in a small index of complete downloads, with no network
and without importing the hub's library.
"""

from __future__ import annotations

import contextlib
import fnmatch
import functools
import hashlib
import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nlpkit.core.errors import FetchError, did_you_mean
from nlpkit.core.fetch.catalogue import DownloadProgress
from nlpkit.core.fetch.download import DownloadError, download
from nlpkit.core.files.cache import cache_home, is_offline, locked
from nlpkit.core.files.hashing import CHUNK_BYTES
from nlpkit.core.files.write import write_json

WANTED = ("*.safetensors", "*.json", "tokenizer.model", "*.jinja", "merges.txt", "vocab.txt")
_COMMIT = re.compile(r"[0-9a-f]{40,64}")


@dataclass(frozen=True, kw_only=True)
class HubId:
    """A model on the hub.

    Attributes:
        repo: ``org/name``.
        file: One GGUF file of it, or None for the safetensors weights and everything that belongs to them.
        revision: Branch, tag or commit; None is the main branch.
    """

    repo: str
    file: str | None = None
    revision: str | None = None

    def __str__(self) -> str:
        return self.repo + (f"@{self.revision}" if self.revision else "") + (f":{self.file}" if self.file else "")


def fetch_from_hub(hub_id: HubId, *, allow_download: bool = True, progress: DownloadProgress | None = None) -> Path:
    """Return a hub model's file or directory, downloading it if it was never completely downloaded.

    ``HF_ENDPOINT`` and the hub's own token settings are honoured. The revision is resolved to its commit once; the
    model stays at that commit until it is deleted from the cache.

    Args:
        hub_id: Which model.
        allow_download: Whether the network may be used.
        progress: Told about the download.

    Returns:
        The GGUF file, or the directory that holds the safetensors weights.

    Raises:
        FetchError: The model is not in the cache and cannot, or must not, be downloaded; or it has no weights in a
            format that is safe to load.
    """
    known = _find_complete(hub_id)
    if known is not None:
        return known
    variable = is_offline()
    if variable or not allow_download:
        reason = f"{variable} is set" if variable else "downloads are switched off"
        raise FetchError(
            f"The model {hub_id} is not in the cache, and {reason}, so it is not downloaded. Allow the network, or "
            "give the path of a local copy."
        )
    with locked(_note(hub_id).with_suffix(".lock")):
        known = _find_complete(hub_id)
        return known if known is not None else _download(hub_id, progress)


def _store() -> Path:
    return cache_home() / "hub"


def _note(hub_id: HubId) -> Path:
    return _store() / "complete" / f"{hashlib.sha256(str(hub_id).encode()).hexdigest()[:32]}.json"


def _find_complete(hub_id: HubId) -> Path | None:
    """Return the path of a complete download, if all its files are still there at their size."""
    try:
        note = json.loads(_note(hub_id).read_text(encoding="utf-8"))
        if note["id"] != str(hub_id) or not note["files"]:
            return None
        root: Path = _store() / note["path"]
        for name, size in note["files"].items():
            if (root / name).stat().st_size != size:
                return None
        return root / hub_id.file if hub_id.file else root
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _download(hub_id: HubId, progress: DownloadProgress | None) -> Path:
    import huggingface_hub

    endpoint = os.environ.get("HF_ENDPOINT", "").rstrip("/") or None
    with _plain_errors(hub_id), _no_telemetry():
        info = huggingface_hub.HfApi(endpoint=endpoint).model_info(
            hub_id.repo, revision=hub_id.revision, files_metadata=True, timeout=30
        )
        if not info.sha or not _COMMIT.fullmatch(info.sha):
            raise FetchError(f"The hub gives no commit for {hub_id}, but {info.sha!r}.")
        files = {item.rfilename: item for item in info.siblings or []}
        names = _wanted(hub_id, list(files))
        total, done = sum(int(files[name].size or 0) for name in names), 0
        root = _store() / hub_id.repo.replace("/", "--") / info.sha
        headers: dict[str, str] = huggingface_hub.utils.build_hf_headers()  # type: ignore[attr-defined]
        # Settings first: a mistake shows before the large files come.
        for name in sorted(names, key=lambda name: (name.endswith((".safetensors", ".gguf")), name)):
            url = huggingface_hub.hf_hub_url(hub_id.repo, name, revision=info.sha, endpoint=endpoint)
            report = None if progress is None else functools.partial(_report, progress, done, total)
            _download_file(url, root / name, files[name], headers, report)
            done += int(files[name].size or 0)
        note = {
            "id": str(hub_id),
            "commit": info.sha,
            "path": str(root.relative_to(_store())),
            "files": {name: (root / name).stat().st_size for name in names},
        }
        write_json(_note(hub_id), note)
    return root / hub_id.file if hub_id.file else root


def _report(progress: DownloadProgress, before: int, total: int, done: int, _: int) -> None:
    progress(before + done, total)


def _download_file(
    url: str, target: Path, item: Any, headers: dict[str, str], progress: DownloadProgress | None
) -> None:
    """Download one file, going on with what an earlier run left, and check it against the hub's own hash."""
    size = int(item.size or 0)
    if target.exists() and target.stat().st_size == size:
        if progress:
            progress(size, size)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    resumed = part.exists()
    part.touch()
    download(url, part, size=size, progress=progress, headers=headers)
    if not _is_right(part, item, size):
        part.unlink()
        if resumed:
            # The piece that an earlier run left may have been damaged.
            _download_file(url, target, item, headers, progress)
            return
        raise DownloadError(f"{target.name} came with the wrong hash", kind="broken")
    os.replace(part, target)


def _is_right(path: Path, item: Any, size: int) -> bool:
    """Compare with the sha256 of a large file, or the git blob id of a small one, where the hub tells it."""
    lfs = getattr(item, "lfs", None)
    expected = getattr(lfs, "sha256", None) or getattr(item, "blob_id", None)
    if not expected:
        return True
    # Git's ids are sha1, which is enough against accidents; the transport is what guards against attacks.
    digest = hashlib.sha256() if lfs else hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest() == str(expected)


def _wanted(hub_id: HubId, names: Sequence[str]) -> list[str]:
    """Choose the files to download, out of those that the repository has."""
    ggufs = sorted(name for name in names if name.endswith(".gguf"))
    if hub_id.file is not None:
        if hub_id.file not in names or ".." in hub_id.file.split("/") or hub_id.file.startswith("/"):
            raise FetchError(f"{hub_id.repo} has no file {hub_id.file!r}. {did_you_mean(hub_id.file, ggufs)}".strip())
        return [hub_id.file]
    top = [name for name in names if "/" not in name and "\\" not in name and not name.startswith(".")]
    if not any(name.endswith(".safetensors") for name in top):
        if ggufs:
            choices = ", ".join(f"{hub_id.repo}:{name}" for name in ggufs[:8])
            raise FetchError(f"{hub_id.repo} has several files to choose from. Name one: {choices}.")
        raise FetchError(
            f"{hub_id.repo} has no weights in a safe format (safetensors or GGUF); pickle checkpoints (.bin, .pt) can "
            "run code when they are opened and are not loaded. Use another copy of the model."
        )
    return [name for name in top if any(fnmatch.fnmatchcase(name, pattern) for pattern in WANTED)]


@contextlib.contextmanager
def _plain_errors(hub_id: HubId) -> Iterator[None]:
    """Turn the many errors of the hub's library and of its HTTP client into ours."""
    from huggingface_hub import errors as hub

    where = os.environ.get("HF_ENDPOINT") or "the Hugging Face hub"
    gated = getattr(hub, "GatedRepoError", hub.RepositoryNotFoundError)
    try:
        yield
    except (FetchError, KeyboardInterrupt):
        raise
    except Exception as error:
        told = str(error).strip().splitlines()
        detail = told[0] if told else type(error).__name__
        if isinstance(error, DownloadError) and error.kind == "refused":
            message = f"{where} does not give out {hub_id.repo} ({error}). Accept its terms there and set HF_TOKEN."
        elif isinstance(error, gated) and gated is not hub.RepositoryNotFoundError:
            message = f"{hub_id.repo} is gated: accept its terms on {where} and set HF_TOKEN to a token of yours."
        elif isinstance(error, hub.RepositoryNotFoundError):
            message = (
                f"{where} has no model {hub_id.repo!r}, or it is private. Check the spelling; set HF_TOKEN if it is."
            )
        elif isinstance(error, hub.RevisionNotFoundError):
            message = f"{hub_id.repo} has no revision {hub_id.revision!r}."
        elif isinstance(error, OSError) and error.errno is not None and not isinstance(error, ConnectionError):
            message = f"The model {hub_id} could not be stored in {_store()}: {error}. Make room, or set NLPKIT_HOME."
        else:
            message = (
                f"The model {hub_id} could not be downloaded from {where}: {detail} Try again (what came is kept), or "
                "give the path of a local copy."
            )
        raise FetchError(message) from error


@contextlib.contextmanager
def _no_telemetry() -> Iterator[None]:
    """Keep the hub's library from telling the versions of other packages, and from asking a further page about that."""
    from huggingface_hub import constants

    # The environment variable is read once, on import, which may be long past.
    before = constants.HF_HUB_DISABLE_TELEMETRY
    constants.HF_HUB_DISABLE_TELEMETRY = True
    try:
        yield
    finally:
        constants.HF_HUB_DISABLE_TELEMETRY = before
