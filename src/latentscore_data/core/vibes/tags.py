"""What a vibe's text holds that somebody who publishes it should look at: tags, not deletions."""

from __future__ import annotations

import re
import unicodedata

from latentscore.meaning.sentence import is_foreign

LONGEST_WORDS = 120
"""A vibe has five lengths; the longest asked for is two or three sentences."""

_MOJIBAKE = re.compile("[\u00c2\u00c3][\u0080-\u00bf]|\u00e2\u20ac|\u00ef\u00bb\u00bf|\ufffd")
"""UTF-8 that was read as Latin-1 or Windows-1252, and the sign that stands for bytes that could not be read."""
_EMAIL = re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+")
_LINK = re.compile(r"\b(?:https?://|www\.)\S+", re.I)
_PHONE = re.compile(r"(?<![\w.])(?:\+|\(?0|\(?\d{3}\)?[ -])[\d ()/.-]{6,}\d(?!\w)")

TAGS = ("empty", "long", "language", "encoding", "email", "phone", "link")


def tags_of(text: str) -> list[str]:
    """The tags of a text, in the order of :data:`TAGS`."""
    found = {
        "empty": not any(letter.isalnum() for letter in text),
        "long": len(text.split()) > LONGEST_WORDS,
        "language": is_foreign(text),
        "encoding": _MOJIBAKE.search(text) is not None or any(map(_is_control, text)),
        "email": _EMAIL.search(text) is not None,
        "phone": any(7 <= sum(c.isdigit() for c in number) <= 15 for number in _PHONE.findall(text)),
        "link": _LINK.search(text) is not None,
    }
    return [tag for tag in TAGS if found[tag]]


def _is_control(letter: str) -> bool:
    return unicodedata.category(letter) in ("Cc", "Cs") and letter not in "\n\r\t"
