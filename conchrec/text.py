"""Makes foreign text safe to print, to log and to record. No other module escapes text.

Names, commands, paths, banners and error texts come from users, targets, agents and files. A character that
is not printable may move the cursor, or hide or reverse the text after it, so none reaches a terminal.

=============  ===================================================  =======================================
function       for                                                  what is not printable becomes
=============  ===================================================  =======================================
decode_text    records that escape by themselves (JSON)             stays; a byte beyond UTF-8: ``\\xff``
escape         names, paths, commands, fields of a listing          an escape: ``\\x1b``, ``\\n``
one_line       sentences that a person reads                        a space for a blank, else an escape
foreign_line   sentences of others that stand among our own         the same; ``conchrec:`` gets quotes
foreign_quote  the same within a sentence of ours, in quotes        the same; a quote mark: ``'``
quote          a word within a sentence                             an escape, as in a Python string
escape_json    text that is JSON already                            JSON's escape: ``\\u001b``
=============  ===================================================  =======================================

Printable characters are those of ``str.isprintable`` (no control, format, surrogate, private or unassigned
characters, and no blanks but the space), without those that Unicode calls default ignorable: fillers and
variation selectors have no width and are invisible.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from conchrec.reasons import Reason

#: Every line of ours for a user begins with this.
PREFIX = "conchrec: "
#: Longer than our own sentences; texts of targets may be longer.
MAX_LINE = 1024

# Default_Ignorable_Code_Point (Unicode, DerivedCoreProperties.txt), as far as isprintable lets it pass.
_INVISIBLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
_BLANKS = {
    ord(blank): " "
    for blank in "\t\n\v\f\r\x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    "\u2028\u2029\u202f\u205f\u3000"
}
#: Colons, and the letters and signs of other scripts that look like one (Unicode's list of confusables).
_COLONS = (
    ":\u02d0\u02f8\u0589\u05c3\u0703\u0704\u0903\u0a83\u16ec\u1803\u1809\u205a\u2236\ua4fd\ua789"
    "\ufe13\ufe30\ufe55\uff1a"
)
#: A colon ends the prefix. Blanks may stand before it, the blank of Braille too, and combining marks.
_OURS = re.compile(rf"conchrec(?=[\s\u2800\u0300-\u036f]*[{_COLONS}])", re.IGNORECASE)

#: Quote marks, and what looks like one.
_QUOTES = re.compile(
    "[\"\u02ba\u02dd\u02ee\u05f4\u201c-\u201f\u2033\u2036\u275d\u275e\u301d-\u301f\uff02]|''+|``+"
)


def is_printable(text: str) -> bool:
    """Whether a terminal shows each character of ``text``, and none controls it."""
    return text.isprintable() and (text.isascii() or _INVISIBLE.search(text) is None)


def decode_text(data: bytes) -> str:
    """``data`` as UTF-8; each byte that is not is written as ``\\xNN``, none as U+FFFD.

    No limit. The result may still have control characters: it is for a record that escapes them (JSON), or
    for one of the functions below.
    """
    return data.decode("utf-8", "backslashreplace")


def count_of(number: int, noun: str) -> str:
    """``1 file``, ``2 files``."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def escape(text: str | bytes, limit: int | None = None) -> str:
    """``text`` with an escape for each character that is not printable: ``\\n``, ``\\x1b``, ``\\u202e``.

    At most ``limit`` characters; a longer result is cut and ends in ``…``. Safe for a terminal, a log and one
    field of a line.
    """
    return cut(_escaped(_head(text, limit)), limit)


def one_line(text: str | bytes, limit: int | None = MAX_LINE) -> str:
    """``text`` as one line: each blank (tabs and line ends too) is a space, all else as in ``escape``.

    At most ``limit`` characters; a longer result is cut and ends in ``…``. Safe for a terminal and a log. A
    Reason stays one.
    """
    line = cut(_escaped(_head(text, limit).translate(_BLANKS)), limit)
    return Reason(text.code, line) if isinstance(text, Reason) else line


def foreign_line(text: str | bytes, limit: int | None = MAX_LINE) -> str:
    """``one_line`` of the words of others, in which nothing looks like the beginning of a line of ours.

    ``conchrec:`` becomes ``'conchrec':`` wherever it stands: a terminal wraps long lines where it likes.
    """
    return cut(_OURS.sub(r"'\g<0>'", one_line(text, limit)), limit)


def foreign_quote(text: str | bytes, limit: int) -> str:
    """``foreign_line`` in quotes, for a sentence of ours. No quote mark within ends the quotation."""
    words = _QUOTES.sub("'", foreign_line(text, limit))
    return f'"{words}"'


def quote(text: str | bytes, limit: int) -> str:
    """The first ``limit`` characters of ``text`` in quotes, as Python writes a string; ``…`` for the rest.

    Safe for a terminal and a log.
    """
    head = _head(text, limit)
    return _escaped(repr(head if len(head) <= limit else f"{head[:limit]}…"))


def escape_json(encoded: str) -> str:
    """The same JSON on one line that is safe to look at: escapes for characters that are not printable.

    ``encoded`` is JSON without line breaks between its values (RFC 8259, section 7). Its value is the same.
    """
    return encoded if is_printable(encoded) else encoded.translate(_JSON_ESCAPES)


def _head(text: str | bytes, limit: int | None) -> str:
    """The first characters of ``text``: at most one more than the limit, which shows that there are more."""
    if isinstance(text, bytes):
        return decode_text(text if limit is None else text[: 4 * limit + 4])
    return text if limit is None else text[: limit + 1]


def cut(text: str, limit: int | None) -> str:
    """The text, or its first characters and ``…`` where it has more than ``limit``."""
    return text if limit is None or len(text) <= limit else f"{text[: limit - 1]}…"


def _escaped(text: str) -> str:
    return text if is_printable(text) else text.translate(_ESCAPES)


class _Escapes(dict[int, str]):
    """A table for ``str.translate``: printable characters unchanged, and escapes for others.

    It grows with the characters that occur, up to a limit.
    """

    MOST = 4096

    def __init__(self, escape: Callable[[str], str]) -> None:
        super().__init__()
        self._escape = escape

    def __missing__(self, code: int) -> str:
        letter = chr(code)
        shown = letter if is_printable(letter) else self._escape(letter)
        if len(self) < self.MOST:
            self[code] = shown
        return shown


def _python_escape(letter: str) -> str:
    return letter.encode("unicode_escape").decode("ascii")


def _json_escape(letter: str) -> str:
    units = letter.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at] << 8 | units[at + 1]:04x}" for at in range(0, len(units), 2))


_ESCAPES = _Escapes(_python_escape)
_JSON_ESCAPES = _Escapes(_json_escape)
