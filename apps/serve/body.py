"""Bodies of requests: JSON objects whose fields are declared, and the words in which others are refused."""

from __future__ import annotations

from typing import TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

from nlpkit.apps.serve.errors import ApiError


class Body(BaseModel):
    """A JSON object; a field that is not known, or of another type, is refused."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, frozen=True)


MOST_TOLD = 1000
"""Most mistakes of a body that are looked at, to tell of one."""


def at_most(count: int) -> BeforeValidator:
    """Return what refuses a longer object before its entries are looked at.

    What is wrong with an entry takes a hundred times the memory of what was sent; lists have ``fail_fast`` for that.
    """

    def check(value: object) -> object:
        if isinstance(value, dict) and len(value) > count:
            raise ValueError(f"it has {len(value):,} entries, and may have {count:,}")
        return value

    return BeforeValidator(check)


_B = TypeVar("_B", bound=BaseModel)


def read_body(kind: type[_B], data: bytes, **known: object) -> _B:
    """Read a request's body.

    Args:
        kind: What it should be.
        data: JSON.
        known: Fields that the address says, where the body leaves them out.

    Raises:
        ApiError: It is something else; the message names the field.
    """
    try:
        if known:
            values = _Any.model_validate_json(data).model_dump()
            for name, value in known.items():
                values.setdefault(name, value)
            return kind.model_validate(values)
        return kind.model_validate_json(data)
    except ValidationError as error:
        raise _refusal(error) from None
    except RecursionError:
        raise ApiError("The body is nested too deeply.") from None


class _Any(BaseModel):
    model_config = ConfigDict(extra="allow", allow_inf_nan=False)


def _refusal(error: ValidationError) -> ApiError:
    if error.error_count() > MOST_TOLD:
        # To look at them all would take more memory than all else.
        return ApiError(f"The body has {error.error_count():,} mistakes. /docs lists what there is.")
    # Of the forms that a field may have, the last is told of as much as the first: the longest path is the closest.
    problems = error.errors(include_url=False, include_context=False, include_input=False)
    first = max(problems, key=lambda one: (one["loc"][:1] == problems[0]["loc"][:1], len(one["loc"])))
    path = [str(part) for part in first["loc"]]
    if not path:
        return ApiError(f"The body cannot be read: {first['msg']}. It must be a JSON object.")
    field = path[0]
    if first["type"] == "extra_forbidden":
        where = ".".join(path)
        return ApiError(
            f"Unrecognized request argument supplied: {where}. Leave it out; /docs lists what there is.",
            param=where,
            code="unknown_parameter",
        )
    if first["type"] == "missing":
        return ApiError(
            f"You must provide a {'.'.join(path)} parameter.", param=".".join(path), code="missing_parameter"
        )
    forms = {one["msg"] for one in problems if one["loc"][:1] == (field,)}
    message = "; or ".join(sorted(forms)[:6]) if len(forms) > 1 else first["msg"]
    # Of a field with several forms, the path names the form as well, which nobody wrote.
    named = (
        ".".join(path) if len(forms) == 1 and all(part.isidentifier() or part.isdecimal() for part in path) else field
    )
    return ApiError(
        f"Invalid value for {named}: {message.removeprefix('Value error, ')}.", param=field, code="invalid_value"
    )
