"""The table of metrics by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from importlib import import_module

from nlpkit.core.errors import ConfigError, did_you_mean
from nlpkit.eval.metrics.base import Metric


@dataclass(frozen=True)
class MetricOptions:
    """What can be chosen about a metric. None, False and empty mean the metric's own default.

    Attributes:
        lang: Language of the references; metrics that do not care ignore it.
        tokenizer: Tokenizer or normalisation, by the metric's own names.
        lowercase: Whether to ignore case.
        stemmer: Whether ROUGE strips English suffixes.
        split: Where ROUGE-Lsum's sentences end: ``newline`` or ``sentence``.
        labels: Label set of macro F1, micro F1 and Matthews correlation.
        exclude: Span labels that are not scored.
    """

    lang: str | None = None
    tokenizer: str | None = None
    lowercase: bool | None = None
    stemmer: bool = False
    split: str | None = None
    labels: tuple[str, ...] = ()
    exclude: tuple[str, ...] | None = None


@dataclass(frozen=True)
class MetricEntry:
    """One row of the table.

    Attributes:
        help: What the metric is, in a line.
        target: Where its class is, as ``module:Class`` under `nlpkit.eval.metrics`; loaded on use.
        arguments: Fixed keyword arguments of the class.
        options: Names of the `MetricOptions` that the class takes.
        needs: ``references``, ``answers`` (may be empty), ``nothing``, ``form`` or ``likelihood``.
    """

    help: str
    target: str
    arguments: dict[str, str | int] = field(default_factory=dict)
    options: tuple[str, ...] = ()
    needs: str = "references"


def _rouge(kind: str, what: str, *options: str) -> MetricEntry:
    return MetricEntry(f"{what}, F-measure", "rouge:Rouge", {"kind": kind}, ("lang", "tokenizer", "stemmer", *options))


def _answers(kind: str, what: str, subset: str = "all", which: str = "") -> MetricEntry:
    arguments: dict[str, str | int] = {"kind": kind, "subset": subset}
    return MetricEntry(f"{what} of answers{which}", "squad:Answers", arguments, ("lang", "tokenizer"), "answers")


METRICS: dict[str, MetricEntry] = {
    "bleu": MetricEntry("BLEU, as sacrebleu", "bleu:Bleu", {}, ("lang", "tokenizer", "lowercase")),
    "chrf": MetricEntry("chrF2, as sacrebleu", "chrf:Chrf", {}, ("lowercase",)),
    "chrf++": MetricEntry("chrF2++, as sacrebleu", "chrf:Chrf", {"word_order": 2}, ("lowercase",)),
    "ter": MetricEntry("translation edit rate, as sacrebleu", "ter:Ter", {}, ("tokenizer", "lowercase")),
    "rouge1": _rouge("rouge1", "shared words"),
    "rouge2": _rouge("rouge2", "shared word pairs"),
    "rougeL": _rouge("rougeL", "longest common subsequence"),
    "rougeLsum": _rouge("rougeLsum", "longest common subsequence by sentence", "split"),
    "exact_match": _answers("exact_match", "exact match"),
    "exact_match_has_ans": _answers("exact_match", "exact match", "has_ans", ", answerable questions"),
    "exact_match_no_ans": _answers("exact_match", "exact match", "no_ans", ", unanswerable questions"),
    "squad_f1": _answers("squad_f1", "word overlap F1"),
    "squad_f1_has_ans": _answers("squad_f1", "word overlap F1", "has_ans", ", answerable questions"),
    "squad_f1_no_ans": _answers("squad_f1", "word overlap F1", "no_ans", ", unanswerable questions"),
    "accuracy": MetricEntry("share of labels that are right", "classification:Accuracy", {}, ("lowercase",)),
    "macro_f1": MetricEntry(
        "mean F1 of the labels", "classification:LabelScore", {"kind": "macro_f1"}, ("labels", "lowercase")
    ),
    "micro_f1": MetricEntry(
        "F1 over all labels", "classification:LabelScore", {"kind": "micro_f1"}, ("labels", "lowercase")
    ),
    "mcc": MetricEntry(
        "Matthews correlation, times 100", "classification:LabelScore", {"kind": "mcc"}, ("labels", "lowercase")
    ),
    "span_f1": MetricEntry("F1 of labelled spans (BIO tags)", "spans:SpanF1", {}, ("exclude",)),
    "perplexity": MetricEntry(
        "perplexity per token", "perplexity:LikelihoodScore", {"kind": "perplexity"}, needs="likelihood"
    ),
    "bits_per_byte": MetricEntry(
        "bits per byte, whatever the tokenizer",
        "perplexity:LikelihoodScore",
        {"kind": "bits_per_byte"},
        needs="likelihood",
    ),
    "distinct1": MetricEntry("different words over words", "diversity:Distinct", {"n": 1}, needs="nothing"),
    "distinct2": MetricEntry("different word pairs over word pairs", "diversity:Distinct", {"n": 2}, needs="nothing"),
    "self_bleu": MetricEntry("likeness of the texts to each other", "diversity:SelfBleu", needs="nothing"),
    "repetition": MetricEntry("repeated 4-grams within texts", "diversity:Repetition", needs="nothing"),
    "length_words": MetricEntry("mean length in words", "surface:Length", {"unit": "words"}, needs="nothing"),
    "length_chars": MetricEntry("mean length in characters", "surface:Length", {"unit": "chars"}, needs="nothing"),
    "compression_ratio": MetricEntry("bytes over compressed bytes", "surface:CompressionRatio", needs="nothing"),
    "form": MetricEntry("share of the requested form's facts that hold", "form:FormAdherence", needs="form"),
}
"""Every metric by name."""


def metric_names() -> tuple[str, ...]:
    """Return the names of all metrics, in the order of the table."""
    return tuple(METRICS)


def get_metric(
    name: str,
    *,
    lang: str | None = None,
    tokenizer: str | None = None,
    lowercase: bool | None = None,
    stemmer: bool = False,
    split: str | None = None,
    labels: tuple[str, ...] = (),
    exclude: tuple[str, ...] | None = None,
) -> Metric:
    """Return a metric by name.

    Args:
        name: One of `metric_names`.
        lang: Language of the references, such as ``de`` or ``zh-CN``; metrics that do not care ignore it.
        tokenizer: Tokenizer or normalisation, by the metric's own names.
        lowercase: Whether to ignore case; None for the metric's own default.
        stemmer: Whether ROUGE strips English suffixes.
        split: Where ROUGE-Lsum's sentences end: ``newline`` or ``sentence``.
        labels: Label set of macro F1, micro F1 and Matthews correlation; found in the references unless given.
        exclude: Span labels that are not scored; ``V`` unless given.

    Returns:
        The metric. Call its `bind` on the samples first, or use `nlpkit.eval.statistics.measure`.

    Raises:
        ConfigError: There is no such metric, or it does not take an option that was given.
    """
    entry = find_entry(name)
    options = MetricOptions(lang, tokenizer, lowercase, stemmer, split, labels, exclude)
    arguments: dict[str, object] = dict(entry.arguments)
    for option in fields(MetricOptions):
        value = getattr(options, option.name)
        if value == option.default:
            continue
        if option.name in entry.options:
            arguments[option.name] = value
        elif option.name != "lang":
            takes = ", ".join(entry.options) or "no options"
            raise ConfigError(f"{name} does not take {option.name} (got {value!r}). It takes: {takes}.")
    module, _, attribute = entry.target.partition(":")
    factory: Callable[..., Metric] = getattr(import_module(f"nlpkit.eval.metrics.{module}"), attribute)
    return factory(**arguments)


def find_entry(name: str) -> MetricEntry:
    """Return the table row of a metric.

    Raises:
        ConfigError: There is no such metric.
    """
    entry = METRICS.get(name)
    if entry is None:
        raise ConfigError(f"There is no metric {name!r}. {did_you_mean(name, METRICS)}")
    return entry
