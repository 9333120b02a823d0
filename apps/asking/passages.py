"""Passages of texts, and which of them a question is about."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from nlpkit.apps.text.chunking import split_paragraphs, split_sentences
from nlpkit.core.errors import InputError

PASSAGE_WORDS = 100
"""Words of a passage: enough to understand an answer, few enough that ten are read in seconds."""

STEM = 6
"""Letters of a word that count. What follows is its ending in most languages, and a search need not know which."""

MAX_PASSAGES = 500_000
"""Most passages of one collection."""

K1, B = 1.2, 0.75
"""The usual constants of BM25: how soon repetition saturates, and how much the length of a passage counts."""

_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|[^\W_]+")
_ASKED = """
what who whom whose which when where why how did do does is are was were has have had the a an of in on at to for by
with and or from as be been that this it its wer wen wem wessen welche welcher welches wann wo warum wie hat haben
hatte ist sind war waren der die das den dem ein eine einer und oder von vom im am zu zum zur für mit bei es que quoi
qui quel quelle quels quelles quand où pourquoi comment est sont était ont le la les un une des du de et ou en au aux
par pour avec dans qué quién quiénes cuál cuáles cuándo dónde por cómo son era fue ha han el los las una del y o al
para con many much viel viele combien cuánto cuánta cuántos cuántas
"""
ASKED = frozenset(_ASKED.split())
"""Words of questions that say nothing about what is asked for, in English, German, French and Spanish."""


@dataclass(frozen=True)
class Passage:
    """Some sentences of a text.

    Attributes:
        source: Number of the text.
        start: Where it begins in the text, in characters.
        text: The sentences.
    """

    source: int
    start: int
    text: str


def split_passages(text: str, *, source: int = 0) -> list[Passage]:
    """Cut a text into passages of whole sentences of about `PASSAGE_WORDS` words.

    Short paragraphs are joined; two passages of one long paragraph share a sentence, so that none stands without the
    one before it.

    Args:
        text: The text.
        source: Its number.

    Returns:
        Passages in order; none of blank texts.
    """
    found: list[Passage] = []
    pieces: list[tuple[int, str]] = []
    words = at = 0

    def end() -> None:
        whole = "".join(piece for _, piece in pieces)
        if whole.strip():
            lead = len(whole) - len(whole.lstrip())
            found.append(Passage(source, pieces[0][0] + lead, whole.strip()))

    for paragraph in split_paragraphs(text):
        for number, sentence in enumerate(split_sentences(paragraph)):
            count = len(sentence.split())
            if pieces and words + count > PASSAGE_WORDS:
                end()
                pieces = pieces[-1:] if number else []
                words = sum(len(piece.split()) for _, piece in pieces)
                if words > PASSAGE_WORDS // 2:
                    pieces, words = [], 0
            pieces.append((at, sentence))
            words += count
            at += len(sentence)
    if pieces:
        end()
    return found


def search_terms(text: str) -> list[str]:
    """Return the beginnings of the words of a text that a search goes by.

    Args:
        text: A passage or a question.
    """
    return [word[:STEM] for word in map(str.lower, _WORD.findall(text)) if word not in ASKED]


class Ranking:
    """Ranks passages by BM25 (Robertson et al. 1994; as Lucene computes it, in `bm25s`)."""

    def __init__(self, passages: Sequence[Passage], titles: Sequence[str]) -> None:
        """Index passages.

        Args:
            passages: The passages.
            titles: For each text what it is called: a passage of it is about that as well.

        Raises:
            InputError: There are too many, or none with a word.
        """
        if len(passages) > MAX_PASSAGES:
            raise InputError(f"The files hold more than {MAX_PASSAGES:,} passages. Name fewer files.")
        names = [search_terms(title) for title in titles]
        terms = [search_terms(passage.text) + names[passage.source] for passage in passages]
        if not any(terms):
            raise InputError("The files hold no words to look for.")
        import bm25s

        index: Any = bm25s.BM25
        self.passages = passages
        self._index = index(method="lucene", k1=K1, b=B)
        self._index.index(terms, show_progress=False)

    def best(self, question: str, *, most: int) -> list[tuple[Passage, float]]:
        """Return the passages that a question is most likely about, best first, with their scores.

        Args:
            question: The question.
            most: Most passages.

        Returns:
            None that shares no word with the question.
        """
        known = [term for term in search_terms(question) if term in self._index.vocab_dict]
        if not known:
            return []
        scores = self._index.get_scores(known)
        order = (-scores).argsort(kind="stable")[:most]
        return [(self.passages[place], float(scores[place])) for place in order if scores[place] > 0]
