"""HTTP downloads that resume, with the user's proxies and certificates."""

from __future__ import annotations

import base64
import contextlib
import http.client
import os
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from nlpkit.core.files.hashing import CHUNK_BYTES

ATTEMPTS = 5
PAGE_ATTEMPTS = 2
TIMEOUT_SECONDS = 30.0
BACKOFF_SECONDS = 0.5
_CERTIFICATES = ("PIP_CERT", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")
_AGENT = "nlpkit"

FailureKind = Literal["absent", "unreachable", "refused", "broken"]


class DownloadError(Exception):
    """One source did not work out; the caller tries the next or tells the user.

    Attributes:
        kind: ``absent`` (it is not there), ``unreachable`` (no connection), ``refused`` (credentials, certificates) or
            ``broken`` (it ended early, or is not what it should be).
    """

    def __init__(self, message: str, *, kind: FailureKind) -> None:
        super().__init__(message)
        self.kind: FailureKind = kind


def read_url(url: str, *, accept: str, limit: int) -> tuple[bytes, str, str]:
    """Read one page.

    Args:
        url: ``http:`` or ``https:``.
        accept: The Accept header.
        limit: Most bytes to read.

    Returns:
        The body, its content type, and the URL after redirects.

    Raises:
        DownloadError: It cannot be read, or is longer.
    """
    for attempt in range(PAGE_ATTEMPTS):
        try:
            return _read_once(url, accept, limit)
        except DownloadError as error:
            if error.kind != "unreachable" or attempt == PAGE_ATTEMPTS - 1:
                raise
            time.sleep(BACKOFF_SECONDS * 2**attempt)
    raise DownloadError(f"{_host(url)} was not asked", kind="unreachable")


def _read_once(url: str, accept: str, limit: int) -> tuple[bytes, str, str]:
    with contextlib.closing(_open(url, {"Accept": accept})) as response:
        try:
            body: bytes = response.read(limit + 1)
        except (OSError, http.client.HTTPException) as error:
            raise DownloadError(f"{_host(url)} broke off: {error}", kind="unreachable") from error
        if len(body) > limit:
            raise DownloadError(f"the page from {_host(url)} is longer than {limit:,} bytes", kind="broken")
        return body, response.headers.get("Content-Type", ""), response.geturl()


def download(
    url: str,
    part: Path,
    *,
    size: int,
    progress: Callable[[int, int], None] | None = None,
    headers: Mapping[str, str] | None = None,
) -> None:
    """Download into `part`, going on from what is there already.

    Args:
        url: ``http:`` or ``https:``.
        part: Takes the bytes. After a failure it keeps what came, for the next time.
        size: How many bytes the whole file has; never more are written.
        progress: Called with the bytes that are there and `size`.
        headers: Further request headers; ``Authorization`` is not sent on to another host.

    Raises:
        DownloadError: It did not come, after several attempts that brought nothing.
        OSError: `part` cannot be written.
    """
    attempt = 0
    while True:
        have = part.stat().st_size if part.exists() else 0
        if have > size:
            part.unlink()
            have = 0
        if progress:
            progress(have, size)
        if have == size:
            return
        try:
            _append(url, part, have, size, progress, headers or {})
            continue
        except DownloadError as error:
            if error.kind != "unreachable":
                raise
            gained = part.exists() and part.stat().st_size > have
            attempt = 1 if gained else attempt + 1
            if attempt >= ATTEMPTS:
                raise
        time.sleep(BACKOFF_SECONDS * 2 ** (attempt - 1))


def _append(
    url: str,
    part: Path,
    have: int,
    size: int,
    progress: Callable[[int, int], None] | None,
    given_headers: Mapping[str, str],
) -> None:
    headers = {**given_headers, "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
    with contextlib.closing(_open(url, headers)) as response:
        # A server may ignore the range and send everything from the start.
        resumed = response.status == 206 and response.headers.get("Content-Range", "").startswith(f"bytes {have}-")
        if have and not resumed:
            have = 0
        with part.open("ab" if resumed else "wb") as file:
            while have <= size:
                try:
                    # read1 hands over what has come, so an interruption loses nothing.
                    chunk = response.read1(CHUNK_BYTES)
                except (OSError, http.client.HTTPException) as error:
                    raise DownloadError(f"{_host(url)} broke off: {error}", kind="unreachable") from error
                if not chunk:
                    break
                have += len(chunk)
                if have > size:
                    break
                file.write(chunk)
                if progress:
                    progress(have, size)
    if have > size:
        part.unlink()
        raise DownloadError(f"{_host(url)} sends more than the {size:,} bytes that the file has", kind="broken")
    if have < size:
        raise DownloadError(f"{_host(url)} broke off after {have:,} of {size:,} bytes", kind="unreachable")


def _open(url: str, headers: dict[str, str]) -> Any:
    parts = urllib.parse.urlsplit(url)
    if parts.scheme not in ("http", "https"):
        raise DownloadError(f"addresses of the kind {parts.scheme!r} are not supported", kind="absent")
    headers = {"User-Agent": _AGENT, **headers}
    if parts.username:
        # urllib does not take credentials out of the address by itself.
        user = f"{urllib.parse.unquote(parts.username)}:{urllib.parse.unquote(parts.password or '')}"
        headers["Authorization"] = "Basic " + base64.b64encode(user.encode()).decode()
        url = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
    request = urllib.request.Request(url)  # noqa: S310
    for name, value in headers.items():
        # Unredirected, so that neither credentials nor ranges go to another host by accident.
        (request.add_unredirected_header if name.lower() == "authorization" else request.add_header)(name, value)
    opener = urllib.request.build_opener(urllib.request.HTTPSHandler(context=_tls_context()))
    try:
        return opener.open(request, timeout=TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        kind: FailureKind = "unreachable"
        if error.code in (401, 403, 407):
            kind = "refused"
        elif error.code in (404, 410):
            kind = "absent"
        elif error.code == 416 or 400 <= error.code < 429 or 429 < error.code < 500:
            kind = "broken"
        error.close()
        raise DownloadError(f"{_host(url)} answered {error.code} {error.reason}", kind=kind) from error
    except urllib.error.URLError as error:
        refused = isinstance(error.reason, ssl.SSLError)
        raise DownloadError(
            f"{_host(url)} cannot be reached: {error.reason}", kind="refused" if refused else "unreachable"
        ) from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise DownloadError(f"{_host(url)} cannot be reached: {error}", kind="unreachable") from error


def _tls_context() -> ssl.SSLContext:
    for name in _CERTIFICATES:
        path = os.environ.get(name, "")
        if path and Path(path).exists():
            try:
                if Path(path).is_dir():
                    return ssl.create_default_context(capath=path)
                return ssl.create_default_context(cafile=path)
            except (OSError, ssl.SSLError) as error:
                raise DownloadError(
                    f"the certificates in {path} ({name}) cannot be read: {error}", kind="refused"
                ) from error
    context = ssl.create_default_context()
    if not context.cert_store_stats()["x509_ca"]:
        # Some Python builds find no system certificates; certifi comes with huggingface_hub.
        with contextlib.suppress(ImportError, OSError):
            import certifi

            context.load_verify_locations(certifi.where())
    return context


def _host(url: str) -> str:
    return urllib.parse.urlsplit(url).netloc.rpartition("@")[2]
