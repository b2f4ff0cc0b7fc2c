"""What a rehearsal found (`statfed.federation.rehearsal`): for people who have to decide, and as JSON."""

from typing import Literal

from pydantic import Field

from statfed.core.section import Section


class Reason(Section):
    """Something that stands against the study. key: of policy.toml that decides it; empty: the study has to change."""

    text: str
    key: str = ""


class Leaving(Section):
    """One array that leaves this holder with a sum. kind: what its numbers are."""

    part: str
    kind: str
    shape: tuple[int, ...]


class Summed(Section):
    """One kind of sum of the study. times: how often it was made in the rehearsal; refused: how often holders' rules
    kept it back there; numbers: that leave each time; bytes: sent by all parties, on average a sum; noise: added
    here before it leaves, by the coordinator that is trusted with the exact sum, or not at all."""

    ask: str
    times: int
    refused: int
    parts: tuple[Leaving, ...]
    numbers: int
    bytes: int
    noise: Literal["here", "coordinator", "none"]


class Cost(Section):
    """What the study costs this holder by its true ledger. left: epsilon of the largest release that is still admitted;
    share: of that; more: how often the study could be run; figures: exact numbers that it gives, given: that the data
    gave before, most: that they ever give, None without a limit."""

    unit: str
    epsilon: float | None = None
    delta: float | None = None
    left: float
    share: float | None = None
    more: int | None = None
    figures: int = 0
    given: int = 0
    most: int | None = None

    def line(self) -> str:
        """In one line."""
        most = "" if self.most is None else f" of the {self.most:,} that these data ever give"
        exact = f"{self.figures:,} exact figures{most} ({self.given:,} given before)"
        if self.delta is None:
            return f"budget: nothing; {exact}"
        if self.epsilon is None:
            return f"budget: cannot be told; epsilon {self.left:.4g} is left"
        times = "" if self.more is None else f", enough for {self.more:,} such studies"
        told = f"budget: epsilon {self.epsilon:.4g} per {self.unit}, of {self.left:.4g} that is left{times}"
        return f"{told}; {exact}" if self.figures else told


class Learned(Section):
    """One row of *who learns what*."""

    role: str
    learns: str
    protected_by: str


class Rehearsal(Section):
    """What a study would do. party: whose eyes it is for.

    reasons: what the policy has against it; approval: who gives it, see `statfed.client.guard.explaining.approval_by`;
    misfits: of the true data and the codebook, None where there are none here; completed: did the rehearsal give a
    result? kept_back: by rules of disclosure control, on the generated data; stopped: why it gave none, if that was not
    a rule; untried: why it was given up, which says nothing against the study; rounds: of training, of how many;
    seconds: all of it here; own_seconds: what this holder would compute for about, in proportion to its records and
    rounds.
    """

    party: str
    method: str
    title: str
    protection: str
    holders: tuple[str, ...]
    third_parties: tuple[str, ...]
    records: int
    reasons: tuple[Reason, ...]
    approval: str | None
    misfits: tuple[str, ...] | None
    completed: bool
    kept_back: tuple[str, ...]
    stopped: str
    untried: str
    sums: tuple[Summed, ...]
    rounds: tuple[int, int] | None
    sent: int = Field(description="bytes that this party sent in the rehearsal")
    cost: Cost | None
    learns: tuple[Learned, ...]
    seconds: float
    own_seconds: float

    @property
    def obstacles(self) -> tuple[str, ...]:
        """All that stands against the study here: nothing where it would run."""
        found = [reason.text for reason in self.reasons]
        found += [f"data: {one}" for one in self.misfits or ()]
        if self.cost and self.cost.more == 0:
            found.append(f"budget: it costs epsilon {self.cost.epsilon or 0:.4g}, and {self.cost.left:.4g} is left")
        if self.cost and self.cost.most is not None and self.cost.given + self.cost.figures > self.cost.most:
            found.append(
                f"limits.figures: {self.cost.figures:,} exact figures more, of {self.cost.most:,} that these data ever "
                f"give and {self.cost.given:,} that they gave"
            )
        if self.stopped:
            found.append(f"rehearsal: {self.stopped}")
        return tuple(found)

    @property
    def answer(self) -> Literal["runs", "depends", "refused"]:
        """Would it run? It depends where rules on cells kept a sum back on the generated data, since the true data may
        pass them or not, and where it was not tried."""
        return "refused" if self.obstacles else "runs" if self.completed else "depends"

    def lines(self) -> list[str]:
        """For people: would it run, what stands against it, and what it costs."""
        head = {
            "runs": "would run",
            "depends": f"not rehearsed: {self.untried}"
            if self.untried
            else "depends on the data: rules on cells kept a sum back in the rehearsal",
            "refused": "would be refused, or could not be answered",
        }[self.answer]
        waits = ", once a person here has approved it" if self.approval == "" else ""
        waits = f", by a standing approval ({self.approval})" if self.approval else waits
        found = [f"{head}{waits}", *(f"- {one}" for one in self.obstacles)]
        found += [f"  kept back on generated data: {one}" for one in self.kept_back]
        if self.misfits is not None and not self.misfits:
            found.append("data: they fit the study's codebook")
        if self.cost:
            found.append(self.cost.line())
        if not self.records:
            return found
        many = f"{len(self.holders)} holders of {self.records:,} generated records each"
        some = f", {self.rounds[0]} of {self.rounds[1]} rounds" if self.rounds else ""
        found.append(f"rehearsed in {self.seconds:.1f} s: {many}{some}; computing here about {self.own_seconds:.1f} s")
        return found
