"""Normal forms of key values: public rules by which a text becomes the same text at every holder.

A rule is written as its name, with a width where digits are filled up with zeros: `name`, `digits(9)`. Every rule
gives a text or None, depends on nothing but its input, and leaves its own results as they are. What a rule cannot take
(a date that does not exist, a number whose check digit is wrong) is None: such a value matches nothing, instead of
matching what it was mistyped into.

Sources: Unicode 16 annex 15 (NFKC) and section 3.13 (case folding); ISO/IEC 7812-1 annex B (Luhn); ISO/IEC 7064 (MOD
11,10 and MOD 97-10); ISO 13616 (IBAN); GS1 General Specifications 7.9 (GTIN); US National Archives (Soundex).
"""

import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date

from statfed.core.errors import UsageError
from statfed.core.names import one_of
from statfed.core.section import shown

_WRITTEN = re.compile(r"([a-z0-9-]+)(?:\(([0-9]{1,2})\))?")
_MARKS = re.compile("[\u0300-\u036f]")  # of Latin, Greek and Cyrillic; other scripts' marks are letters
_SPELLED = str.maketrans(
    {"ø": "o", "ł": "l", "đ": "d", "ð": "d", "þ": "th", "æ": "ae", "œ": "oe", "ı": "i", "ħ": "h", "ŧ": "t", "ŋ": "n"}
)
_APOSTROPHES = re.compile("['`´ʼʹ‘’‛′]")
_SEPARATORS = re.compile(r"[\s.,/()_+\-\u2010-\u2015]+")
_ISO = re.compile(r"([0-9]{4})[-./ ]?([0-9]{2})[-./ ]?([0-9]{2})")
_PARTED = re.compile(r"([0-9]{1,2})[-./ ]([0-9]{1,2})[-./ ]([0-9]{4})|([0-9]{2})([0-9]{2})([0-9]{4})")
_SOUNDS = {
    letter: code for code, letters in enumerate(("bfpv", "cgjkqsxz", "dt", "l", "mn", "r"), 1) for letter in letters
}


@dataclass(frozen=True)
class Rule:
    """One rule. width: digits that a number has, filled up with zeros from the left; 0 if it may have any."""

    name: str
    width: int = 0

    def __str__(self) -> str:
        return f"{self.name}({self.width})" if self.width else self.name

    def __call__(self, value: str | None) -> str | None:
        """The normal form of a value; None of a missing one, and of what the rule cannot take."""
        if value is None:
            return None
        found = RULES[self.name](value)
        if found and self.width:
            found = found.lstrip("0").zfill(self.width)
            found = found if len(found) == self.width else None
        check = CHECKS.get(self.name)
        return found if found and (check is None or check(found)) else None


def read_rule(written: str, where: str = "key") -> Rule:
    """The rule that is written as `written`. Raises UsageError naming those there are."""
    found = _WRITTEN.fullmatch(written)
    name, width = (found[1], int(found[2] or 0)) if found else (written, 0)
    if name not in RULES:
        raise UsageError(f"{where}: got rule {shown(name)}; want {one_of(RULES, name)}")
    if found and found[2] is not None and (name not in WIDE or not width):
        raise UsageError(
            f"{where}: got rule {shown(written)}; want a width of 1 to 99, of {', '.join(sorted(WIDE))} only"
        )
    return Rule(name, width)


def exact(value: str) -> str:
    """As it is, composed (NFC), without spaces around it."""
    return unicodedata.normalize("NFC", "".join(one for one in value if one not in _CONTROLS)).strip()


def text(value: str) -> str:
    """Compatibility forms, case and accents folded (NFKC), one space between words."""
    before = None
    while before != value:  # folding case may compose what folding accents takes apart; it settles at once or twice
        before = value
        value = _MARKS.sub("", unicodedata.normalize("NFKD", value.casefold())).translate(_SPELLED)
        value = unicodedata.normalize("NFKC", value)
        value = " ".join("".join(" " if one in _CONTROLS else one for one in value if not _unseen(one)).split())
    return value


def name(value: str) -> str:
    """As `text`; apostrophes dropped, every other sign a space: `O'Neill-Müller` is `oneill muller`."""
    folded = _APOSTROPHES.sub("", text(value))
    return text("".join(one if unicodedata.category(one)[0] in "LNM" else " " for one in folded))


def tokens(value: str) -> str:
    """As `name`, the words in the order of their letters: `Ann Mary` and `Mary Ann` are one."""
    return " ".join(sorted(name(value).split()))


def code(value: str) -> str:
    """As `name`, without spaces: for post codes and numbers of documents."""
    return text(name(value).replace(" ", ""))


def soundex(value: str) -> str | None:
    """A letter and three digits that names of like sound share; for blocks. Latin letters only."""
    folded = code(value)
    if re.fullmatch("[a-z][0-6]{3}", folded):
        return folded
    if not re.fullmatch("[a-z]+", folded):
        return None
    digits, last = "", _SOUNDS.get(folded[0])
    for letter in folded[1:]:
        sound = _SOUNDS.get(letter)
        if sound and sound != last:
            digits += str(sound)
        if letter not in "hw":
            last = sound
    return folded[0] + (digits + "000")[:3]


def digits(value: str) -> str | None:
    """Digits without separators, leading zeros kept; None if there is anything else."""
    found = "".join(_decimal(one) for one in _SEPARATORS.sub("", value))
    return found if re.fullmatch("[0-9]+", found) else None


def number(value: str) -> str | None:
    """A whole number without sign, separators and leading zeros; None if it is none."""
    found = "".join(_decimal(one) for one in value.strip())
    return (found.lstrip("0") or "0") if re.fullmatch("[0-9]+", found) else None


def iso_date(value: str) -> str | None:
    """YYYY-MM-DD of a date in that order, with or without separators; None if there is no such day."""
    found = _ISO.fullmatch("".join(_decimal(one) for one in value.strip()))
    return _day(found[1], found[2], found[3]) if found else None


def _parted(value: str, month_first: bool) -> str | None:
    plain = "".join(_decimal(one) for one in value.strip())
    found = _PARTED.fullmatch(plain)
    if found is None:
        return iso_date(plain) if re.fullmatch("[0-9]{4}-[0-9]{2}-[0-9]{2}", plain) else None
    first, second, year = [group for group in found.groups() if group]
    return _day(year, first, second) if month_first else _day(year, second, first)


def day_first(value: str) -> str | None:
    """YYYY-MM-DD of a date written day, month, year."""
    return _parted(value, month_first=False)


def month_first(value: str) -> str | None:
    """YYYY-MM-DD of a date written month, day, year."""
    return _parted(value, month_first=True)


def alphanumeric(value: str) -> str | None:
    """Basic Latin letters and digits without separators, lower case; None if there is anything else."""
    found = _SEPARATORS.sub("", text(value))
    return found if re.fullmatch("[a-z0-9]+", found) else None


def luhn_holds(found: str) -> bool:
    """Is the last digit Luhn's check digit of the others?"""
    doubled = [int(one) * 2 for one in found[-2::-2]]
    return len(found) > 1 and (sum(map(int, found[::-2])) + sum(two - 9 * (two > 9) for two in doubled)) % 10 == 0


def gtin_holds(found: str) -> bool:
    """Is the last digit that of a GTIN (EAN): weights 1 and 3 from the right?"""
    return len(found) > 1 and (sum(map(int, found[::-2])) + 3 * sum(map(int, found[-2::-2]))) % 10 == 0


def mod_11_10_holds(found: str) -> bool:
    """Is the last digit the check digit of ISO/IEC 7064 MOD 11,10?"""
    rest = 10
    for digit in found[:-1]:
        rest = ((rest + int(digit)) % 10 or 10) * 2 % 11
    return len(found) > 1 and (rest + int(found[-1])) % 10 == 1


def mod_97_10_holds(found: str) -> bool:
    """Are the last two digits the check digits of ISO/IEC 7064 MOD 97-10, letters read as 10 to 35?"""
    return len(found) > 2 and int("".join(str(int(one, 36)) for one in found)) % 97 == 1


def iban_holds(found: str) -> bool:
    """Is it an IBAN by its check digits, which stand third and fourth?"""
    return len(found) > 4 and mod_97_10_holds(found[4:] + found[:4])


def _unseen(one: str) -> bool:
    """Is it a mark that shows as nothing: soft hyphens, joiners, marks of direction?"""
    return unicodedata.category(one) == "Cf"


def _day(year: str, month: str, day: str) -> str | None:
    try:
        return date(int(year), int(month), int(day)).isoformat()
    except ValueError:
        return None


def _decimal(one: str) -> str:
    """A decimal digit of any script as that of Basic Latin; anything else as it is."""
    value = unicodedata.decimal(one, None)
    return one if value is None else str(value)


_CONTROLS = frozenset(map(chr, [*range(32), *range(127, 160)]))
RULES: dict[str, Callable[[str], str | None]] = {
    "exact": exact,
    "text": text,
    "name": name,
    "tokens": tokens,
    "code": code,
    "soundex": soundex,
    "digits": digits,
    "number": number,
    "date": iso_date,
    "date-dmy": day_first,
    "date-mdy": month_first,
    "luhn": digits,
    "gtin": digits,
    "mod11-10": digits,
    "mod97-10": alphanumeric,
    "iban": alphanumeric,
}
"""By name: what comes of a text. Where `CHECKS` has the name too, that has to hold of it."""
CHECKS: dict[str, Callable[[str], bool]] = {
    "luhn": luhn_holds,
    "gtin": gtin_holds,
    "mod11-10": mod_11_10_holds,
    "mod97-10": mod_97_10_holds,
    "iban": iban_holds,
}
WIDE = frozenset({"digits", "number", "luhn", "gtin", "mod11-10"})
"""Rules that take a width."""
