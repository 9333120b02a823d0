"""XML from somewhere that is not trusted: a parser that expands nothing, and the characters that XML does not have."""

from __future__ import annotations

import re
from collections.abc import Callable
from xml.parsers import expat

from nlpkit.core.errors import InputError

FORBIDDEN = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that XML does not have."""


def untrusted_parser(refuse: Callable[[str], InputError]) -> expat.XMLParserType:
    """Return a parser that refuses files which declare entities.

    Args:
        refuse: Makes the error, of why a file is refused.
    """
    parser = expat.ParserCreate()

    def entity(*_: object) -> None:
        raise refuse("it declares entities, which are not expanded here")

    parser.EntityDeclHandler = entity
    return parser
