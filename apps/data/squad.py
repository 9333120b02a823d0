"""Reads questions in the layout of SQuAD."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from nlpkit.apps.data.parquet import MAX_SQUAD_BYTES
from nlpkit.apps.data.rows import Located
from nlpkit.apps.documents.files import decode_text, read_bytes
from nlpkit.core.errors import InputError


def read_squad(path: str) -> Iterator[Located]:
    """Read SQuAD JSON (v1.1, v2.0 and what keeps to their shape, such as CMRC 2018 and DRCD).

    Args:
        path: The file; gzip is seen through.

    Yields:
        ``id``, ``title``, ``context``, ``question``, ``answers`` (unique texts; none where ``is_impossible``) with
        their place, such as ``dev.json: data[0].paragraphs[2].qas[1]``.

    Raises:
        InputError: It is not JSON, or does not have this shape.
    """
    data = read_bytes(path, max_bytes=MAX_SQUAD_BYTES)
    try:
        whole = json.loads(decode_text(data, where=path))
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"{path} is not a SQuAD file: {error}. It must be one JSON object; one object a line is JSONL (--format "
            "jsonl)."
        ) from error
    articles = whole.get("data") if isinstance(whole, Mapping) else None
    if not isinstance(articles, list):
        raise InputError(
            f"{path} is not a SQuAD file: it must be an object with a list named 'data'. For JSON Lines give "
            "--format jsonl."
        )
    seen: dict[Any, str] = {}
    for a, article in enumerate(articles):
        for p, paragraph in enumerate(_items(article, "paragraphs", f"{path}: data[{a}]")):
            for q, question in enumerate(_items(paragraph, "qas", f"{path}: data[{a}].paragraphs[{p}]")):
                where = f"{path}: data[{a}].paragraphs[{p}].qas[{q}]"
                row = _squad_row(article, paragraph, question, where)
                if row["id"] in seen:
                    raise InputError(f"{where}: 'id' is {row['id']!r}, as at {seen[row['id']]}; it must be unique.")
                seen[row["id"]] = where
                yield row, where


def _items(value: Any, name: str, where: str) -> list[Any]:
    items = value.get(name) if isinstance(value, Mapping) else None
    if not isinstance(items, list):
        raise InputError(f"{where} has no list named {name!r}, as SQuAD files have.")
    return items


def _squad_row(article: Any, paragraph: Any, question: Any, where: str) -> dict[str, Any]:
    if not isinstance(question, Mapping) or not all(isinstance(question.get(key), str) for key in ("id", "question")):
        raise InputError(f"{where}: a question needs an 'id' and a 'question', both strings.")
    context = paragraph.get("context")
    if not isinstance(context, str):
        raise InputError(f"{where}: its paragraph has no 'context' string.")
    texts: list[str] = []
    if not question.get("is_impossible", False):
        for answer in _items(question, "answers", where):
            text = answer.get("text") if isinstance(answer, Mapping) else None
            if not isinstance(text, str):
                raise InputError(f"{where}: an answer needs a 'text' string.")
            texts.append(text)
    return {
        "id": question["id"],
        "title": str(article.get("title", "")),
        "context": context,
        "question": question["question"],
        "answers": list(dict.fromkeys(texts)),
    }
