"""What no translator may touch: one grammar of placeholders, markup, code, addresses, signs and numbers.

Every pattern runs in linear time: repetitions are bounded, or begin only where a word begins.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from operator import itemgetter


@dataclass(frozen=True, slots=True)
class ProtectedSpan:
    """A protected piece of a text.

    Attributes:
        start: Offset of its first character.
        end: Offset behind its last character.
        kind: A row of the grammar, such as ``printf``, ``brace``, ``tag``, ``url`` or ``number``.
    """

    start: int
    end: int
    kind: str


HARD_KINDS = frozenset(
    {"mask", "printf", "brace", "call", "variable", "token", "tag", "entity", "escape", "url", "mail"}
)
"""Kinds that a translation may not add either: a program would read them."""

NUMBER_KINDS = frozenset({"number", "date", "time"})
"""Kinds that languages write in different ways: they are compared by value."""

_EXTENSIONS = (
    "txt|md|rst|html?|xhtml|css|js|jsx|tsx?|json|jsonl|ya?ml|toml|ini|cfg|conf|xml|xlf|xliff|csv|tsv|pdf|png|jpe?g|gif|"
    "svg|webp|ico|bmp|tiff?|mp[34]|wav|ogg|flac|avi|mkv|mov|zip|tar|tgz|gz|bz2|xz|7z|rar|exe|dll|deb|rpm|apk|jar|py|"
    "ipynb|cpp|hpp|cc|java|kt|rs|rb|php|sh|bat|cmd|ps1|sql|sqlite|log|bak|tmp|docx?|xlsx?|pptx?|od[tsp]|epub|tex|bib|"
    "pot?|srt|vtt|lock|env|properties|strings|plist|arb|iso|img|bin|dat|key|pem|crt|cs|swift|lua|vim|svgz|ttf|otf"
)
_DOMAINS = "com|org|net|io|edu|gov|info|biz|de|fr|es|at|ch|uk|eu|it|nl|dev|app|ai|example|test|local|cat|mx|ar|ca|be"
_UNITS = (
    "[kcmµn]?m[²³]|km/h|m/s²?|mph|[kMGT]?i?B|[kMGT]bit/s|[kMGT]?Wh?|mAh|[kMG]?Hz|[mck]m|µm|[km]g|m[lL]|dpi|px|°[CFK]?|"
    "[mk]?[VAΩ]|ms|hPa|[kM]?Pa|dB"
)
_CURRENCY = "$€£¥₹₽¢₩₺₴"
_KEY = (
    "Ctrl|Control|Strg|Alt|AltGr|Shift|Umschalt|Maj|Mayús|Cmd|Command|Option|Win|Windows|Super|Meta|Fn|Enter|Return|"
    "Tab|Esc|Escape|Del|Delete|Entf|Suppr|Supr|Ins|Insert|Backspace|Space|Home|End|Inicio|Fin|Pos1|Ende|PgUp|PgDn|"
    "PageUp|PageDown|Up|Down|Left|Right|Print|Pause|F1[0-2]|F[1-9]|[A-Z0-9]|[+-]"
)
_MODIFIER = "Ctrl|Control|Strg|AltGr|Alt|Shift|Umschalt|Maj|Mayús|Cmd|Command|Win(?= ?\\+)|Super|Meta|Fn|[⌘⌥⇧⌃]"
_EMOJI = "\u2600-\u27bf\u2b05-\u2b07\u2b1b\u2b1c\u2b50\u2b55\u231a\u231b\u23e9-\u23fa\u25b6\u25c0\U0001f000-\U0001faff"
_BOOLEANS = "disabled|checked|selected|hidden|required|readonly|multiple|autofocus|async|defer|open|controls|loop|muted"
_ATTRIBUTE = (
    rf"\s{{1,20}}(?:[\w:.@-]{{1,40}}\s{{0,5}}=\s{{0,5}}(?:\"[^\"<>]{{0,400}}\"|'[^'<>]{{0,400}}'|[^\s\"'<>=]{{1,200}})"
    rf"|(?:{_BOOLEANS})(?=[\s/>]))"
)
_INTEGER = r"\d{1,3}(?:[.,'’\u00a0\u202f ]\d{3}(?!\d)){1,6}|\d+"

# (kind, characters without which the pattern cannot match, pattern); at one place the longest match wins.
_TABLE: tuple[tuple[str, str, str], ...] = (
    ("mask", "⟦⟧", r"⟦[^⟦⟧\n]{0,20}⟧|[⟦⟧]"),
    (
        "printf",
        "%",
        r"%\d{1,2}\$[-+#0'* ]{0,4}\d{0,4}(?:\.\d{1,4})?(?:hh?|ll?|[Lzjtq])?[A-Za-z@]"
        r"|%\([\w .-]{1,60}\)[-+#0 ]{0,4}\d{0,4}(?:\.\d{1,4})?[A-Za-z]"
        r"|%<[\w.]{1,60}>[-+#0 ]{0,4}\d{0,4}(?:\.\d{1,4})?[A-Za-z]"
        r"|(?:(?<!\d)|(?<=%\d)|(?<=%\d\d))(?:%%|%[A-Za-z_][\w.-]{1,40}%(?![\w%])"
        r"|%[-+#0']{0,4}(?:\d{1,4}|\*)?(?:\.(?:\d{1,4}|\*))?(?:hh?|ll?|[Lzjtq]|I64|I32)?[diouxXeEfFgGaAcspn@YmHMSBby]"
        r"(?![A-Za-z])"
        r"|(?<!\d[ \u00a0\u202f])%[sdu@](?=[A-Za-z])|%L?\d{1,2}(?![\d$]|[.,]\d))",
    ),
    (
        "brace",
        "{",
        r"[$#%@]?\{\{\{?[^{}\n]{0,80}\}?\}\}|[$#%@]?\{[^{}\n]{0,80}\}",
    ),
    ("call", "$", r"\$[A-Za-z_]\w{0,40}\([^()\n]{0,120}\)"),
    ("variable", "$", r"(?<![\w$])\$\$?[A-Za-z_]\w{0,60}(?:->\w{1,60}|\[\w{1,40}\])?"),
    (
        "variable",
        ":",
        r"(?<![^\s(\[\"'„“«>,/]):(?!the\b)[A-Za-z_][A-Za-z0-9_]{1,40}(?![\w:])|(?<![\w:]):[a-z0-9+][a-z0-9_+-]{1,40}:(?!\w)",
    ),
    (
        "token",
        "@_[#",
        r"(?<!\w)@[A-Za-z_][\w.-]{0,40}@|(?<!\w)__[A-Za-z][A-Za-z0-9]{0,40}(?:_[A-Za-z0-9]{1,40}){0,6}__(?!\w)"
        r"|##[A-Za-z_]\w{0,40}##|\[\[[^\[\]\n]{1,80}\]\]|\[%[^\[\]\n]{1,80}%?\]"
        r"|(?<=[^\s.!?:,;] )\[[a-z][a-z0-9_]{0,30}\](?=[ ,.;:!?)]*[^\s\])])(?!\()"
        r"|\[/?(?:b|i|u|s|url|img|color|size|quote|code|list|center|spoiler)(?:=[^\[\]\n]{1,120})?\]",
    ),
    (
        "tag",
        "<",
        rf"</?(?:[A-Za-z][\w:.-]{{0,60}}|\d{{1,3}})(?:{_ATTRIBUTE}){{0,20}}\s{{0,5}}/?>|<![A-Z]{{4,10}}[^<>]{{0,200}}>"
        r"|<(?:https?://|mailto:)[^\s<>]{1,300}>|<[\w.+-]{1,64}@[\w.-]{1,200}>",
    ),
    (
        "entity",
        "&",
        r"&lt;/?[A-Za-z][\w:.-]{0,40}/?&gt;|&(?:[A-Za-z][A-Za-z0-9]{1,31}|#\d{1,7}|#[xX][0-9A-Fa-f]{1,6});",
    ),
    (
        "escape",
        "\\",
        r"\\(?:label|\w{0,8}ref|\w{0,8}cite\w?|url|begin|end|includegraphics|input|usepackage|documentclass)"
        r"(?:\[[^\[\]\n]{0,80}\])?\{[^{}\n]{0,120}\}|\\[A-Za-z]{2,30}\*?\{|\\(?:newline|noindent|item|LaTeX|TeX|l?dots|today|maketitle|newpage|clearpage)\b"
        r"|\\(?:u[0-9A-Fa-f]{4}|U[0-9A-Fa-f]{8}|x[0-9A-Fa-f]{2}|r\\n|[nrtabfv0\"'\\/@?<>{}()\[\]$%&#_-])",
    ),
    ("code", "`", r"(?<!`)(`{1,3})(?!`)[^`\n]{1,300}(?<!`)\1(?!`)|(?<!`)``(?!`)[^\n]{1,300}?(?<!`)``(?!`)"),
    (
        "identifier",
        "0123456789",
        r"(?<![\w-])0x[0-9A-Fa-f]{1,32}(?!\w)|(?<![\w-])[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}(?!\w)"
        r"|(?<![\w-])(?=[a-f]{0,39}\d)(?=\d{0,39}[a-f])[0-9a-f]{7,64}(?![\w-])"
        r"|(?<!\w)[A-Z]{1,2}\d[A-Z\d]? \d[A-Z]{2}(?!\w)"
        r"|(?<![\w-])(?!\d{1,6}(?:[AP]M|ST|ND|RD|TH|S|ER|E|O|A)(?![A-Z0-9]))(?=[A-Z]|\d{1,6}[A-Z])(?=[A-Z-]{0,39}\d)"
        r"[A-Z0-9]{1,20}(?:-[A-Z0-9]{1,20}){0,6}(?!\w)",
    ),
    (
        "path",
        "/\\",
        r"(?<![\w/.)\]}>~-])(?:~|\.{1,2})?/(?:[\w.@+~%*-]{1,100}/){0,30}[\w.@+~%*-]{1,100}/?|(?<![\w/])~/|(?<![\w./])\.{1,2}/(?!\S)"
        rf"|(?<![\w./:])[\w.-]{{1,60}}(?:/[\w.-]{{1,60}}){{1,20}}\.(?:{_EXTENSIONS}|[ch])(?:(?::\d{{1,6}}){{1,2}})?(?![\w/])"
        r"|(?<![A-Za-z0-9])[A-Za-z]:[\\/](?:[^\s\\/:*?\"<>|]{1,80}(?: [^\s\\/:*?\"<>|]{1,80}){0,3}[\\/]{1,2}){0,20}"
        r"[^\s\\/:*?\"<>|]{0,80}"
        r"|(?<!\S)\\\\[\w.$-]{1,60}(?:\\[\w.$-]{1,60}){1,20}",
    ),
    (
        "file",
        ".",
        rf"(?<![\w./-])(?:\*\.|[\w-]{{1,60}}(?:\.[\w-]{{1,60}}){{0,4}}\.)(?:{_EXTENSIONS}|(?<=\w\w\.)[ch])(?::\d{{1,6}})?(?![\w-])(?!\.\w)"
        r"|(?<![^\s(\"'])\.(?:env|gitignore|bashrc|profile|dockerignore|editorconfig|htaccess|npmrc|vimrc|zshrc)(?!\w)",
    ),
    (
        "url",
        ":.",
        r"(?<![\w+.-])(?:[A-Za-z][A-Za-z0-9+-]{1,20}://|www\.|(?:mailto|tel|data|urn|javascript):(?=\S))"
        r"[^\s<>\"'）】」⟦⟧{}|\\^`]{1,2000}"
        rf"|(?<![\w@./-])[A-Za-z0-9-]{{1,60}}(?:\.[A-Za-z0-9-]{{1,60}}){{0,4}}\.(?:{_DOMAINS})(?![\w-])(?!\.\w)(?:/[^\s<>\"'）】」]{{0,300}})?",
    ),
    (
        "code",
        "_(./:#-",
        r"(?<!\w)_{0,2}[A-Za-z][A-Za-z0-9]{0,60}(?:_{1,2}[A-Za-z0-9]{1,60}){1,20}_{0,2}(?!\w)(?:\([^()\n]{0,80}\))?"
        r"|(?<![\w.])[A-Za-z_]\w{0,60}(?:(?:\.|::|->)[A-Za-z_]\w{0,60}){0,8}\(\)"
        r"|(?<![\w.])[A-Za-z_]\w{0,60}(?:(?:\.|::|->)[A-Za-z_]\w{0,60}){1,8}\([^()\n]{0,80}\)"
        r"|(?<![\w.])[A-Za-z_]\w{1,60}(?:(?:::|->)[A-Za-z_]\w{1,60}){1,8}"
        r"|(?<![\w.-])[a-z]\w{1,40}(?:\.[a-z]\w{1,40}){2,8}(?![\w-])"
        r"|(?<![\w-])--[a-z]\w{0,40}(?:-[a-z0-9]\w{0,40}){0,8}(?:=[^\s,;\"'`]{1,80})?"
        r"|(?<=\S )-(?![IAYyoOaAeE]\b)[A-Za-z](?![\w'’-])"
        r"|(?<!\w)#(?:[0-9A-Fa-f]{6}|[0-9A-Fa-f]{3})(?!\w)",
    ),
    ("code", "", r"(?<!\w)[a-z]{1,30}(?:[A-Z][a-z0-9]{1,30}){1,8}(?:\([^()\n]{0,80}\))?(?!\w)"),
    ("mail", "@", r"(?<![\w.+-])[\w.+-]{1,64}@[A-Za-z0-9-]{1,60}(?:\.[\w-]{1,60}){1,6}"),
    (
        "handle",
        "@#",
        r"(?<![\w@.])@[A-Za-z_]\w{1,40}(?:-[a-z0-9]{1,40}){0,6}(?:/[\w.]{1,60}(?:-[a-z0-9]{1,60}){0,6})?|(?<![\w#&])#[^\W\d_]\w{1,60}",
    ),
    (
        "emoji",
        "",
        "[\U0001f1e6-\U0001f1ff]{2}|[0-9#*]\ufe0f?\u20e3|\U0001f3f4[\U000e0020-\U000e007f]{1,8}"
        f"|[{_EMOJI}][\ufe0e\ufe0f\U0001f3fb-\U0001f3ff]{{0,2}}"
        f"(?:\u200d[{_EMOJI}\u2640\u2642][\ufe0e\ufe0f\U0001f3fb-\U0001f3ff]{{0,2}}){{0,8}}|[©®™‼⁉]\ufe0f",
    ),
    ("symbol", "", "[\u2190-\u2bff\u2030-\u2038\u203b\u2044-\u205e\u2100-\u214f]"),
    (
        "key",
        "+-⌘⌥⇧⌃F",
        rf"(?<!\w)(?:(?:{_MODIFIER}) ?[+-] ?){{1,3}}(?:{_KEY})(?!\w)"
        rf"|(?<!\w)[⌘⌥⇧⌃]{{1,4}}(?:{_KEY})(?!\w)|(?<!\w)F(?:1[0-2]|[2-9])(?!\w)",
    ),
    (
        "date",
        "-/.",
        r"(?<![\w.-])\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:\.\d{1,9})?)?(?:Z|[+-]\d\d:?\d\d)?)?(?![\w-])"
        r"|(?<![\w./])\d{1,2}([./])\d{1,2}\1(?:\d{4}|\d{2})(?![\w/])(?!\.\d)|(?<![\w./])\d{4}/\d{1,2}/\d{1,2}(?![\w/])",
    ),
    ("time", ":", r"(?<![\w:.])\d{1,2}:\d\d(?::\d\d(?:[.,]\d{1,3})?)?(?![\w:]|\.\d)"),
    (
        "version",
        ".",
        r"(?<![\w.])(?!\d{1,3}(?:\.\d{3}){2,5}(?![\w.-]))[vV]?\d{1,6}(?:\.\d{1,6}){2,5}(?:-[0-9A-Za-z.]{1,30}|\+[0-9A-Za-z.]{1,30})?(?::\d{2,5}|/\d{1,2})?(?!\w|\.\d)"
        r"|(?<![\w.])[vV]\d{1,6}(?:\.\d{1,6}){0,5}(?!\w|\.\d)",
    ),
    (
        "phone",
        "+-)/",
        r"(?<![\w+])\+\d{1,3}[ /-]?(?:\(\d{1,5}\)[ /-]?)?\d{1,5}(?:[ /-]\d{1,8}){0,6}(?![\w-])"
        r"|(?<![\w.-])(?:\(\d{2,5}\) ?|0\d{2,4} ?[/-] ?)\d{3,9}(?:[ -]\d{2,8}){0,4}(?![\w-])"
        r"|(?<![\w.-])\d{3}-\d{3}-\d{4}(?![\w-])",
    ),
    (
        "number",
        "/:x×",
        r"(?<![\w.,])(?<!\d[\u00a0\u202f'’])\d{1,5} ?[/:x×] ?\d{1,5}(?: ?[x×] ?\d{1,5})?(?![\w/]|[.,]\d)",
    ),
    (
        "number",
        "0123456789",
        rf"(?:(?<![^\s(\[„“\"'«/:=<>{_CURRENCY}])(?:[-+]|[−±~≈<>≤≥] ?)(?=[\d{_CURRENCY}.]))?"
        rf"(?:(?:(?<![A-Za-z])(?:US|A|C|CA|AU))?[{_CURRENCY}] ?)?(?:(?<![^\W_])|(?<=\d[hH]))"
        rf"(?:{_INTEGER})(?:[.,]\d+)?(?:e[+-]?\d{{1,3}}(?!\w))?"
        rf"(?:[\u00a0\u202f ]?(?:[%‰{_CURRENCY}](?![\w({{])|(?:{_UNITS})(?![\w/])))?",
    ),
)
_RULES = tuple((kind, needs, re.compile(pattern)) for kind, needs, pattern in _TABLE)

# (opens, closes, kind, longest): between them anything may stand, line ends too.
_PAIRS = (
    ("<!--", "-->", "tag", 4000),
    ("<![CDATA[", "]]>", "tag", 4000),
    ("<?", "?>", "tag", 4000),
    ("<%", "%>", "tag", 2000),
    ("{%", "%}", "brace", 1000),
    ("{#", "#}", "brace", 1000),
    ("```", "```", "code", 8000),
)
_ICU = re.compile(r"\{\s{0,9}[\w.]{1,60}\s{0,9},\s{0,9}(?:plural|select|selectordinal|choice|number|date|time)\b")
_ICU_LENGTH = 4000
_TRAILING = ".,;:!?'\"…»”’*_"
_TRIMMED = frozenset({"url", "path", "version"})


def find_protected(text: str) -> tuple[ProtectedSpan, ...]:
    """Find what a translation must carry over: placeholders, markup, code, addresses, signs, numbers.

    Args:
        text: Any text.

    Returns:
        Spans in order that do not overlap. Of several that begin at one place the longest is taken; one that begins
        inside another is left out.
    """
    chosen: list[ProtectedSpan] = []
    done = 0
    for start, end, kind in _longest_first(_candidates(text)):
        if start >= done:
            chosen.append(ProtectedSpan(start, end, kind))
            done = end
    return tuple(chosen)


_Found = tuple[int, int, str]


def _longest_first(candidates: Iterator[_Found]) -> list[_Found]:
    # Of equally long ones the first row of the grammar wins: sorting is stable.
    return sorted(sorted(candidates, key=itemgetter(1), reverse=True), key=itemgetter(0))


def _candidates(text: str) -> Iterator[_Found]:
    for kind, needs, pattern in _RULES:
        if needs and not any(char in text for char in needs):
            continue
        if kind not in _TRIMMED:
            yield from ((*match.span(), kind) for match in pattern.finditer(text))
            continue
        for match in pattern.finditer(text):
            start, end = match.start(), _trimmed(text, *match.span())
            if start < end:
                yield start, end, kind
    for opens, closes, kind, longest in _PAIRS:
        yield from _pairs(text, opens, closes, kind, longest)
    if "{" in text:
        yield from _messages(text)


def _trimmed(text: str, start: int, end: int) -> int:
    """Return the end of an address without the punctuation of the sentence around it."""
    opened = text.count("(", start, end) - text.count(")", start, end)
    while end > start and (text[end - 1] in _TRAILING or (text[end - 1] == ")" and opened < 0)):
        opened += text[end - 1] == ")"
        end -= 1
    return end


def _pairs(text: str, opens: str, closes: str, kind: str, longest: int) -> Iterator[_Found]:
    start = text.find(opens)
    while start >= 0:
        end = text.find(closes, start + len(opens), start + longest)
        if end >= 0:
            yield start, end + len(closes), kind
        start = text.find(opens, end + len(closes) if end >= 0 else start + len(opens))


def _messages(text: str) -> Iterator[_Found]:
    """Find ICU messages, whole: ``{n, plural, one {# apple} other {# apples}}``."""
    stack: list[int] = []
    for match in re.finditer(r"[{}]", text):
        if match.group() == "{":
            stack.append(match.start())
        elif stack:
            start = stack.pop()
            if match.end() - start <= _ICU_LENGTH and _ICU.match(text, start):
                yield start, match.end(), "brace"
