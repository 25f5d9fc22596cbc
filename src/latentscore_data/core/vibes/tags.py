"""Tags for texts of vibes that need a review before they are published."""

from __future__ import annotations

import re
import unicodedata

from latentscore.meaning.sentence import is_foreign

LONGEST_WORDS = 120
"""Longer vibes get the tag ``long``, in words. Models are asked for two or three sentences at most."""

_MOJIBAKE = re.compile("[\u00c2\u00c3][\u0080-\u00bf]|\u00e2\u20ac|\u00ef\u00bb\u00bf|\ufffd")
"""UTF-8 that was decoded as Latin-1 or Windows-1252, and the replacement character of undecodable bytes."""
_EMAIL = re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+")
_LINK = re.compile(r"\b(?:https?://|www\.)\S+", re.I)
_PHONE = re.compile(r"(?<![\w.])(?:\+|\(?0|\(?\d{3}\)?[ -])[\d ()/.-]{6,}\d(?!\w)")

TAGS = ("empty", "long", "language", "encoding", "email", "phone", "link")


def tags_of(text: str) -> list[str]:
    """Return the tags of a text, in the order of :data:`TAGS`."""
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
