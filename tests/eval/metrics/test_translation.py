"""BLEU, chrF and TER against sacrebleu itself: values, segment scores and signatures."""

from __future__ import annotations

import random
import subprocess
import sys

import numpy as np
import pytest
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF
from sacrebleu.metrics.ter import TER

from nlpkit.core.errors import ConfigError, InputError
from nlpkit.eval.metrics.base import Sample
from nlpkit.eval.metrics.bleu import Bleu, bleu_from_stats
from nlpkit.eval.metrics.registry import get_metric
from nlpkit.eval.statistics.measure import build_samples, measure

pytestmark = pytest.mark.parity

WORDS = {
    "en": 'the a cat dog sat, on mat. It\'s over-priced! 3.5% of U.S. sales (net) rose & fell "why?" Yes/no',
    "de": "Der die Größe, über Straße. Tür »Haus« schön fährt 1.000,50 € und Mädchen's Äpfel; nicht wahr?",
    "ru": "кошка собака дом. Он, она — они! большой «мир» и война 2,5 % ли",
    "zh": "我们 今天，去 北京 大学 。中国 很 好 iPhone 15 发布 了 ！天气 不错",
    "ja": "これは 東京 です。とても 大きい 猫 が いる ソニー カメラ 、 美しい",
    "hi": "यह एक बड़ा घर है। मैं हिन्दी नहीं बोलता, लेकिन",
}
SPACELESS = {"zh", "ja"}


def make_corpus(lang: str, n: int, n_references: int, rng: random.Random) -> tuple[list[str], list[list[str]]]:
    vocabulary = WORDS[lang].split()
    joiner = "" if lang in SPACELESS else " "
    streams: list[list[str]] = [[] for _ in range(n_references)]
    predictions = []
    for _ in range(n):
        base = rng.choices(vocabulary, k=rng.randint(1, 14))
        for stream in streams:
            stream.append(joiner.join(w if rng.random() > 0.2 else rng.choice(vocabulary) for w in base))
        kept = [w if rng.random() > 0.25 else rng.choice(vocabulary) for w in base if rng.random() > 0.1]
        predictions.append(joiner.join(kept) if rng.random() > 0.03 else "")
    return predictions, streams


def scorers(name: str, lang: str, lowercase: bool):
    tokenizer = {"zh": "zh", "ja": "char"}.get(lang, "13a")
    return {
        "bleu": lambda eff: BLEU(lowercase=lowercase, tokenize=tokenizer, effective_order=eff),
        "chrf": lambda eff: CHRF(lowercase=lowercase),
        "chrf++": lambda eff: CHRF(lowercase=lowercase, word_order=2),
        "ter": lambda eff: TER(case_sensitive=not lowercase),
    }[name]


CASES = [
    (name, lang, n_references)
    for name in ("bleu", "chrf", "chrf++", "ter")
    for lang in WORDS
    for n_references in (1, 2)
]


@pytest.mark.parametrize(("name", "lang", "n_references"), CASES)
def test_corpus_and_segments_equal_sacrebleu(name: str, lang: str, n_references: int) -> None:
    rng = random.Random(f"{name} {lang} {n_references}")
    for trial in range(8):
        lowercase = trial % 2 == 1
        predictions, streams = make_corpus(lang, rng.randint(1, 12), n_references, rng)
        make = scorers(name, lang, lowercase)
        theirs = make(False)
        expected = theirs.corpus_score(predictions, streams)
        got = measure(get_metric(name, lang=lang, lowercase=lowercase), build_samples(predictions, *streams))
        assert got.value == pytest.approx(expected.score, rel=1e-12, abs=1e-9)
        assert got.signature == str(theirs.get_signature())
        sentence = make(True)
        for i, score in enumerate(got.segment_scores):
            one = sentence.sentence_score(predictions[i], [stream[i] for stream in streams])
            assert score == pytest.approx(one.score, rel=1e-12, abs=1e-9)


CORNERS = {
    "entities": ["&quot;Yes&quot; &amp; no &lt;b&gt; &amp;lt;", "&apos;tis &#39;so&#39; &nbsp;x"],
    "white space": ["a\u00a0b  c\td", " a b ", "a\u2028b\u3000c", "a\u200bb", "x\x0cy", "trailing  \t"],
    "line ends": ["one\ntwo", "one\r\ntwo", "last\n"],
    "numbers": ["1,000.50 - 5.5", "3-4, 3 - 4, -5", "10%,20%.", "v1.2.3", "$5 €5 ¥5", "1st-2nd", "٣٫٥ १२"],
    "hyphens and marks": ["over-\npriced", "well-known -- yes", "it's 'it' ``so''", "wait...no?!", "a/b\\c", "({[x]})"],
    "scripts": ["日本語 text 日本", "한국어 문장.", "العربية، نعم", "हिन्दी।", "ภาษาไทย", "e\u0301 é", "ﬁ ﬂ Ａ１"],
    "pictures": ["😀😀 👩‍🔬", "👍🏽", "🇫🇷🇩🇪", "♥️"],
    "short": ["a", "a b", "a b c", "."],
    "capitals": ["STRASSE straße", "İstanbul ISTANBUL", "ΣΊΣΥΦΟΣ"],
    "of sacrebleu's own": ["<skipped>", "<skipped> x-\ny", "@-@ a@@ b"],
}


@pytest.mark.parametrize("corner", CORNERS)
@pytest.mark.parametrize("lowercase", [False, True])
def test_corners_equal_sacrebleu(corner: str, lowercase: bool) -> None:
    texts = CORNERS[corner]
    references = [[*texts[1:], texts[0] + " more"], [text.upper() + " !" for text in texts]]
    predictions = [*texts[:-1], ""]
    theirs: list[tuple[str, dict[str, str], object]] = [
        ("bleu", {"tokenizer": name}, BLEU(lowercase=lowercase, tokenize=name))
        for name in ("13a", "intl", "char", "zh", "none")
    ]
    theirs += [("chrf", {}, CHRF(lowercase=lowercase)), ("chrf++", {}, CHRF(lowercase=lowercase, word_order=2))]
    theirs += [("ter", {}, TER(case_sensitive=not lowercase))]
    theirs += [("ter", {"tokenizer": "tercom-asian"}, TER(case_sensitive=not lowercase, asian_support=True,
                                                          normalized=True))]  # fmt: skip
    for name, options, metric in theirs:
        expected = metric.corpus_score(predictions, references)  # type: ignore[attr-defined]
        got = measure(get_metric(name, lowercase=lowercase, **options), build_samples(predictions, *references))
        assert got.value == pytest.approx(expected.score, rel=1e-12, abs=1e-9), (name, options)
        assert got.signature == str(metric.get_signature()), (name, options)  # type: ignore[attr-defined]


def test_corpora_in_which_nothing_is_right() -> None:
    for predictions in (["", ""], ["x", "y"], ["a b", ""]):
        references = [["a b c d", "e f g"]]
        for name, theirs in (("bleu", BLEU()), ("chrf", CHRF()), ("ter", TER())):
            got = measure(get_metric(name), build_samples(predictions, *references))
            assert got.value == pytest.approx(theirs.corpus_score(predictions, references).score, abs=1e-9)


def test_number_of_cases_is_what_we_claim() -> None:
    assert len(CASES) * 8 >= 300


def test_equals_the_command_line_to_the_last_digit(tmp_path) -> None:
    predictions, streams = make_corpus("en", 40, 2, random.Random(5))
    (tmp_path / "hyp").write_text("\n".join(predictions) + "\n", encoding="utf-8")
    for i, stream in enumerate(streams):
        (tmp_path / f"ref{i}").write_text("\n".join(stream) + "\n", encoding="utf-8")
    command = [sys.executable, "-m", "sacrebleu", "ref0", "ref1", "-i", "hyp", "-m", "bleu", "chrf", "ter"]
    command += ["-f", "text", "-w", "12"]
    output = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    lines = output.strip().splitlines()
    assert len(lines) == 3
    for name, line in zip(("bleu", "chrf", "ter"), lines, strict=True):
        got = measure(get_metric(name), build_samples(predictions, *streams))
        head, _, tail = line.partition(" = ")
        assert head.partition("|")[2].strip() == got.signature
        assert tail.split()[0] == f"{got.value:.12f}"


def test_segments_may_have_different_numbers_of_references() -> None:
    samples = [Sample("the cat sat", ("the cat sat down", "a cat sat")), Sample("dogs", ("a dog",))]
    theirs = BLEU()
    expected = theirs.corpus_score(["the cat sat", "dogs"], [["the cat sat down", "a dog"], ["a cat sat", None]])
    got = measure(get_metric("bleu"), samples)
    assert got.value == pytest.approx(expected.score)
    assert got.signature == str(theirs.get_signature())
    assert "nrefs:var" in got.signature


@pytest.mark.parametrize("effective_order", [True, False])
def test_bleu_from_random_statistics(effective_order: bool) -> None:
    rng = np.random.default_rng(3)
    rows = []
    for _ in range(2000):
        length = int(rng.integers(0, 9))
        total = [max(length - n, 0) for n in range(4)]
        correct = [0, 0, 0, 0]
        ceiling = length
        for n in range(4):
            ceiling = int(rng.integers(0, min(ceiling, total[n]) + 1))
            correct[n] = ceiling
        rows.append([length, int(rng.integers(1, 9)), *correct, *total])
    got = bleu_from_stats(np.asarray(rows, dtype=float), effective_order=effective_order)
    for row, score in zip(rows, got, strict=True):
        expected = BLEU.compute_bleu(row[2:6], row[6:], row[0], row[1], "exp", effective_order=effective_order)
        assert score == pytest.approx(expected.score, abs=1e-9)


@pytest.mark.parametrize(
    ("lang", "tokenizer"),
    [("zh", "zh"), ("zh-CN", "zh"), ("zho_Hant", "zh"), ("de", "13a"), ("", "13a"), (None, "13a"), ("Chinese", "zh")],
)
def test_bleu_tokenizer_follows_the_language(lang: str | None, tokenizer: str) -> None:
    assert Bleu(lang=lang).tokenizer == tokenizer


@pytest.mark.parametrize("lang", ["ja", "ko"])
def test_bleu_falls_back_to_characters_and_says_so(lang: str) -> None:
    metric = Bleu(lang=lang)
    if metric.tokenizer == f"{lang}-mecab":
        pytest.skip("MeCab is installed")
    result = measure(metric, [Sample("これは", ("これは猫",))]).result(n_resamples=10)
    assert "tok:char" in result.signature
    assert any(f"sacrebleu[{lang}]" in note for note in result.notes)
    with pytest.raises(ConfigError, match="pip install"):
        Bleu(tokenizer=f"{lang}-mecab")


def test_bleu_never_downloads_a_tokenizer(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr("sacrebleu.utils.SACREBLEU_DIR", str(tmp_path))
    with pytest.raises(ConfigError, match=r"flores200sacrebleuspm"):
        Bleu(tokenizer="flores200")


def test_unknown_tokenizers_are_named() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'intl'"):
        Bleu(tokenizer="intll")
    with pytest.raises(ConfigError, match="'words'"):
        get_metric("ter", tokenizer="words")


@pytest.mark.parametrize("name", ["bleu", "chrf", "chrf++", "ter"])
@pytest.mark.parametrize("reference", ["", "  ", "\n"])
def test_an_empty_reference_is_refused_by_name(name: str, reference: str) -> None:
    samples = [Sample("a b", ("a b",)), Sample("a b", ("a", reference), id="row-7")]
    with pytest.raises(InputError, match=r"Segment 2 \(id 'row-7'\)"):
        measure(get_metric(name), samples)


@pytest.mark.parametrize("name", ["bleu", "chrf", "chrf++", "ter"])
def test_a_missing_reference_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="Segment 1 has no reference"):
        measure(get_metric(name), [Sample("a b")])


def test_wrong_tokenizer_for_the_script_is_noted() -> None:
    samples = [Sample("今天天气很好", ("今天天气不错",))]
    assert any("without spaces" in note for note in measure(get_metric("bleu"), samples).notes)
    assert any("without spaces" in note for note in measure(get_metric("ter"), samples).notes)
    assert measure(get_metric("bleu", lang="zh"), samples).notes == ()
    assert measure(get_metric("ter", tokenizer="tercom-asian"), samples).value == pytest.approx(100 * 2 / 6)
    assert "asian:yes" in measure(get_metric("ter", tokenizer="tercom-asian"), samples).signature


@pytest.mark.parametrize("prediction", ["a tokenized line .", "a to@@ kenized line", "▁a ▁line"])
@pytest.mark.parametrize("name", ["bleu", "chrf", "ter", "rouge1"])
def test_tokenized_predictions_are_noted(name: str, prediction: str) -> None:
    assert any("look tokenized" in note for note in measure(get_metric(name), [Sample(prediction, ("x",))]).notes)
