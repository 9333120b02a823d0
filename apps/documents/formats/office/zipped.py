"""What zipped documents have in common: parts with text, whose places make up the document's segments."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from nlpkit.apps.documents.document import Document, ReadOptions, Results, Segment
from nlpkit.apps.documents.formats.office.package import Package
from nlpkit.apps.documents.formats.office.xml_tokens import Token, read_xml, tokens
from nlpkit.apps.documents.formats.office.xml_writer import XmlText
from nlpkit.apps.documents.source_text import SourceText


@dataclass(frozen=True)
class ZipSkeleton:
    """A zipped document.

    Attributes:
        package: All of its parts.
        texts: Those with text, by name, in the order in which people read them.
        kept: For each text, which of its segments are not to be translated.
    """

    package: Package
    texts: tuple[tuple[str, XmlText], ...]
    kept: tuple[frozenset[int], ...] = field(default=())

    def segments(self) -> Iterator[Segment]:
        """Return what is to be translated."""
        for index, (_, text) in enumerate(self.texts):
            kept = self.kept[index] if self.kept else frozenset()
            yield from (segment for at, segment in enumerate(text.segments) if at not in kept)

    def write(self, results: Results) -> bytes:
        """Write the archive with the results of `segments`."""
        given = iter(results)
        parts: dict[str, bytes] = {}
        for index, (name, text) in enumerate(self.texts):
            kept = self.kept[index] if self.kept else frozenset()
            mine = [None if at in kept else next(given) for at in range(len(text.segments))]
            if any(result is not None for result in mine):
                parts[name] = text.write(mine)
        return self.package.write(parts)


def zip_document(
    name: str,
    package: Package,
    texts: Sequence[tuple[str, XmlText]],
    *,
    kept: Sequence[frozenset[int]] = (),
    notes: Iterable[str] = (),
    source_lang: str | None = None,
) -> Document:
    """Put a document together.

    Args:
        name: Name of its format.
        package: Its parts.
        texts: Those with text.
        kept: As `ZipSkeleton`.
        notes: What a user should know about it.
        source_lang: The language it says it is in.
    """
    skeleton = ZipSkeleton(package, tuple(texts), tuple(kept))
    signed = any("signature" in part.lower() and part.endswith((".xml", ".sigs")) for part in package.entries)
    note = ("It is signed: the signature of a translated document is not valid any more.",) if signed else ()
    return Document(
        format=name,
        segments=tuple(skeleton.segments()),
        skeleton=skeleton,
        source_lang=source_lang,
        notes=(*note, *notes),
    )


def read_part(package: Package, name: str, options: ReadOptions, title: str) -> SourceText:
    """Decode a part that is XML; errors name it."""
    return read_xml(package.read(name), replace(options, name=f"{options.name} ({name})"), title)


def part_tokens(package: Package, name: str, options: ReadOptions, title: str) -> Iterator[Token]:
    """Return the tokens of a part that is XML; none if the package has no such part."""
    if name in package:
        yield from tokens(read_part(package, name, options, title).text)


def part_types(package: Package, options: ReadOptions, title: str) -> dict[str, str]:
    """Return the types of the parts of an Office Open XML document: their own, or that of their suffix."""
    own: dict[str, str] = {}
    usual: dict[str, str] = {}
    for token in part_tokens(package, "[Content_Types].xml", options, title):
        kind = token.get("ContentType") or ""
        if token.name == "types:Override":
            own[(token.get("PartName") or "").lstrip("/")] = kind
        elif token.name == "types:Default":
            usual[(token.get("Extension") or "").lower()] = kind
    others = {part: usual.get(part.rpartition(".")[2].lower(), "") for part in package.entries if part not in own}
    return {part: kind for part, kind in {**own, **others}.items() if part in package and kind}


def related_parts(package: Package, name: str, options: ReadOptions, title: str) -> dict[str, str]:
    """Return the parts that a part of an Office Open XML document names, by their identifiers."""
    folder, _, base = name.rpartition("/")
    found = {}
    for token in part_tokens(package, f"{folder}/_rels/{base}.rels".lstrip("/"), options, title):
        target = token.get("Target")
        if token.name == "rel:Relationship" and target and token.get("TargetMode") != "External":
            found[token.get("Id") or ""] = resolved(folder, target)
    return found


def resolved(folder: str, target: str) -> str:
    """Return the name of a part that another part in a folder of the package names."""
    if target.startswith("/"):
        return target.lstrip("/")
    steps = folder.split("/") if folder else []
    for step in target.split("/"):
        if step == "..":
            steps = steps[:-1]
        elif step not in ("", "."):
            steps.append(step)
    return "/".join(steps)
