"""E-mail (.eml), read as text for summaries and questions: it cannot be written."""

from __future__ import annotations

import codecs
import email
import email.policy
import re
from typing import Any

from nlpkit.apps.documents.document import Document, ReadOptions, Results, Segment, broken
from nlpkit.apps.documents.formats.markup.html import Html
from nlpkit.apps.documents.formats.various.pdf import read_only
from nlpkit.core.errors import InputError

_TITLE = "an e-mail"
_HEADER = re.compile(rb"(?:From |[A-Za-z][A-Za-z0-9-]*:)")


class Mail:
    """Reads e-mail."""

    name = "eml"

    def read(self, data: bytes, options: ReadOptions) -> Document:
        """Read subject and text of a message; attachments are left out.

        Raises:
            InputError: It is no message, or has no text.
        """
        if not _HEADER.match(data.lstrip()[:100]):
            raise broken(_TITLE, options, "it begins with no header")
        try:
            message = email.message_from_bytes(data, policy=email.policy.default)
            subject = _clean(str(message.get("subject") or ""))
            body = message.get_body(preferencelist=("plain", "html"))
            content = _clean(str(body.get_content())) if body is not None else ""
        except (LookupError, ValueError, TypeError, AttributeError, RecursionError) as error:
            raise broken(_TITLE, options, f"it is damaged ({type(error).__name__}: {error})") from error
        segments = [Segment(parts=(subject,), kind="title", place="subject")] if subject.strip() else []
        if body is not None and body.get_content_subtype() == "html":
            # It is decoded already, whatever encoding the page itself names: the mark says so.
            segments += Html().read(codecs.BOM_UTF8 + content.encode(), ReadOptions(name=options.name)).segments
        else:
            blocks = re.split(r"\n[ \t]*\n", content.replace("\r\n", "\n"))
            segments += [Segment(parts=(block.strip(),), place="body") for block in blocks if block.strip()]
        if not segments:
            raise InputError(f"There is no text in {options.name}: it may hold attachments alone.")
        attachments = [_clean(part.get_filename() or part.get_content_type()) for part in message.iter_attachments()]
        notes = (f"Attachments are left out: {', '.join(attachments)}.",) if attachments else ()
        return Document(format=self.name, segments=tuple(segments), skeleton=None, notes=notes)

    def write(self, skeleton: Any, results: Results, options: ReadOptions) -> bytes:
        """Refuse: a message is signed by its way here.

        Raises:
            InputError: Always.
        """
        raise read_only(_TITLE, options)


def _clean(text: str) -> str:
    """Return a text without halves of characters, which some encodings can say."""
    return text.encode("utf-8", "replace").decode()
