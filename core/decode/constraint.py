"""`Constraint`: a form that a whole completion must have."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from nlpkit.core.errors import ConfigError, did_you_mean

ConstraintKind = Literal["choice", "regex", "json_schema", "grammar"]


@dataclass(frozen=True, kw_only=True)
class Constraint:
    """A form that a whole completion must have. Make one with `choice`, `regex`, `json_schema` or `grammar`.

    The values here are plain text, so that they can stand in a run record; whether a regular expression, schema or
    grammar can be used shows when it meets a tokenizer (`nlpkit.core.decode.guide`).

    Attributes:
        kind: ``choice``, ``regex``, ``json_schema`` or ``grammar``.
        text: The regular expression, JSON schema or grammar; for ``choice`` a JSON list of strings.
    """

    kind: ConstraintKind
    text: str

    def __post_init__(self) -> None:
        kinds = get_args(ConstraintKind)
        if self.kind not in kinds:
            raise ConfigError(f"There is no kind of constraint {self.kind!r}. {did_you_mean(str(self.kind), kinds)}")
        if not isinstance(self.text, str) or not self.text.strip():
            raise ConfigError(f"The {self.kind} constraint is {self.text!r}; it must be a text that is not blank.")
        try:
            self.text.encode()
        except UnicodeEncodeError as error:
            raise ConfigError(
                f"The {self.kind} constraint holds a lone surrogate at character {error.start}: it was decoded with "
                "the wrong encoding. Read it again as UTF-8."
            ) from error
        if self.kind == "choice":
            _check_choices(_parse(self.text, self.kind))
        elif self.kind == "json_schema":
            schema = _parse(self.text, self.kind)
            if not isinstance(schema, dict):
                raise ConfigError(f"The JSON schema is {schema!r}; it must be a JSON object.")

    @classmethod
    def choice(cls, *options: str) -> Constraint:
        """Allow exactly these texts.

        Args:
            options: At least one; none empty, no two the same.

        Raises:
            ConfigError: The options are not such texts.
        """
        _check_choices(list(options))
        return cls(kind="choice", text=json.dumps(options, ensure_ascii=False))

    @classmethod
    def regex(cls, pattern: str) -> Constraint:
        """Allow what a regular expression matches as a whole; ``.`` matches no line end.

        Args:
            pattern: In the syntax of Rust's ``regex`` crate: no look-around and no back-references.

        Raises:
            ConfigError: The pattern is blank.
        """
        return cls(kind="regex", text=pattern)

    @classmethod
    def json_schema(cls, schema: str | Mapping[str, Any]) -> Constraint:
        """Allow JSON on one line that is valid under a schema; properties come in the order of the schema.

        Args:
            schema: JSON schema (draft 2020-12), as text or as an object. What the library cannot enforce, such as
                ``not`` or ``uniqueItems``, is refused when the schema is first used.

        Raises:
            ConfigError: The text is no JSON object.
        """
        if isinstance(schema, str):
            return cls(kind="json_schema", text=schema)
        try:
            return cls(kind="json_schema", text=json.dumps(dict(schema), ensure_ascii=False))
        except (TypeError, ValueError) as error:
            raise ConfigError(f"The JSON schema cannot be written as JSON: {error}.") from error

    @classmethod
    def grammar(cls, text: str) -> Constraint:
        """Allow what a context-free grammar derives from its rule ``start``.

        Args:
            text: In llguidance's form of Lark's syntax.

        Raises:
            ConfigError: The text is blank.
        """
        return cls(kind="grammar", text=text)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Constraint:
        """Read what `dataclasses.asdict` writes.

        Raises:
            ConfigError: Something else than ``kind`` and ``text`` is there, or one of them is wrong.
        """
        if set(values) != {"kind", "text"}:
            raise ConfigError(f"A constraint has the keys 'kind' and 'text', not {', '.join(map(repr, values))}.")
        return cls(kind=values["kind"], text=values["text"])

    @property
    def options(self) -> tuple[str, ...]:
        """The texts of a ``choice``; empty for other kinds."""
        return tuple(json.loads(self.text)) if self.kind == "choice" else ()


def _parse(text: str, kind: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"The {kind} constraint is no JSON: {error}.") from error


def _check_choices(options: Any) -> None:
    right = isinstance(options, list) and all(isinstance(option, str) and option for option in options)
    if not right or not options or len(set(options)) < len(options):
        raise ConfigError(f"The choices are {options!r}; they must be one or more different, non-empty strings.")
