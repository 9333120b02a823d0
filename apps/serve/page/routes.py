"""Routes of the page: a few files, the same for everybody, which load nothing from elsewhere."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib.resources import files

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from nlpkit.apps.serve.errors import ApiError

MEDIA = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",
}


@dataclass(frozen=True)
class PageFile:
    """A file of the page.

    Attributes:
        data: Its content.
        media: What that is called over HTTP.
        tag: Changes with the content.
    """

    data: bytes
    media: str
    tag: str


def read_page() -> dict[str, PageFile]:
    """Return the files of the page by name."""
    found = {}
    for file in files(__package__).joinpath("static").iterdir():
        end = "." + file.name.rpartition(".")[2]
        if end in MEDIA:
            data = file.read_bytes()
            found[file.name] = PageFile(data, MEDIA[end], f'"{hashlib.sha256(data).hexdigest()[:32]}"')
    return found


def page_routes() -> list[Route]:
    """Return the routes of the page; its files are read once."""
    page = read_page()

    def hand_out(request: Request) -> Response:
        file = page.get(request.path_params.get("name", "index.html"))
        if file is None:
            raise ApiError(f"The page has no file {request.path_params['name'][:100]!r}.", status=404)
        headers = {**HEADERS, "ETag": file.tag}
        if request.headers.get("if-none-match") == file.tag:
            return Response(status_code=304, headers=headers)
        return Response(file.data, media_type=file.media, headers=headers)

    def hand_out_icon(request: Request) -> Response:
        return Response(page["icon.svg"].data, media_type=page["icon.svg"].media, headers=HEADERS)

    return [
        Route("/", hand_out, methods=["GET"]),
        # Browsers ask for it whatever the page says.
        Route("/favicon.ico", hand_out_icon, methods=["GET"]),
        Route("/page/{name}", hand_out, methods=["GET"]),
    ]
