"""What a translation must not touch: finding it, masking it, checking it."""

from __future__ import annotations

import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nlpkit.apps.text.translation.number_values import number_values, worded_values
from nlpkit.apps.text.translation.protected import Differences, compare, cut_to_masks, find_protected, mask, unmask


def found(text: str) -> list[tuple[str, str]]:
    return [(text[span.start : span.end], span.kind) for span in find_protected(text)]


def values(text: str) -> list[str]:
    return [value for value, _ in found(text)]


@pytest.mark.parametrize(
    ("kind", "pieces"),
    [
        ("printf", "%s  %d  %1$s  %2$d  %-5.2f  %ld  %lu  %zu  %@  %%  %n  %1  %L1  %<x>s  %(name)s  %(count)d  %.2f  %05d  %x  %*d  %APPDATA%"),
        ("brace", "{0}  {name}  {{name}}  {{{name}}}  ${var}  #{x}  %{x}  {}  {user.name}  {1,number,integer}  {{ count|upper }}"),
        ("call", "$t(common.title)  $t(a.b)"),
        ("variable", "$count  $HOME  $user->name  :name  :count_all  :smile:  :+1:"),
        ("token", "@token@  __name__  ##USER##  [[link]]  [b]  [/b]  [url=a.b]"),
        ("tag", '<0>  </0>  <b>  </b>  <br/>  <Link>  <a href="x.html">  <img src=\'a\' />  <xliff:g id="a">  <!--x-->  <input disabled>'),
        ("entity", "&lt;name&gt;  &lt;/b&gt;  &amp;  &#10;  &hellip;  &#x2019;  &lt;"),
        ("escape", '\\n  \\t  \\"  \\\'  \\u00e9  \\x41  \\\\'),
        ("code", "`a b`  ``c ` d``  snake_case  camelCase()  foo.bar()  os.path.join  --option  --dry-run=yes  std::sort  open_door(2)  #ff00aa"),
        ("path", "/usr/bin  ./a.txt  ../b  ~/c  C:\\x  C:\\Users\\Tom\\a.txt  src/main.c:12  \\\\host\\share"),
        ("file", "a.txt  my-file.tar.gz  *.csv  README.md  .gitignore  main.c"),
        ("url", "https://example.org/a/b?c=d&e=f#g  http://a.b/(c)  www.example.org  mailto:a@b.org  example.org/x  ftp://a.b"),
        ("mail", "a.b+c@d-e.org  tom@example.co.uk"),
        ("handle", "@anna  #news  @scope/some-package"),
        ("emoji", "😀  👍🏽  👨‍👩‍👧  🇩🇪  1️⃣  🏴󠁧󠁢󠁥󠁮󠁧󠁿  ♥️  ☕"),
        ("symbol", "→  ∞  ™  └"),
        ("identifier", "ABC-1234-XYZ  UTF-8  H2O  SW1A  550e8400-e29b-41d4-a716-446655440000  0x1F  9fceb02d"),
        ("date", "2024-05-01  2024-03-01T10:00:00Z  1.5.2024  01/05/2024  2024/05/01"),
        ("time", "14:30  9:05:10"),
        ("version", "1.2.3  v2.1  2.13.0-rc1  192.168.0.1  v5"),
        ("key", "Ctrl+C  Alt+F4  Strg+Umschalt+A  Ctrl-X  ⌘C  Shift+Tab"),
        ("number", "5  -5  −5  1,234.5  1.234,5  50%  $19.99  19,99€  120km/h  3/4  1920×1080  16:9  +3  1e-5"),
    ],
)  # fmt: skip
def test_every_kind_is_found_whole(kind: str, pieces: str) -> None:
    for piece in pieces.split("  "):
        assert found(f"Take {piece} now.") == [(piece, kind)], piece


@pytest.mark.parametrize(
    "text",
    [
        "The and/or rule of the file(s) is km-wise fine.",
        "Nothing here... (really?) – not a thing: none; “quotes”!",
        "x < y and y > z, a<b and c>d.",
        "-I think so, said Mr. Smith e.g. to Anna's mother.",
        "[Music] Well, [laughs] no. Ein-/ausschalten, Haupt- und Nebensätze, d.h. z.B. alles.",
        "C'est l'été : « Bonjour », dit-elle. ¿Qué? ¡No!",
        "note :", ":D and :-) and ;)",
    ],
)  # fmt: skip
def test_prose_is_not_protected(text: str) -> None:
    assert found(text) == []


def test_the_longest_wins_and_spans_are_whole() -> None:
    icu = "{n, plural, =0 {none} one {# apple} other {{n} apples}}"
    assert values(f"You have {icu}.") == [icu]
    assert values('See <a href="https://a.org/{x}">this</a>.') == ['<a href="https://a.org/{x}">', "</a>"]
    assert values("(see https://a.org/x_(y)).") == ["https://a.org/x_(y)"]
    assert values("https://a.org/b, and https://c.org.") == ["https://a.org/b", "https://c.org"]
    assert values("%s%d %1%2") == ["%s", "%d", "%1", "%2"]
    assert values("100%sure, 100 %ige, 50 % more") == ["100", "100", "50 %"]
    assert values("1 234 567,5 km and 5-10") == ["1 234 567,5 km", "5", "10"]
    assert values("about -5.5 °C") == ["-5.5 °C"]
    assert values("London SW1A 1AA") == ["SW1A 1AA"]
    assert values("+49 (0)30 1234567 and (916) 447-8646") == ["+49 (0)30 1234567", "(916) 447-8646"]
    assert values("you have [count] mails [sic]") == ["[count]"]
    assert values("``` \nx = {1}\n``` 2") == ["``` \nx = {1}\n```", "2"]


def test_masks_stand_for_all_but_plain_numbers() -> None:
    masked = mask("Hi %s, 12 of 3.5 or 12345 in <b>{x}</b> at -5.")
    assert masked.text == "Hi ⟦1⟧, 12 of 3.5 or ⟦2⟧ in ⟦3⟧ at ⟦4⟧."
    assert masked.values == ("%s", "12345", "<b>{x}</b>", "-5")
    assert masked.fits
    assert mask("Plain words.").values == ()


def test_neighbours_share_a_mask_and_equals_only_if_they_must() -> None:
    assert mask("%s %d and %s").text == "⟦1⟧ and ⟦2⟧"
    many = ", a ".join(["%s"] * 9)
    assert mask(many).text == ", a ".join(["⟦1⟧"] * 9)
    assert mask(many).fits
    assert unmask(mask(many).text, mask(many)) == many
    sides = "<b>a</b> " * 9 + "(<b>) x</b>y"
    assert mask(sides).fits
    assert unmask(mask(sides).text, mask(sides)) == sides
    different = " and ".join(f"%{number}$s" for number in range(1, 12))
    assert not mask(different).fits
    pieces = cut_to_masks(different)
    assert "".join(pieces) == different
    assert all(mask(piece).fits for piece in pieces)
    assert pieces[0].endswith("and ")


@pytest.mark.parametrize(
    ("source", "translation", "result"),
    [
        ("Hello %s, you have %d mails.", "Hallo ⟦1⟧, Sie haben ⟦2⟧ Mails.", "Hallo %s, Sie haben %d Mails."),
        ("Hello %s, you have %d mails.", "⟦2⟧ Mails, ⟦1⟧.", "%d Mails, %s."),
        ("Hello %s.", "Hallo.", None),
        ("Hello %s.", "Hallo ⟦1⟧ ⟦1⟧.", None),
        ("Hello %s.", "Hallo ⟦2⟧.", None),
        ("Hello %s.", "Hallo ⟦1⟧ ⟦.", None),
        ("Hello.", "Hallo ⟦1⟧.", None),
        ("Hello %s you.", "Hallo⟦1⟧du.", "Hallo %s du."),
        ("Click <b>here</b> now.", "Klick ⟦1⟧ hier ⟦2⟧ jetzt.", "Klick <b>hier</b> jetzt."),
        ("Hello\\nworld", "Hallo ⟦1⟧ Welt", "Hallo\\nWelt"),
        ("The mark ⟦1⟧ and ⟧ stay.", "⟦1⟧ und ⟦2⟧.", "⟦1⟧ und ⟧."),
    ],
)
def test_unmasking(source: str, translation: str, result: str | None) -> None:
    assert unmask(translation, mask(source)) == result


@pytest.mark.parametrize(
    ("source", "translation"),
    [
        ("It costs 1,234.5 or 19.99.", "Es kostet 1.234,5 oder 19,99."),
        ("It costs 1,234.5.", "Cela coûte 1\u202f234,5."),
        ("2,000 men", "2000 Männer"),
        ("1.234 Leute", "1,234 people"),
        ("It has 3 cats and twelve dogs.", "Es hat drei Katzen und 12 Hunde."),
        ("The 1st day", "Der erste Tag"),
        ("the 19th century", "el siglo XIX"),
        ("a 6-cylinder engine", "ein Sechszylinder"),
        ("at 5:30 pm on 3 March 2024", "am 3. März 2024 um 17:30 Uhr"),
        ("on 2024-05-01", "am 1. Mai 2024"),
        ("at 10:30", "um 10.30 Uhr"),
        ("at 5 pm", "um 17 Uhr"),
        ("-5.5 °C", "minus 5,5 °C"),
        ("50% of it", "50 % davon"),
        ("%1$s of %2$s", "%2$s: %1$s"),
        ("<b>a</b> <i>b</i>", "<i>b</i> <b>a</b>"),
        ("{a} and {b}", "{b} und {a}"),
        ("the MP3 file", "die MP3-Datei"),
        ("the $HOME/x file", "die Datei $HOME/x"),
    ],
)
def test_the_same_things_in_another_language(source: str, translation: str) -> None:
    assert compare(source, translation) == Differences()
    assert not compare(source, translation)


@pytest.mark.parametrize(
    ("source", "translation", "wanted"),
    [
        ("Hello %s", "Herr Tom", Differences(missing=("%s",))),
        ("{name} {name}", "{name}", Differences(missing=("{name}",))),
        ("{name}", "{Name}", Differences(missing=("{name}",), surplus=("{Name}",))),
        ("%1$s and %2$d", "%2$s and %2$d", Differences(missing=("%1$s",), surplus=("%2$s",))),
        ("%s has %d", "%d hat %s", Differences(reordered=("%s", "%d"))),
        ("<b>a</b>", "</b>a<b>", Differences(reordered=("</b>",))),
        ("1.5", "15", Differences(numbers_changed=("1.5", "15"))),
        ("-5 degrees", "5 Grad", Differences(numbers_changed=("-5", "5"))),
        ("3 cats", "4 Katzen", Differences(numbers_changed=("3", "4"))),
        ("3 March", "3. Mai", Differences(numbers_changed=("March", "Mai"))),
        ("5 May 2024", "5.10.2024", Differences(numbers_changed=("May", "10"))),
        ("cats", "7 Katzen", Differences(numbers_changed=("7",))),
        ("at 14:30", "um 14:20", Differences(numbers_changed=("30", "20"))),
        ("Press Ctrl+C 😀", "Drück Strg+C", Differences(missing=("Ctrl+C", "😀"))),
    ],
)
def test_differences(source: str, translation: str, wanted: Differences) -> None:
    assert compare(source, translation) == wanted


def test_values_of_numbers() -> None:
    assert {str(value) for value in number_values("1,234")} == {"1234", "1.234"}
    assert number_values("1 234,50 €") == number_values("$1,234.5") == number_values("1'234.5")
    assert number_values("none") == frozenset()
    assert {int(value) for value in worded_values("drei and four, XIV, im Mai")} >= {3, 4, 5, 14}


PIECES = [
    "%s", "%1$s", "{x}", "{{", "}", "<b>", "</b>", "<", "⟦", "⟧", "⟦1⟧", " ", "word", "3", "1,5", "-", "\\n", "`", "$", ":",
    "😀", "@", "#", "/", ".", "http://a.b", "\n", "_", "é", "12:30", "two", "Mai 5", "%", "&amp;", "(", ")", "[", "]",
]  # fmt: skip
TEXTS = st.one_of(st.text(max_size=200), st.lists(st.sampled_from(PIECES), max_size=40).map("".join))


@pytest.mark.property
@given(
    st.one_of(TEXTS, st.lists(st.sampled_from(["<b>", "</b>", " ", "a", ", "]), min_size=30, max_size=60).map("".join))
)
def test_masking_loses_nothing(text: str) -> None:
    spans = find_protected(text)
    assert all(one.end <= two.start for one, two in pairwise(spans))
    assert all(0 <= span.start < span.end <= len(text) for span in spans)
    masked = mask(text)
    assert unmask(masked.text, masked) == text
    assert "".join(cut_to_masks(text)) == text
    assert not compare(text, text)


@pytest.mark.property
@given(TEXTS, TEXTS)
def test_any_two_texts_are_compared(one: str, two: str) -> None:
    compare(one, two)
    restored = unmask(two, mask(one))
    assert restored is None or isinstance(restored, str)


@pytest.mark.property
@pytest.mark.parametrize("atom", ["%", "{", "{n, plural, ", "<a b=c ", "`` ", "\\", "a/", "a.b", "_a", "1 ", "(1", "A1-", "⟦", "C:\\a b ", "😀\u200d", "aB1", "http://a)", "[[", "a-"])  # fmt: skip
def test_hostile_texts_take_linear_time(atom: str) -> None:
    def seconds(length: int) -> float:
        text = (atom * length)[:length]
        start = time.perf_counter()
        masked = mask(text)
        unmask(masked.text, masked)
        compare(text, text[1:])
        return time.perf_counter() - start

    seconds(1000)
    small, large = seconds(10_000), seconds(80_000)
    assert large < 5 or large < 24 * small
