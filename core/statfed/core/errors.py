"""The errors a user meets. Each class is one exit code of the `statfed` command.

A message says what was got and what was wanted. A message of `Refused` or `UsageError` raised at a holder
travels to the coordinator, so it is written to be public: it never holds a data value or a secret threshold.
"""


class StatfedError(Exception):
    """Base of all errors that are reported without a traceback."""

    exit_code = 1


class UsageError(StatfedError):
    """The command, the study file or the data given by the user is wrong."""

    exit_code = 2


class Refused(StatfedError):
    """A holder's policy or privacy budget does not allow it."""

    exit_code = 3


class Pending(Refused):
    """A person at a holder has to approve the study before it is answered."""


class EngineError(StatfedError):
    """A process, connection or party failed while a study was running."""

    exit_code = 4


class LedgerCorrupt(StatfedError):
    """A ledger entry was edited, removed, reordered or truncated; nothing is charged to such a ledger."""

    exit_code = 5


BY_NAME: dict[str, type[StatfedError]] = {
    cls.__name__: cls for cls in (StatfedError, UsageError, Refused, Pending, EngineError, LedgerCorrupt)
}
