from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nlpkit.core.errors import ConfigError
from nlpkit.core.tokenizers.stream import StopMatcher, StreamDecoder, decode_behind

SAMPLES = [
    "plain",
    "Grüße",
    "日本語",
    "👩‍👩‍👧 family",
    "e\u0301\u0323",
    "🇩🇪",
    " two  spaces",
    "\u2581",
    "a\ufffdb",
    "𝄞",
]


class Bytes:
    """A tokenizer whose ids are given pieces of bytes; it drops the first space if told so."""

    vocab_size = 0
    bos_id = None
    eos_ids: frozenset[int] = frozenset()
    fingerprint = ""

    def __init__(self, pieces: Sequence[bytes], *, strip: bool) -> None:
        self.pieces = pieces
        self.strip = strip

    def token_bytes(self, token_id: int) -> bytes:
        return self.pieces[token_id]

    def decode(self, token_ids: Sequence[int], *, skip_special: bool = True) -> str:
        data = b"".join(self.pieces[i] for i in token_ids)
        return (data[1:] if self.strip and data.startswith(b" ") else data).decode("utf-8", "replace")

    def encode(
        self, text: str, *, add_bos: bool = False, parse_special: bool = False, at_start: bool = True
    ) -> list[int]:
        raise NotImplementedError

    def token_to_id(self, token: str) -> int | None:
        return None


def stream(pieces: Sequence[bytes], *, strip: bool = False) -> tuple[list[str], str]:
    tokenizer = Bytes(pieces, strip=strip)
    decoder = StreamDecoder(tokenizer)
    texts = [decoder.feed(i) for i in range(len(pieces))] + [decoder.flush()]
    return texts, tokenizer.decode(range(len(pieces)))


def cuts(data: bytes) -> list[list[bytes]]:
    """All ways to cut a short byte string into pieces."""
    found = []
    for mask in itertools.product([False, True], repeat=len(data) - 1):
        ends = [i + 1 for i, cut in enumerate(mask) if cut]
        found.append([data[a:b] for a, b in zip([0, *ends], [*ends, len(data)], strict=True)])
    return found


@pytest.mark.parametrize("strip", [False, True])
@pytest.mark.parametrize("text", ["é👍", "日本", " 𝄞a", "e\u0301 ", "\ufffd!"])
def test_every_cut_of_a_character(text: str, strip: bool) -> None:
    for pieces in cuts(text.encode()):
        texts, whole = stream(pieces, strip=strip)
        assert "".join(texts) == whole
        assert whole == (text.removeprefix(" ") if strip else text)
        assert text.count("\ufffd") == sum(part.count("\ufffd") for part in texts)


@given(data=st.binary(max_size=40), ends=st.lists(st.integers(0, 40)), strip=st.booleans())
def test_any_bytes_agree_with_decode(data: bytes, ends: list[int], strip: bool) -> None:
    bounds = [0, *sorted(min(end, len(data)) for end in ends), len(data)]
    texts, whole = stream([data[a:b] for a, b in itertools.pairwise(bounds)], strip=strip)
    assert "".join(texts) == whole


@given(text=st.lists(st.sampled_from(SAMPLES)).map("".join), size=st.integers(1, 5))
def test_text_comes_as_early_as_it_can(text: str, size: int) -> None:
    data = text.encode()
    pieces = [data[i : i + size] for i in range(0, len(data), size)]
    texts, _ = stream(pieces)
    for n in range(len(pieces) + 1):
        assert "".join(texts[:n]) == b"".join(pieces[:n]).decode("utf-8", "ignore")


def test_a_broken_character_becomes_one_replacement() -> None:
    assert stream([b"a\xf0\x9f", b"b"]) == (["a", "\ufffdb", ""], "a\ufffdb")
    assert stream([b"a\xe6\x97"]) == (["a", "\ufffd"], "a\ufffd")


def test_space_is_kept_behind_a_prefix() -> None:
    tokenizer = Bytes([b" one", b" two"], strip=True)
    decoder = StreamDecoder(tokenizer, prompt_ids=[0])
    assert decoder.feed(1) + decoder.flush() == " two"


class Whole(Bytes):
    is_concatenative = False

    def decode(self, token_ids: Sequence[int], *, skip_special: bool = True) -> str:
        return " ".join(self.pieces[i].decode() for i in token_ids)


def test_tokenizers_that_only_decode_whole_texts_wait() -> None:
    decoder = StreamDecoder(Whole([b"a", b"b"], strip=False))
    assert [decoder.feed(0), decoder.feed(1), decoder.flush()] == ["", "", "a b"]


def test_what_such_tokenizers_add_to_a_prompt() -> None:
    tokenizer = Whole([b"a", b"b"], strip=False)
    assert decode_behind(tokenizer, [0], [1, 0]) == " b a"
    assert decode_behind(tokenizer, [], [1, 0]) == "b a"


def reference(text: str, stops: Sequence[str]) -> tuple[str, str | None]:
    """The stop whose end comes first, the longest of those."""
    for end in range(len(text) + 1):
        ended = [stop for stop in stops if text[:end].endswith(stop)]
        if ended:
            longest = max(ended, key=len)
            return text[: end - len(longest)], longest
    return text, None


def match(pieces: Sequence[str], stops: Sequence[str]) -> tuple[str, str | None, list[str]]:
    matcher = StopMatcher(stops)
    shown: list[str] = []
    for piece in pieces:
        safe, matched = matcher.feed(piece)
        shown.append(safe)
        assert matched == (matcher.matched is not None)
    if matcher.matched is None:
        shown.append(matcher.flush())
    return "".join(shown), matcher.matched, shown


@pytest.mark.parametrize("stops", [["ab"], ["aab", "ba"], ["abab", "b"], ["aa", "aaa"], ["abc", "c"], ["baab", "aba"]])
def test_all_texts_and_all_cuts(stops: list[str]) -> None:
    for length in range(1, 6):
        for letters in itertools.product("abc", repeat=length):
            text = "".join(letters)
            expected = reference(text, stops)
            for pieces in cuts(text.encode()):
                assert match([piece.decode() for piece in pieces], stops)[:2] == expected


@settings(max_examples=200)
@given(
    text=st.text("ab\n#👍é", max_size=40),
    stops=st.lists(st.text("ab\n#👍é", min_size=1, max_size=6), max_size=4),
    size=st.integers(1, 7),
)
def test_matches_the_reference_and_holds_back_no_more_than_needed(text: str, stops: list[str], size: int) -> None:
    pieces = [text[i : i + size] for i in range(0, len(text), size)]
    shown, matched, parts = match(pieces, stops)
    assert (shown, matched) == reference(text, stops)
    assert all(stop not in shown for stop in stops)
    if matched is None:
        for n in range(1, len(pieces) + 1):
            fed = "".join(pieces[:n])
            held = max((k for s in stops for k in range(1, len(s)) if fed.endswith(s[:k])), default=0)
            assert "".join(parts[:n]) == fed[: len(fed) - held]


def test_nothing_comes_after_a_match() -> None:
    matcher = StopMatcher(["\n"])
    assert matcher.feed("a\nb") == ("a", True)
    assert matcher.feed("more") == ("", True)
    assert matcher.flush() == ""


def test_no_stops_hold_nothing_back() -> None:
    matcher = StopMatcher([])
    assert matcher.feed("text") == ("text", False)
    assert matcher.flush() == ""


def test_empty_stop_is_refused() -> None:
    with pytest.raises(ConfigError, match="empty"):
        StopMatcher(["a", ""])
