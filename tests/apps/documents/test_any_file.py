"""Files that hypothesis bends: they are refused with an error, or come back byte for byte; a translation keeps codes."""

from __future__ import annotations

import pytest
from document_checks import lost_after, shout
from document_samples import SAMPLES, Sample
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nlpkit.apps.documents.document import ReadOptions
from nlpkit.apps.documents.registry import find_format, read_document, write_document
from nlpkit.apps.documents.translation.translate import translate_segments
from nlpkit.core.errors import NlpkitError

OPTIONS = ReadOptions(name="file", target_lang="de", source_lang="en")
PIECES = st.sampled_from(
    [b"\n", b"\r\n", b"\t", b"  ", b"\\", b'"', b"'", b"<", b">", b"&amp;", b"{", b"}", b"%s", b"=", b":", b"#", b"- ",
     b"\n\n", b"```", b"|", "ä ".encode(), "中".encode(), "\u2028".encode(), b"\xff", b"\x00", b"[", b"]", b"1."]
)  # fmt: skip
EDITS = st.lists(
    st.tuples(st.sampled_from(["cut", "copy", "put"]), st.floats(0, 1), st.floats(0, 0.2), PIECES), max_size=4
)


def bent(data: bytes, edits: list[tuple[str, float, float, bytes]]) -> bytes:
    """Cut, double or add pieces of a file."""
    for kind, where, size, piece in edits:
        at = round(where * len(data))
        end = at + round(size * len(data))
        if kind == "cut":
            data = data[:at] + data[end:]
        elif kind == "copy":
            data = data[:end] + data[at:]
        else:
            data = data[:at] + piece + data[at:]
    return data


@pytest.mark.property
@pytest.mark.parametrize("sample", [pytest.param(sample, id=sample.name) for sample in SAMPLES])
@given(edits=EDITS)
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_a_bent_file_is_refused_or_comes_back(sample: Sample, edits: list[tuple[str, float, float, bytes]]) -> None:
    entry = find_format(sample.name, sample.data)
    assert entry is not None
    if entry.name == "fluent":
        pytest.importorskip("fluent.syntax")
    data = bent(sample.data, edits)
    try:
        document = read_document(data, entry, OPTIONS)
    except NlpkitError:
        return
    assert write_document(document, [None] * len(document.segments), entry, OPTIONS) == data
    translation = translate_segments(document, shout)
    assert lost_after(document, translation)[1] == []
    write_document(document, translation.results, entry, OPTIONS)
