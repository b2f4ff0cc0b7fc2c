"""Laws of a protection's sums, in memory: totals are exact, and whoever is missing, no total is ever wrong."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from statfed.core.errors import StatfedError
from statfed.core.fixed_point import Layout, Slot
from statfed.core.method import Arrays, Part, summed
from statfed.core.protection import Aggregate, Agreement, Packet, Replies, Requirements, Stage, conduct
from statfed.lab.laws.check import Law, holds
from statfed.lab.laws.network import Network, agreement

SLOTS: dict[str, dict[str, Slot]] = {
    "32-bit whole numbers": {"n": Slot((3,), 2.0**29, integer=True), "one": Slot((), 2.0**20, integer=True)},
    "32-bit model updates": {"update": Slot((17,), 1000.0, update=True), "weight": Slot((), 2.0**20, integer=True)},
    "64-bit numbers": {"x": Slot((2, 3), np.array([[1e6, 1e6, 2.0], [1.0, 3e-5, 1e9]])), "n": Slot((), 1e12, True)},
    "192-bit numbers": {"score": Slot((4,), np.inf), "n": Slot((2, 1), 2.0**40, integer=True)},
}
"""One layout of every width that words have; updates are the only real numbers that may be narrow."""


@dataclass(frozen=True)
class Subject:
    """A protection under test, with options as they are by default. third: parties beside the holders."""

    name: str
    module: Any
    third: tuple[str, ...] = field(default=())

    @property
    def requires(self) -> Requirements:
        found: Requirements = self.module.REQUIRES
        return found

    def agreement(self, more: int = 0, *, minimum: int | None = None, run: str = "run") -> Agreement:
        """The fewest holders and `more`, of unequal sizes. minimum: fewest of a sum, all by default."""
        made = agreement(self.name, self.fewest + more, minimum=minimum, run=run)
        return replace(made, sizes={name: 40 * (i + 1) for i, name in enumerate(made.holders)})

    @property
    def fewest(self) -> int:
        """The fewest holders of an exact sum, two at least."""
        return max(2, self.requires.minimum_holders)

    @property
    def surviving(self) -> Agreement:
        """An agreement of which one holder may be missing, at least."""
        more = max(0, 4 - self.fewest)
        return self.agreement(more, minimum=2 * (self.fewest + more) // 3 + 1)


def layouts(holders: int) -> Iterator[tuple[str, Layout]]:
    """One layout of every width, by name."""
    for name, slots in SLOTS.items():
        yield name, Layout(slots, holders, narrow="updates" in name)


def contributions(layout: Layout, made: Agreement, seed: int) -> dict[str, Arrays]:
    """Random contributions that use each holder's whole share of the range."""
    rng = np.random.default_rng(seed)
    records = sum(made.sizes.values())

    def one(slot: Slot, share: float) -> NDArray[Any]:
        limit = np.where(np.isfinite(slot.limit), slot.limit, 1e7)
        values = rng.uniform(-1.0, 1.0, slot.shape) * limit * share
        return np.asarray(values, np.int64) if slot.integer else np.asarray(values, np.float64)

    return {
        holder: {name: one(slot, made.sizes[holder] / records) for name, slot in layout.slots.items()}
        for holder in made.holders
    }


def pooled(layout: Layout, made: Agreement, given: Mapping[str, Arrays], holders: Iterable[str], fixed: bool) -> Arrays:
    """The sum over `holders` that a trusted party would form: of whole numbers where the protection adds such."""
    records = sum(made.sizes.values())
    if not fixed:
        parts = {name: Part(slot.shape, integer=slot.integer) for name, slot in layout.slots.items()}
        return summed({name: given[name] for name in holders}, parts)
    whole = [layout.for_holder(made.sizes[name] / records).encode(given[name]).astype(object) for name in holders]
    total = np.sum(whole, axis=0)
    return layout.decode(total if layout.bits == 192 else total.astype(np.int64))


def right(subject: Subject, made: Agreement, layout: Layout, given: Mapping[str, Arrays], got: Aggregate) -> None:
    """Raises Broken unless an aggregate is the sum over the holders that it names: to the bit in fixed point, else
    within the rounding of a sum of float64."""
    holds(set(got.holders) <= set(made.holders), f"got holders {', '.join(got.holders)}; want holders of the run")
    holds(len(set(got.holders)) == len(got.holders), f"got {', '.join(got.holders)}; want each holder once")
    wanted = pooled(layout, made, given, got.holders, subject.requires.fixed_point)
    holds(set(got.total) == set(wanted), f"got {', '.join(sorted(got.total))}; want {', '.join(sorted(wanted))}")
    for name, want in wanted.items():
        total = np.asarray(got.total[name])
        holds(total.shape == want.shape, f"{name}: got shape {total.shape}; want {want.shape}")
        slack = np.zeros(want.shape)
        if not subject.requires.fixed_point and not layout.slots[name].integer:
            slack = 1e-15 * len(got.holders) * np.sum([np.abs(given[one][name]) for one in got.holders], axis=0)
        off = np.abs(total.astype(np.float64) - want.astype(np.float64))
        holds((off <= slack).all(), f"{name}: got a total that is off by {off.max(initial=0):.3g}; want the exact sum")


def whole(subject: Subject, made: Agreement, layout: Layout, given: Mapping[str, Arrays], got: Aggregate) -> None:
    """As `right`, over every holder."""
    missing = sorted(set(made.holders) - set(got.holders))
    holds(not missing, f"holders: got a sum that does not account for {', '.join(missing)}; want every holder")
    right(subject, made, layout, given, got)


def _totals(subject: Subject) -> str:
    looked = []
    for more in (0, 2):
        made = subject.agreement(more)
        for name, layout in layouts(len(made.holders)):
            given = contributions(layout, made, seed=more)
            whole(subject, made, layout, given, Network(made).sum(given, layout))
            looked.append(name)
    return f"{subject.fewest} and {subject.fewest + 2} holders; {', '.join(dict.fromkeys(looked))}"


def _repeated(subject: Subject) -> str:
    made = subject.agreement()
    network = Network(made)
    forms = [layout for _, layout in layouts(len(made.holders))] * 2
    for number, layout in enumerate(forms):
        given = contributions(layout, made, seed=10 + number)
        whole(subject, made, layout, given, network.sum(given, layout))
    return f"{len(forms)} sums of changing form in one run"


def _each(subject: Subject) -> str:
    made = subject.agreement()
    _, layout = next(layouts(len(made.holders)))
    given = contributions(layout, made, seed=20)
    each = Network(made).sum(given, layout).each
    if not subject.requires.reveals_updates:
        holds(not each, f"each: got contributions of {', '.join(sorted(each))}; want none: updates are hidden")
        return "none are shown, as REQUIRES says"
    holds(set(each) == set(made.holders), f"each: got {', '.join(sorted(each)) or 'none'}; want every holder's")
    for holder, arrays in given.items():
        same = all(np.array_equal(each[holder][name], array) for name, array in arrays.items())
        holds(same, f"each: {holder}: got other figures than it contributed; want the same")
    return "all are shown, as REQUIRES says"


def stages(made: Agreement, layout: Layout, given: Mapping[str, Arrays]) -> list[Stage]:
    """The stages of the first sum of an honest run."""
    network, seen = Network(made), []

    def send(stage: Stage) -> Replies:
        seen.append(stage)
        return {name: network.deliver(stage, name, p, given, layout) for name, p in stage.packets.items()}

    conduct(network.rounds(layout), send)
    return seen


def _missing(subject: Subject) -> str:
    tried, formed = 0, 0
    runs = [subject.agreement()]
    if subject.requires.survives_dropout:
        runs.append(subject.surviving)
    for made in runs:
        _, layout = [*layouts(len(made.holders))][2]
        given = contributions(layout, made, seed=30)
        enough = len(made.holders) - made.minimum_holders
        for stage in stages(made, layout, given):
            asked = tuple(stage.packets)
            silent = [asked[:1], asked[-1:], tuple(name for name in made.holders if name in asked)[: enough + 1]]
            for names in dict.fromkeys(filter(None, silent)):
                tried += 1
                formed += _without(subject, made, layout, given, stage, names)
    return f"{tried} times somebody was missing: {formed} right totals, no wrong one, else an error"


def _without(
    subject: Subject, made: Agreement, layout: Layout, given: Mapping[str, Arrays], stage: Stage, names: tuple[str, ...]
) -> bool:
    """A sum in which `names` are silent from a stage on: is a total formed? Raises Broken on a wrong one."""
    try:
        got = Network(made, drops={stage.name: names}).sum(given, layout)
        total = Aggregate(dict(got.total), got.holders)
    except StatfedError:
        return False
    where = f"{stage.name}, {', '.join(names)} missing"
    holds(
        len(got.holders) >= made.minimum_holders,
        f"{where}: got a total over {len(got.holders)} holders; want {made.minimum_holders} or an error",
    )
    if stage.carries:
        listed = sorted(set(names) & set(got.holders))
        holds(not listed, f"{where}: got a total that names {', '.join(listed)}; want whose contributions arrived")
    right(subject, made, layout, given, total)
    return True


def _survives(subject: Subject) -> str:
    if not subject.requires.survives_dropout:
        return "REQUIRES does not say so"
    made = subject.surviving
    _, layout = [*layouts(len(made.holders))][2]
    given, gone = contributions(layout, made, seed=40), made.holders[1]
    (carrying,) = (stage for stage in stages(made, layout, given) if stage.carries)
    holds(
        _without(subject, made, layout, given, carrying, (gone,)),
        f"{carrying.name}: one of {len(made.holders)} is missing, {made.minimum_holders} are enough: got an error; "
        "want the total of those that are left, or survives_dropout false",
    )
    return f"one of {len(made.holders)} holders away in {carrying.name}: the total of the others"


def carried(network: Network, layout: Layout, given: Mapping[str, Arrays]) -> dict[str, Packet]:
    """One sum: what each holder sends in the stage that carries the request."""
    found: dict[str, Packet] = {}

    def send(stage: Stage) -> Replies:
        replies = {name: network.deliver(stage, name, p, given, layout) for name, p in stage.packets.items()}
        if stage.carries:
            found.update(replies)
        return replies

    conduct(network.rounds(layout), send)
    return found


def _once(subject: Subject) -> str:
    made = subject.agreement()
    _, layout = next(layouts(len(made.holders)))
    seen = stages(made, layout, contributions(layout, made, seed=50))
    carrying = [stage for stage in seen if stage.carries]
    holds(len(carrying) == 1, f"got {len(carrying)} stages that carry the request; want one a sum")
    strangers = sorted(set(carrying[0].packets) - set(made.holders))
    holds(not strangers, f"{carrying[0].name}: got a request to {', '.join(strangers)}; want holders only")
    return " -> ".join(stage.name for stage in seen)


LAWS: tuple[Law[Subject], ...] = (
    Law("stages", "One stage of a sum carries the request, to holders alone", _once),
    Law("totals", "Totals are the sums of what holders contributed, all of them accounted for", _totals),
    Law("repeated", "Several sums of one run are each as exact", _repeated),
    Law("each", "Single contributions are shown where REQUIRES says so, and nowhere else", _each),
    Law("missing", "Whoever is missing at whatever stage: no wrong total, none over too few", _missing),
    Law("survives", "Survives dropout where REQUIRES says so", _survives),
)
