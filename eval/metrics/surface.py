"""Plain measures of texts: how long they are, and how far they compress."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

from nlpkit.core.errors import ConfigError, did_you_mean
from nlpkit.eval.metrics.base import BaseMetric, FloatArray, Sample, ratio, stack_rows
from nlpkit.eval.metrics.text import UNICODE_TOKENIZER, unicode_tokens

UNITS = ("words", "chars")


class Length(BaseMetric):
    """Mean length of the predictions, in words (as `unicode_tokens` counts them) or characters.

    It has no better or worse; `higher_is_better` only fixes the sign of differences. Statistics per segment (2):
    length, 1.
    """

    def __init__(self, unit: str = "words") -> None:
        """Choose the unit.

        Args:
            unit: One of `UNITS`; characters are Unicode code points of the stripped text.

        Raises:
            ConfigError: The unit is unknown.
        """
        if unit not in UNITS:
            raise ConfigError(f"There is no length in {unit!r}. {did_you_mean(unit, UNITS)}")
        self.name = f"length_{unit}"
        self._unit = unit

    def segment_stats(self, samples: Sequence[Sample]) -> FloatArray:
        """Return length and 1, ``[n_segments, 2]``."""
        texts = (sample.prediction for sample in samples)
        if self._unit == "words":
            return stack_rows([(len(unicode_tokens(text)), 1.0) for text in texts], 2)
        return stack_rows([(len(text.strip()), 1.0) for text in texts], 2)

    def aggregate(self, stats: FloatArray) -> FloatArray:
        """Return the mean of summed statistics ``[..., 2]``."""
        return ratio(stats[..., 0], stats[..., 1])

    def signature(self, samples: Sequence[Sample]) -> str:
        """Return the unit."""
        unit = f"tok:{UNICODE_TOKENIZER}" if self._unit == "words" else "unit:codepoint"
        return f"{self.name}|{unit}|agg:mean|nlpkit:1"


class CompressionRatio(BaseMetric):
    """UTF-8 bytes over compressed bytes; a ratio, higher means more repetitive.

    Each text is compressed on its own (raw deflate, level 9), so it measures repetition within texts; the corpus value
    is total bytes over total compressed bytes. It grows with length: compare texts of one kind. Statistics per segment
    (2): bytes, compressed bytes.
    """

    higher_is_better = False

    def __init__(self) -> None:
        """Name the metric."""
        self.name = "compression_ratio"

    def segment_stats(self, samples: Sequence[Sample]) -> FloatArray:
        """Return bytes and compressed bytes, ``[n_segments, 2]``."""
        rows = []
        for sample in samples:
            raw = sample.prediction.encode("utf-8", "surrogatepass")
            packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
            rows.append((len(raw), len(packer.compress(raw) + packer.flush())))
        return stack_rows(rows, 2)

    def aggregate(self, stats: FloatArray) -> FloatArray:
        """Return the ratio of summed statistics ``[..., 2]``."""
        return ratio(stats[..., 0], stats[..., 1], empty=0.0)

    def signature(self, samples: Sequence[Sample]) -> str:
        """Return the codec, with the version of zlib, which may pack differently."""
        return f"{self.name}|codec:deflate-9|zlib:{zlib.ZLIB_RUNTIME_VERSION}|agg:corpus|nlpkit:1"
