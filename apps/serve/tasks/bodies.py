"""Bodies of task requests, made from what each task says of its fields."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, StringConstraints, create_model

from nlpkit.apps.serve.body import Body, at_most
from nlpkit.apps.serve.errors import ApiError
from nlpkit.apps.tasks.task import Field as Column
from nlpkit.apps.tasks.task import Overflow, Row, Task

MOST_ROWS = 256
"""Most rows of one request."""

MOST_ENTRIES = 10_000
"""Most entries of an object in a field."""

_Text = Annotated[str, StringConstraints(max_length=4_000_000)]
_KINDS: dict[type, Any] = {
    str: _Text,
    list: Annotated[list[_Text], Field(max_length=1000, fail_fast=True)],
    dict: Annotated[dict[str, _Text], Field(max_length=MOST_ENTRIES), at_most(MOST_ENTRIES)],
    int: Annotated[int, Field(ge=-(10**18), le=10**18)],
}

_Stops = Annotated[list[Annotated[str, Field(min_length=1, max_length=1000)]], Field(max_length=16, fail_fast=True)]
_Words = Annotated[list[Annotated[str, Field(max_length=1000)]], Field(max_length=64, fail_fast=True)]


class TaskOptions(Body):
    """Decoding options: those of `nlpkit.core.decode.config.DecodeConfig`. What is left out, the task decides."""

    max_tokens: int | None = Field(None, ge=1, le=1_000_000, description="Most tokens to write.")
    min_tokens: int | None = Field(None, ge=0, le=1_000_000, description="Fewest tokens to write.")
    temperature: float | None = Field(None, ge=0, le=100, description="0 takes the likeliest token.")
    top_k: int | None = Field(None, ge=0, le=10_000_000, description="Sample from so many of the likeliest; 0 is off.")
    top_p: float | None = Field(None, ge=0, le=1, description="Sample from the likeliest tokens of this total.")
    min_p: float | None = Field(None, ge=0, le=1, description="Least share of the likeliest token's probability.")
    typical_p: float | None = Field(None, ge=0, le=1, description="Sample from the most typical tokens of this total.")
    repetition_penalty: float | None = Field(None, ge=0.01, le=100, description="Above 1 repeats less.")
    frequency_penalty: float | None = Field(None, ge=-2, le=2, description="For each time that a token was written.")
    presence_penalty: float | None = Field(None, ge=-2, le=2, description="Once for tokens that were written.")
    no_repeat_ngram: int | None = Field(None, ge=0, le=1000, description="Never write so many tokens twice; 0 is off.")
    stop: _Stops | None = Field(None, description="Strings that end the text.")
    seed: int | None = Field(None, ge=0, lt=2**63, description="Repeats what was sampled.")
    n: int | None = Field(None, ge=1, le=20, description="Give so many predictions, as alternatives.")
    beam_size: int | None = Field(None, ge=1, le=32, description="Beams to search with; 1 does not search.")
    length_penalty: float | None = Field(None, ge=-10, le=10, description="Of beam search.")
    beam_groups: int | None = Field(None, ge=1, le=32, description="Groups of beams that are kept apart.")
    diversity_penalty: float | None = Field(None, ge=0, le=1000, description="What keeps groups of beams apart.")
    must_include: _Words | None = Field(None, description="Words that the text must hold; searches with beams.")
    contrastive_alpha: float | None = Field(None, ge=0, le=1, description="Contrastive search; 0 is off.")


class TaskBody(Body):
    """What requests of all tasks have in common; a field that is null is as if it were left out."""

    model: str | None = Field(None, max_length=500, description="Id of a model; by default the first one.")
    stream: bool | None = Field(None, description="Send events as the text is written; only for a single row.")
    options: TaskOptions | None = Field(None, description="Decoding options.")
    on_overflow: Overflow | None = Field(None, description="What to do with a text that does not fit the model.")


def build_body(task: Task[Any], name: str) -> type[TaskBody]:
    """Make the body of a task's requests: a row's fields beside `TaskBody`'s, or ``rows``.

    Args:
        task: The task.
        name: The class's name, which the interface's description shows.
    """
    columns = [column for column in task.fields if column.role != "reference"]
    row = create_model(f"{name}Row", __base__=Body, **{column.name: _field(column) for column in columns})
    rows: Any = Annotated[list[row], Field(min_length=1, max_length=MOST_ROWS, fail_fast=True)]  # type: ignore[valid-type]
    fields: dict[str, Any] = {column.name: (_KINDS[column.kind] | None, _described(column)) for column in columns}
    described = Field(None, description="Several rows instead of one: objects with the fields of one.")
    body: type[TaskBody] = create_model(name, __base__=TaskBody, **fields, rows=(rows | None, described))
    return body


def _field(column: Column) -> Any:
    if not column.required:
        return (_KINDS[column.kind] | None, _described(column))
    return (_KINDS[column.kind], Field(description=column.help or column.name))


def _described(column: Column) -> Any:
    return Field(None, description=column.help or column.name)


def rows_of(task: Task[Any], body: TaskBody) -> list[Row]:
    """Return the rows of a request, without what is null.

    Raises:
        ApiError: There are both rows and fields of a single one, or neither.
    """
    names = [column.name for column in task.fields]
    single = {name: getattr(body, name) for name in names if getattr(body, name, None) is not None}
    rows: list[Any] | None = getattr(body, "rows", None)
    if rows is None:
        missing = [column.name for column in task.fields if column.required and column.name not in single]
        if missing:
            raise ApiError(
                f"You must provide a {missing[0]} parameter, or rows.", param=missing[0], code="missing_parameter"
            )
        return [single]
    if single:
        one = next(iter(single))
        raise ApiError(f"Both rows and {one} are given: put {one} into each row, or leave rows out.", param=one)
    if body.stream:
        raise ApiError("Several rows cannot be streamed: ask for one, or leave stream out.", param="stream")
    return [row.model_dump(exclude_none=True) for row in rows]
