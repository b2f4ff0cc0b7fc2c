"""The way of a protected sum's stages to its parties and back, and what silence, failure and refusal mean on it.

A party that refuses ends the sum. One that fails or does not answer has dropped out where the sum can do without it,
and ends the sum where it cannot. How messages are made and replies are read is for `Exchange` and `ProtectedGrid`.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from flwr.app import Message

from statfed.core.errors import EngineError, Refused, StatfedError
from statfed.core.protection import Packet, Replies, Stage


@dataclass(frozen=True)
class Carrier:
    """Carries the stages of one sum.

    message: of a stage to a party, with its packet. deliver: sends messages, returns the replies by party. read: the
    packet in a party's reply; raises what the party reported, EngineError for a failure and others for a refusal.
    silence: what is said of a party that did not answer a stage. missing: the message of the error when parties did not
    answer that the sum cannot do without. may_drop: parties that it can do without. drop: called with each one that it
    does without, and what happened.
    """

    message: Callable[[Stage, str, Packet], Message]
    deliver: Callable[[Stage, Sequence[Message]], Mapping[str, Message]]
    read: Callable[[Stage, str, Message], Packet]
    silence: Callable[[Stage], str]
    missing: Callable[[Stage, Sequence[str]], str]
    may_drop: Collection[str]
    drop: Callable[[str, str], None]

    def send(self, stage: Stage) -> Replies:
        """Packets of the parties that answered. Raises what parties refused, and failures that it cannot do without.

        Silence is told only where nobody refused.
        """
        replies = self.deliver(stage, [self.message(stage, name, packet) for name, packet in stage.packets.items()])
        found: dict[str, Packet] = {}
        failed: dict[str, EngineError] = {}
        errors: list[StatfedError] = []
        for name, reply in sorted(replies.items()):
            try:
                found[name] = self.read(stage, name, reply)
            except EngineError as error:
                failed[name] = error
            except StatfedError as error:
                errors.append(error)
        silent = [] if errors else sorted(set(stage.packets) - set(replies))
        lost = {name: str(error) for name, error in failed.items()} | {name: self.silence(stage) for name in silent}
        for name in sorted(set(lost) & set(self.may_drop)):
            self.drop(name, lost[name])
        errors += [error for name, error in failed.items() if name not in self.may_drop]
        if absent := [name for name in silent if name not in self.may_drop]:
            errors.append(EngineError(self.missing(stage, absent)))
        if errors:
            raise joined(errors)
        return found


def joined(errors: Sequence[StatfedError], others: str = "") -> StatfedError:
    """Several parties' errors as one; a refusal among them makes it a refusal."""
    kind = Refused if any(isinstance(error, Refused) for error in errors) else errors[0].__class__
    return kind("\n".join(str(error) for error in errors) + others)
