"""What is asked of every text before it is tokenized. Imports no tokenizer library."""

from __future__ import annotations

from nlpkit.core.errors import InputError


def check_unicode(text: str) -> None:
    """Refuse text that has no UTF-8 form.

    Raises:
        InputError: The text holds a lone surrogate.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"The text holds a lone surrogate, U+{ord(text[error.start]):04X}, at character {error.start}: "
            "it was decoded with the wrong encoding. Read it again as UTF-8."
        ) from error
