"""What stands within a line of Markdown: emphasis, links, code, tags; all but the words are codes."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import replace

from nlpkit.apps.documents.document import Code, Part, Role
from nlpkit.apps.documents.formats.strings.messages import pair_codes

LONGEST_LABEL = 200
"""Most characters of the label of a link's definition that is minded."""

_TARGET = r"\((?:[^()\\\n]|\\.|\([^()\n]*\)){0,2000}\)"
_TOKENS = re.compile(
    "|".join(
        (
            r"(?P<escape>\\[!-/:-@\[-`{-~])",
            r"(?P<hard>(?:\\|(?<! ) {2,})\n[ \t]*)",
            r"(?P<code>(?<!`)`+)",
            r"(?P<math>(?<![\\$\w])\$\$?(?=[^\s$])[^$\n]{1,300}(?<=[^\s\\$])\$\$?(?![\w$]))",
            r"(?P<comment><!--)",
            r"(?P<auto><(?:[a-zA-Z][a-zA-Z0-9+.-]{1,31}:[^\s<>]*|[\w.+-]+@[\w.-]+)>)",
            r"(?P<tag><[A-Za-z/][\w-]*(?:\s[^<>]*)?/?>)",
            rf"(?P<image>!\[(?P<alt>[^\[\]\n]*)\](?:{_TARGET}|\[[^\[\]\n]*\]))",
            r"(?P<note>(?:\A\[\^[^\[\]\s]+\]:[ \t]*|\[\^[^\[\]\s]+\]))",
            rf"(?P<linkend>\](?:{_TARGET}|\[[^\[\]\n]*\]|(?=[^(\[:])|\Z))",
            r"(?P<link>\[)",
            r"(?P<strong>\*{1,3}|(?<![^\W_])_{1,3}(?=[^\s_])|(?<=[^\s_])_{1,3}(?![^\W_])|~~)",
            r"(?P<entity>&(?:[A-Za-z][A-Za-z0-9]{1,31}|#\d{1,7}|#[xX][0-9A-Fa-f]{1,6});)",
            r"(?P<emoji>:[a-z0-9_+-]{2,40}:(?!\w))",
            r"(?P<break>\n[ \t]*)",
        )
    ),
    re.DOTALL,
)


def inline_parts(text: str, references: Collection[str] = ()) -> tuple[Part, ...]:
    """Cut inline Markdown into text and codes.

    Args:
        text: Lines of a paragraph, without what their block begins lines with.
        references: Labels of the page's link definitions.
    """
    parts: list[Part] = []
    done = 0
    opened: list[int] = []
    labels = frozenset(reference.casefold() for reference in references)
    open_ended: set[str] = set()
    while (match := _TOKENS.search(text, done)) is not None:
        kind, literal = match.lastgroup or "", match.group()
        if kind in ("code", "comment"):
            # Of what does not end here, nothing ends further on.
            end = -1 if literal in open_ended else _end(text, match)
            if end < 0:
                open_ended.add(literal)
                parts.append(text[done : match.end()])
                done = match.end()
                continue
            literal = text[match.start() : end]
        if match.start() > done:
            parts.append(text[done : match.start()])
        done = match.start() + len(literal)
        if kind == "break":
            parts.append(" ")
        elif kind == "escape":
            parts.append(Code(literal=literal, text=literal[1:]))
        elif kind == "hard":
            parts.append(Code(literal=literal, breaks=True))
        elif kind == "link":
            opened.append(len(parts))
            parts.append(Code(literal=literal, role="open"))
        elif kind == "linkend":
            if not opened:
                parts.append(literal if literal == "]" else Code(literal=literal, text=literal))
                continue
            begin = opened.pop()
            if literal == "]" and not (labels and _words(parts, begin + 1).casefold() in labels):
                parts[begin] = "["
                parts.append("]")
            elif literal == "]" or literal.endswith("[]"):
                # A reference that is its own text: translating it would lose its target.
                words = "".join(part if isinstance(part, str) else part.literal for part in parts[begin:])
                parts[begin:] = [Code(literal=words + literal, text=words[1:])]
            else:
                parts.append(Code(literal=literal, role="close"))
        elif kind == "strong":
            parts.append(_emphasis(text, match))
        elif kind == "tag":
            alone = literal.endswith("/>") or literal.lower().startswith(("<br", "<img", "<hr", "<input"))
            role: Role = "alone" if alone else "close" if literal.startswith("</") else "open"
            parts.append(Code(literal=literal, role=role, breaks=literal.lower().startswith(("<br", "<hr"))))
        elif kind == "image":
            parts += _image(match)
        else:
            said = {"code": literal.strip("`").strip(), "auto": literal[1:-1], "entity": "", "math": literal}
            parts.append(Code(literal=literal, text=said.get(kind, "")))
    parts.append(text[done:])
    for place in opened:
        parts[place] = "["
    return _joined(pair_codes([part for part in parts if part != ""], _pair_name))


def _end(text: str, match: re.Match[str]) -> int:
    """Return where a comment or a code span ends that begins with a match; -1 for nowhere."""
    if match.lastgroup == "comment":
        end = text.find("-->", match.end())
        return end + 3 if end >= 0 else -1
    closing = re.compile(rf"(?<!`){match.group()}(?!`)").search(text, match.end())
    return closing.end() if closing else -1


def _words(parts: list[Part], begin: int) -> str:
    """Return what stands in brackets, up to the length of a label."""
    words, length = [], 0
    for part in parts[begin : begin + LONGEST_LABEL]:
        words.append(part if isinstance(part, str) else part.literal)
        length += len(words[-1])
        if length > LONGEST_LABEL:
            break
    return "".join(words)


def _image(match: re.Match[str]) -> list[Part]:
    alt = match.group("alt")
    start = match.start("alt") - match.start()
    literal = match.group()
    if not any(map(str.isalpha, alt)):
        return [Code(literal=literal)]
    return [
        Code(literal=literal[:start], role="open", breaks=True),
        alt,
        Code(literal=literal[start + len(alt) :], role="close", breaks=True),
    ]


def _emphasis(text: str, match: re.Match[str]) -> Part:
    before = text[match.start() - 1 : match.start()] if match.start() else ""
    after = text[match.end() : match.end() + 1]
    literal = match.group()
    opens = bool(after.strip()) and (not before.strip() or not before.isalnum())
    closes = bool(before.strip())
    if opens and closes and not before.isalnum() and not after.isalnum():
        opens = before in "([{\"'“„«"
    if opens:
        return Code(literal=literal, role="open")
    if closes:
        return Code(literal=literal, role="close")
    return literal


def _pair_name(literal: str) -> str:
    if literal.startswith(("[", "![", "]")):
        return "link"
    tag = re.match(r"</?([A-Za-z][\w-]*)", literal)
    return tag.group(1).lower() if tag else literal


def _joined(parts: list[Part]) -> tuple[Part, ...]:
    done: list[Part] = []
    for part in parts:
        # A mark of emphasis without its other half is a sign.
        if isinstance(part, Code) and part.role == "alone" and re.fullmatch(r"[*_~]+", part.literal):
            part = replace(part, breaks=False, text=part.literal)
        if isinstance(part, str) and done and isinstance(done[-1], str):
            done[-1] += part
        else:
            done.append(part)
    return tuple(done)


def escaped(text: str, before: str, *, cell: bool = False) -> str:
    """Escape the signs of a translated text that Markdown would read as marks, where its source had none of them.

    Args:
        text: The text.
        before: What stood in its place.
        cell: Whether it stands in a table's cell.
    """
    signs = "".join(sign for sign in "*`<[" if sign not in before) + ("|" if cell else "")
    text = re.sub(f"[{re.escape(signs)}]", r"\\\g<0>", text) if signs else text
    return re.sub(r"(?:\r\n|\r|\n)+", " ", text)
