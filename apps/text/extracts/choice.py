"""Choosing sentences that together say what a text says."""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from nlpkit.apps.text.extracts.features import NAMES, features, says_little
from nlpkit.apps.text.extracts.sentences import Sentence, common_words, find_sentences

WEIGHTS: Mapping[str, float] = {
    "begin": 0.10,
    "second": -0.15,
    "early": 1.19,
    "end": -0.36,
    "first_of_paragraph": 0.61,
    "central": 1.90,
    "frequent": 0.40,
    "rare": -0.52,
    "short": 1.83,
    "length": 0.57,
    "long": 0.93,
    "refers": 0.07,
    "asks": -0.21,
    "numbers": -0.25,
    "points": 0.27,
    "courtesy": -0.20,
    "incomplete": 0.00,
    "spoken": 0.01,
    "turn": 0.20,
    "begin_long": -0.23,
    "central_spoken": -0.67,
    "letter_begin": -0.24,
    "letter_early": -0.17,
    "letter_points": -0.08,
    "letter_numbers": 0.21,
    "pleasant": -0.19,
}
"""What each feature counts. Fitted by ``tests/benchmarks/fit_extracts.py`` to how well single sentences of documents
match their summaries (ROUGE-1 and ROUGE-2): posts of a government, proposals, textbooks, manuals, meetings, mails,
abstracts, newsletters, package descriptions, and articles of English and German encyclopaedias;
250 documents of each at most."""

ALIKE = 1.0
"""What a sentence loses whose words the chosen ones have said already."""

LONGEST, LONG_STEP = 70, 10
"""Words of the longest sentence that is one; what has more, as a list without stops, loses 1 for each ten of them."""


@dataclass(frozen=True)
class Extract:
    """Sentences of a text that summarize it.

    Attributes:
        sentences: In the order of the text.
        total: Sentences of the text.
    """

    sentences: tuple[Sentence, ...]
    total: int

    @property
    def text(self) -> str:
        """The sentences as one text: as a paragraph, or a line each where they are lines or turns."""
        if any(not one.complete or one.speaker for one in self.sentences):
            return "\n".join(f"{one.speaker}: {one.text}" if one.speaker else one.text for one in self.sentences)
        return " ".join(one.text for one in self.sentences)


def worth(sentences: Sequence[Sentence]) -> list[float]:
    """Return what each sentence is worth in a summary.

    Args:
        sentences: All sentences of a text, in order.
    """
    weights = [WEIGHTS[name] for name in NAMES]
    return [
        sum(weight * value for weight, value in zip(weights, row, strict=True))
        - max(0, len(one.words) - LONGEST) / LONG_STEP
        for one, row in zip(sentences, features(sentences), strict=True)
    ]


def extract(text: str, *, sentences: int, words: int | None = None) -> Extract:
    """Choose the sentences of a text that summarize it: the worthiest, less what the others say already.

    The greedy choice is that of maximal marginal relevance (Carbonell and Goldstein, 1998).

    Args:
        text: Any text.
        sentences: Most sentences to choose.
        words: Most words that they may have together; None is no limit.

    Returns:
        The chosen ones, fewer where the others say nothing new; none where the text has no words, or no sentence is as
        short as `words` asks.
    """
    found = find_sentences(text)
    values = worth(found)
    common = common_words(found)
    contents = [frozenset(one.words) - common for one in found]
    said: set[str] = set()
    chosen: list[int] = []
    left = words
    # What a sentence brings only falls while others are chosen, so what was known last is a bound.
    # Greetings and the like would fill up what is left of `words`.
    telling = [place for place, one in enumerate(found) if not says_little(one)]
    heap = [(-values[place], place) for place in telling or range(len(found))]
    heapq.heapify(heap)
    while heap and len(chosen) < sentences:
        _, place = heapq.heappop(heap)
        new = contents[place] - said
        if chosen and not new:
            continue
        if left is not None and found[place].n_words > left:
            continue
        known = 1 - len(new) / len(contents[place]) if contents[place] else 0.0
        brings = (ALIKE * known - values[place], place)
        if heap and heap[0] < brings:
            heapq.heappush(heap, brings)
            continue
        chosen.append(place)
        said |= contents[place]
        if left is not None:
            left -= found[place].n_words
    return Extract(tuple(found[place] for place in sorted(chosen)), len(found))
