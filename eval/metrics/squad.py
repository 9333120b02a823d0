"""Exact match and F1 of short answers, as the SQuAD 1.1, SQuAD 2.0 and CMRC 2018 scripts define them."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence

from nlpkit.core.errors import ConfigError, InputError, did_you_mean
from nlpkit.eval.metrics.base import BaseMetric, FloatArray, Sample, count_references, stack_rows
from nlpkit.eval.metrics.text import has_unsegmented, primary_language

NORMALISATIONS = ("squad", "cmrc2018")
SUBSETS = ("all", "has_ans", "no_ans")
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_ASCII_PUNCTUATION = str.maketrans("", "", string.punctuation)
# The marks that the CMRC script treats as tokens, and removes. ASCII ones beyond these stay, as they do there.
_CMRC_PUNCTUATION = frozenset("-:_*^/\\~`+=，。：？！“”；’《》·、「」（）－～『』")


def normalise_answer(text: str) -> str:
    """Normalise an English answer as the SQuAD scripts do (Rajpurkar et al. 2016).

    Args:
        text: The answer.

    Returns:
        The text in lower case, without ASCII punctuation, without ``a``, ``an``, ``the``, single-spaced.
    """
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_ASCII_PUNCTUATION)).split())


def answer_f1(prediction: str, reference: str) -> float:
    """Return the SQuAD F1 of two answers: bag-of-words overlap after normalisation, 0-1.

    When one of them has no words, it is 1 if the other has none either (SQuAD 2.0).
    """
    predicted, wanted = normalise_answer(prediction).split(), normalise_answer(reference).split()
    if not predicted or not wanted:
        return float(predicted == wanted)
    return _harmonic((Counter(predicted) & Counter(wanted)).total(), len(predicted), len(wanted))


def cmrc_normalise(text: str) -> str:
    """Normalise a Chinese answer as the CMRC 2018 script does: lower case, stripped, without its punctuation."""
    return "".join(char for char in text.lower().strip() if char not in _CMRC_PUNCTUATION)


def cmrc_tokens(text: str) -> list[str]:
    """Cut a mixed Chinese text as the CMRC 2018 script does, without punctuation.

    Each Chinese character (U+4E00-U+9FA5) is a token; the runs between them are tokenized as English, with NLTK's
    Treebank rules. The script also cuts those runs into sentences first, which matters only where a run holds a full
    stop and then more words; doing without needs no data download.

    Args:
        text: The answer.

    Returns:
        The tokens.
    """
    from nltk.tokenize import NLTKWordTokenizer  # type: ignore[import-untyped]

    words = NLTKWordTokenizer()
    tokens: list[str] = []
    for piece in re.split(r"([一-龥])", cmrc_normalise(text)):
        if len(piece) == 1 and "一" <= piece <= "龥":
            tokens.append(piece)
        elif piece.strip():
            tokens.extend(words.tokenize(piece))
    return tokens


def cmrc_f1(prediction: str, reference: str) -> float:
    """Return the CMRC 2018 F1 of two answers, 0-1: over their longest common run of tokens, not their overlap."""
    predicted, wanted = cmrc_tokens(prediction), cmrc_tokens(reference)
    if not predicted or not wanted:
        return float(predicted == wanted)
    return _harmonic(_longest_common_run(predicted, wanted), len(predicted), len(wanted))


def _harmonic(shared: int, n_predicted: int, n_wanted: int) -> float:
    if shared == 0:
        return 0.0
    precision, recall = shared / n_predicted, shared / n_wanted
    return 2 * precision * recall / (precision + recall)


def _longest_common_run(left: Sequence[str], right: Sequence[str]) -> int:
    best = 0
    previous = [0] * (len(right) + 1)
    for token in left:
        current = [0] * (len(right) + 1)
        for j, other in enumerate(right):
            if token == other:
                current[j + 1] = previous[j] + 1
                best = max(best, current[j + 1])
        previous = current
    return best


class Answers(BaseMetric):
    """Mean over questions of exact match or F1 with the best of the reference answers; 0-100.

    A question without references is unanswerable (SQuAD 2.0): it scores 1 if the prediction is empty after
    normalisation, else 0. An answer that normalises to nothing (``the``) is left out where the question has others, as
    the SQuAD 2.0 script does. Where it has no others (vitamin ``A``), answers are compared with their articles, and
    with their punctuation if even that leaves nothing; the script would give full marks to an empty prediction.

    Chinese (``lang='zh'``) is scored by the definitions of CMRC 2018 (Cui et al. 2019): exact match after removing
    punctuation, F1 over the longest common run of characters.

    Statistics per segment (2): score, 1; both 0 for questions outside the subset.
    """

    def __init__(
        self, kind: str, *, subset: str = "all", lang: str | None = None, tokenizer: str | None = None
    ) -> None:
        """Choose what to compute, on which questions.

        Args:
            kind: ``exact_match`` or ``squad_f1``.
            subset: One of `SUBSETS`: all questions, those with an answer, or those without.
            lang: Language of the answers: ``zh`` chooses ``cmrc2018``, all others ``squad``.
            tokenizer: One of `NORMALISATIONS`, to choose regardless of language.

        Raises:
            ConfigError: A choice is unknown.
        """
        for what, value, known in (("kind", kind, ("exact_match", "squad_f1")), ("subset", subset, SUBSETS)):
            if value not in known:
                raise ConfigError(f"Answer scoring has no {what} {value!r}. {did_you_mean(value, known)}")
        self.normalisation = tokenizer or ("cmrc2018" if primary_language(lang) == "zh" else "squad")
        if self.normalisation not in NORMALISATIONS:
            raise ConfigError(
                f"Answer scoring has no tokenizer {tokenizer!r}. {did_you_mean(self.normalisation, NORMALISATIONS)}"
            )
        self.name = kind if subset == "all" else f"{kind}_{subset}"
        self._kind = kind
        self._subset = subset

    def _normalise(self, text: str) -> str:
        return normalise_answer(text) if self.normalisation == "squad" else cmrc_normalise(text)

    def _score(self, prediction: str, reference: str) -> float:
        if self._kind == "exact_match":
            return float(self._normalise(prediction) == self._normalise(reference))
        return answer_f1(prediction, reference) if self.normalisation == "squad" else cmrc_f1(prediction, reference)

    def _bare(self, sample: Sample) -> bool:
        """Tell whether nothing is left of a question's answers once they are normalised."""
        return bool(sample.references) and not any(map(self._normalise, sample.references))

    def _best(self, sample: Sample) -> float:
        if not self._bare(sample):
            kept = [reference for reference in sample.references if self._normalise(reference)]
            return max(self._score(sample.prediction, reference) for reference in kept)
        return max(self._bare_score(sample.prediction, reference) for reference in sample.references)

    def _bare_score(self, prediction: str, reference: str) -> float:
        said, wanted = (" ".join(text.lower().split()) for text in (prediction, reference))
        without = [" ".join(text.translate(_ASCII_PUNCTUATION).split()) for text in (said, wanted)]
        if self.normalisation == "squad" and without[1]:
            said, wanted = without
        if self._kind == "exact_match" or not said or not wanted:
            return float(said == wanted)
        words = said.split(), wanted.split()
        return _harmonic((Counter(words[0]) & Counter(words[1])).total(), *map(len, words))

    def segment_stats(self, samples: Sequence[Sample]) -> FloatArray:
        """Return score and 1 for each question of the subset, 0 and 0 for the others, ``[n_segments, 2]``."""
        rows = []
        for sample in samples:
            if self._subset != "all" and (self._subset == "has_ans") != bool(sample.references):
                rows.append((0.0, 0.0))
            elif sample.references:
                rows.append((self._best(sample), 1.0))
            else:
                rows.append((float(not self._normalise(sample.prediction)), 1.0))
        if rows and not any(weight for _, weight in rows):
            kind = "answerable" if self._subset == "has_ans" else "unanswerable"
            raise InputError(
                f"{self.name} needs {kind} questions, and none of the {len(rows)} is. Leave the metric out."
            )
        return stack_rows(rows, 2)

    def signature(self, samples: Sequence[Sample]) -> str:
        """Return references, normalisation, and whether unanswerable questions are among them."""
        unanswerable = any(not sample.references for sample in samples)
        answerable = [sample for sample in samples if sample.references]
        return (
            f"{self.name}|nrefs:{count_references(answerable) if answerable else 0}|norm:{self.normalisation}"
            f"|unanswerable:{'yes' if unanswerable else 'no'}|multi:max|agg:mean|nlpkit:1"
        )

    def notes(self, samples: Sequence[Sample]) -> tuple[str, ...]:
        """Say when answers have no spaces between words, so that F1 is all or nothing, or normalise to nothing."""
        notes = []
        bare = [sample.references[0] for sample in samples if self._bare(sample)]
        if bare:
            notes.append(
                f"{self.name}: nothing is left of {len(bare)} of the answers once they are normalised "
                f"({self.normalisation}), such as {bare[0][:40]!r}; these are compared with articles and punctuation."
            )
        all_or_nothing = self._kind == "squad_f1" and self.normalisation == "squad"
        if all_or_nothing and has_unsegmented(r for s in samples for r in s.references):
            notes.append(
                "The answers are written without spaces, and SQuAD F1 takes each run of text for one word. "
                "For Chinese, give the language zh."
            )
        return tuple(notes)
