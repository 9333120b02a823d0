"""What speaks for a sentence in a summary."""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Sequence

from nlpkit.apps.text.extracts.sentences import Sentence, common_words

NAMES = (
    "begin",
    "second",
    "early",
    "end",
    "first_of_paragraph",
    "central",
    "frequent",
    "rare",
    "short",
    "length",
    "long",
    "refers",
    "asks",
    "numbers",
    "points",
    "courtesy",
    "incomplete",
    "spoken",
    "turn",
    "begin_long",
    "central_spoken",
    "letter_begin",
    "letter_early",
    "letter_points",
    "letter_numbers",
    "pleasant",
)
"""Names of the features, in order."""

_REFERS_TO = """
this that these those it its he she they them his her their there here however but and also moreover furthermore
thus therefore hence then so such another other both either in addition for example dies diese dieser dieses das
es er sie ihr ihre sein seine dort hier jedoch aber und auch außerdem zudem daher deshalb dann ce cet cette ces
il elle ils elles son sa ses leur leurs cependant mais et aussi donc ainsi puis là ici este esta esto estos
estas él ella ellos ellas su sus sin embargo pero y también además entonces así allí aquí
"""
_POINTS_AT = """
propose proposes proposed proposal present presents show shows introduce introduces describe describes summary
summarize conclude conclusion results result important mainly main goal purpose aim aims provides provide allows
enables need must should will please agreed agree decided decide decision deadline confirm attached request asks
therefore because problem solution new wichtig ergebnis ziel zweck beschlossen beschluss entschieden muss müssen
soll sollen wird werden bitte zusammenfassung lösung résultat but objectif décidé décision doit doivent faut
sera résumé problème importante resultado objetivo decidido decisión debe deben será resumen problema solución
"""
REFERS = frozenset(_REFERS_TO.split())
"""Words at the beginning of a sentence that refer to one before it."""
POINTS = frozenset(_POINTS_AT.split())
"""Words of sentences that name what matters: results, purposes, decisions, duties."""
_COURTESY = re.compile(
    r"(?:hi|hello|hey|dear|thanks?|thank you|regards|best|cheers|sincerely|greetings|welcome|bye|"
    r"good (?:morning|afternoon|evening)|hallo|guten (?:tag|morgen|abend)|liebe[rs]?|sehr geehrte[rn]?|"
    r"danke|vielen dank|mit freundlichen|viele grüße|gruß|bonjour|salut|cher|chère|merci|cordialement|"
    r"bien à vous|hola|buenos días|buenas tardes|estimad[oa]s?|gracias|saludos|atentamente)\b",
    re.IGNORECASE,
)
_PLEASANT = re.compile(
    r"(?:(?:i|we) (?:really )?hope|hope (?:you|this|all)|just (?:a|to|wanted)|as (?:\w+ ){0,3}know|thank|"
    r"it was (?:nice|great|good)|nice to|happy to|sorry|please (?:let me know|feel free|do not hesitate)|let me know|"
    r"looking forward|(?:ich|wir) hoffe|wie (?:\w+ ){0,2}(?:wisst|wissen)|j'espère|nous espérons|comme vous|"
    r"espero|esperamos|como)\b",
    re.IGNORECASE,
)
FEWEST_WORDS = 4
"""Words of the shortest sentence that says anything."""
FEW_WORDS, USUAL_WORDS, MANY_WORDS = 7, 18, 40
"""Sentences of fewer words say little, those of more are long."""


def says_little(sentence: Sentence) -> bool:
    """Tell whether a sentence is a greeting, or a few words that alone say nothing.

    Args:
        sentence: One sentence.
    """
    n_words = len(sentence.words)
    return n_words < FEWEST_WORDS or (n_words < FEW_WORDS and _COURTESY.match(sentence.text) is not None)


def features(sentences: Sequence[Sentence]) -> list[list[float]]:
    """Compute the features of each sentence of a text.

    Frequencies are those in the text itself: a word that many of its sentences hold is what the text is about, unless
    all texts of the language hold it.

    Args:
        sentences: All of the text, in order.

    Returns:
        A list for each, in the order of `NAMES`, about from 0 to 1.
    """
    common = common_words(list(sentences))
    contents = [[word for word in sentence.words if word not in common and len(word) > 1] for sentence in sentences]
    counts = Counter(word for words in contents for word in set(words))
    total, many = len(sentences), math.log(1 + len(sentences))
    # A word counts by how many sentences hold it; a sum of unit vectors gives a sentence's mean likeness to all others.
    vectors = [_unit(words) for words in contents]
    whole: defaultdict[str, float] = defaultdict(float)
    for vector in vectors:
        for word, value in vector.items():
            whole[word] += value
    norm = math.sqrt(sum(value * value for value in whole.values())) or 1.0
    greetings = [_COURTESY.match(sentence.text) is not None for sentence in sentences]
    talk = sum(bool(sentence.speaker) for sentence in sentences) / max(1, total)
    letter = float(any(greetings[:4]) and talk < 1)
    # What is said begins behind the greeting and a heading.
    begin = next((i for i, one in enumerate(sentences) if one.complete and not greetings[i]), 0)
    found = []
    for index, sentence in enumerate(sentences):
        vector, words = vectors[index], sentence.words
        central = sum(value * whole[word] for word, value in vector.items()) / norm
        distinct = set(contents[index])
        frequent = sum(math.log(counts[word]) for word in distinct) / (len(distinct) * many) if distinct else 0.0
        rare = sum(counts[word] == 1 for word in distinct) / len(distinct) if distinct else 1.0
        n_words = len(words)
        numbers = min(1.0, 4 * sum(any(sign.isdigit() for sign in word) for word in words) / n_words)
        points = min(1.0, sum(word in POINTS for word in words) / 2)
        place = max(0, index - begin)
        written = 1 - talk
        found.append([
            written * (index == begin),
            written * (place == 1),
            written / math.sqrt(place + 1),
            (index + 1) / total,
            written * sentence.first,
            central,
            frequent,
            rare,
            min(1.0, n_words / FEW_WORDS),
            min(1.0, max(0.0, (n_words - FEW_WORDS) / (USUAL_WORDS - FEW_WORDS))),
            min(1.0, max(0.0, (n_words - USUAL_WORDS) / (MANY_WORDS - USUAL_WORDS))),
            float(words[0] in REFERS),
            float(sentence.text.rstrip("\"'”»")[-1:] in tuple("?？")),
            numbers,
            points,
            float(greetings[index]),
            float(not sentence.complete),
            float(bool(sentence.speaker)),
            talk / math.sqrt(index + 1),
            written * (index == begin) * min(1.0, total / 40),
            talk * central,
            letter * (index == begin),
            letter / math.sqrt(place + 1),
            letter * points,
            letter * numbers,
            float(_PLEASANT.match(sentence.text) is not None),
        ])  # fmt: skip
    return found


def _unit(words: Sequence[str]) -> dict[str, float]:
    counts = Counter(words)
    norm = math.sqrt(sum(count * count for count in counts.values()))
    return {word: count / norm for word, count in counts.items()}
