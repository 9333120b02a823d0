"""Errors of the HTTP interface, in the form that clients of OpenAI's read: four keys, always all of them."""

from __future__ import annotations

from typing import Any

from nlpkit.apps.models.adapters import NotLearnedError
from nlpkit.core.decode.shared.submission import CancelledRequestError, ClosedServiceError
from nlpkit.core.errors import ContextOverflowError, FetchError, ModelFileError, NlpkitError

INVALID = "invalid_request_error"


class ApiError(Exception):
    """What a request is answered with instead of a result.

    Args:
        message: What happened, what was got, what to do.
        status: HTTP status.
        kind: The error's type.
        param: The field that is to blame, or None.
        code: A word for programs, or None.
        headers: More headers of the answer.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        kind: str = INVALID,
        param: str | None = None,
        code: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.kind = kind
        self.param = param
        self.code = code
        self.headers = headers or {}

    def body(self) -> dict[str, Any]:
        """Return the answer's body."""
        return {"error": {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}}


class QueueFullError(ApiError):
    """More requests are in the house than it holds."""

    def __init__(self, limit: int, *, retry_after: int) -> None:
        super().__init__(
            f"The server works on {limit} requests already, which is its limit. Try again in {retry_after} s.",
            status=429,
            kind="rate_limit_error",
            code="queue_full",
            headers={"Retry-After": str(retry_after)},
        )


def unavailable(message: str, *, code: str) -> ApiError:
    """Return the error of a server that cannot answer now, but may later."""
    return ApiError(message, status=503, kind="server_error", code=code, headers={"Retry-After": "5"})


def to_api_error(error: Exception) -> ApiError:
    """Say an error of ours in the words of the interface; what is a bug tells nothing of its inside."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, ContextOverflowError):
        return ApiError(str(error), code="context_length_exceeded")
    if isinstance(error, NotLearnedError):
        return ApiError(str(error), code="not_learned")
    if isinstance(error, ClosedServiceError):
        return unavailable(str(error), code="shutting_down")
    if isinstance(error, CancelledRequestError):
        return unavailable(str(error), code="cancelled")
    if isinstance(error, (ModelFileError, FetchError)):
        return unavailable(f"The model cannot be used: {error}", code="model_unavailable")
    if isinstance(error, NlpkitError):
        return ApiError(str(error))
    if isinstance(error, MemoryError) or "allocate memory" in str(error):
        return unavailable("There is not enough memory for this request now.", code="out_of_memory")
    return ApiError(
        "The server failed to answer: this is a bug, and its log says more.", status=500, kind="server_error"
    )
