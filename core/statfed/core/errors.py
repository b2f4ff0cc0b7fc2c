"""The errors a user meets. Each class is one exit code of the `statfed` command.

A message says what was got and what was wanted. A message of `Refused` or `UsageError` raised at a holder
travels to the coordinator, so it is written to be public: it never holds a data value or a secret threshold.
"""

MOST_TOLD = 5_000
"""Characters of an error that another party reports."""


class StatfedError(Exception):
    """Base of all errors that are reported without a traceback."""

    exit_code = 1


class UsageError(StatfedError):
    """The command, the study file or the data given by the user is wrong."""

    exit_code = 2


class Refused(StatfedError):
    """A holder's policy or privacy budget does not allow it."""

    exit_code = 3


class Malformed(Refused):
    """A packet is none of the protocol at this stage: found out without a look at this party's own data."""


class Pending(Refused):
    """A person at a holder has to approve the study before it is answered."""


class EngineError(StatfedError):
    """A process, connection or party failed while a study was running."""

    exit_code = 4


class Contradicted(EngineError):
    """A party's log contradicts what was noted of it before: no other attempt mends that, and no study goes on."""


class LedgerCorrupt(StatfedError):
    """A ledger entry was edited, removed, reordered or truncated; nothing is charged to such a ledger."""

    exit_code = 5


BY_NAME: dict[str, type[StatfedError]] = {
    cls.__name__: cls
    for cls in (StatfedError, UsageError, Refused, Malformed, Pending, EngineError, Contradicted, LedgerCorrupt)
}


def harmless(text: str, most: int = MOST_TOLD) -> str:
    """Another party's words, as terminals, files and pages can show them: cut short, and printable.

    Lines after the first are set in, so that none looks like what a third party said.

    >>> print(harmless("no\\x1b[2K\\nother: yes"))
    no\\x1b[2K
      other: yes
    """
    lines = printable(text if len(text) <= most else text[:most] + "...").split("\n")
    return "\n".join(lines[:1] + [line if line.startswith("  ") else f"  {line}" for line in lines[1:]])


def printable(text: str) -> str:
    """A text in which whatever is not printable, but for ends of lines, is written out: escapes that move a cursor,
    marks that turn the direction of a text, halves of characters."""
    return "".join(one if one.isprintable() or one == "\n" else ascii(one)[1:-1] for one in text)
