"""Both halves of a method in memory: no policy, messages or protection. Totals have the noise of a private study; they
can be encoded as under a protection that adds whole numbers, and the result is then held against the resolution."""

from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from statfed.core.fixed_point import Layout
from statfed.core.method import Adaptive, Arrays, Ask, Part, Total, checked, summed
from statfed.core.privacy.spending import Price
from statfed.core.progress import silent
from statfed.core.randomness import stream
from statfed.core.resolution import Told, check
from statfed.core.resolve import Resolved, resolve
from statfed.core.table import Size, Table
from statfed.core.terms import Terms
from statfed.lab.laws.check import holds
from statfed.lab.laws.frames import holder_table
from statfed.server.engine import Deployment
from statfed.server.grid import inprocess

if TYPE_CHECKING:
    import pandas as pd


_Kept = dict[tuple[Any, ...], Mapping[str, Arrays]]


@dataclass(frozen=True)
class Step:
    """One ask of a run. paid: what it costs each holder, by name; contributions: before noise that core adds."""

    study: Resolved
    number: int
    ask: Ask
    parts: Mapping[str, Part]
    paid: Mapping[str, Price | None]
    contributions: Mapping[str, Arrays]

    def sent(self, table: Table) -> dict[str, Any]:
        """What a holder of these records sends to this ask."""
        return checked(self.study.method.contribute(table, self.study.question, self.ask), self.parts, self.ask.name)


def _coordinating() -> None:
    """Flower's strategies ask which task they are of, which an engine tells this process when it opens."""
    inprocess.run(Deployment("check", {}, Path()), lambda _: None, silent)


def _line(
    terms: Terms,
    frames: "Mapping[str, pd.DataFrame]",
    *,
    encoded: bool = False,
    seed: int = 1,
    kept: _Kept | None = None,
) -> Generator[Step, None, Any]:
    study = resolve(terms)
    tables = {name: holder_table(frame, terms.codebook) for name, frame in frames.items()}
    sizes = {name: table.size for name, table in tables.items()}
    if study.training:
        _coordinating()
    run = study.method.coordinate(study.question)
    total: Total | None = None
    number, told = 0, list[Told]()
    while True:
        try:
            ask = next(run) if total is None else run.send(total)
        except StopIteration as end:
            if encoded:
                check(lambda: study.method.coordinate(study.question), told, end.value, "encoding")
            return end.value
        number += 1
        parts = study.parts(ask)
        if isinstance(study.budget, Adaptive):
            holds(ask.share > 0, f"{ask.name}: states no share of the privacy budget; want one")
        paid = {name: study.price(ask, size) for name, size in sizes.items()}
        same = (ask.name, *(array.tobytes() for array in ask.arrays.values()))
        sent = (kept or {}).get(same) or {
            name: checked(study.method.contribute(table, study.question, ask), parts, name)
            for name, table in tables.items()
        }
        if kept is not None and all(price and price.noise for price in paid.values()):  # noise of its own is drawn anew
            kept[same] = sent
        yield Step(study, number, ask, parts, paid, sent)
        noises = {name: price.noise for name, price in paid.items() if price and price.noise}
        units: Mapping[str, Arrays] = {
            name: noises[name].units(arrays, stream(seed, name, number)) if noises else arrays
            for name, arrays in sent.items()
        }
        noise = next(iter(noises.values()), None)
        arrays = summed(units, parts) if noise is None else _values(noise, units, seed)
        off = None
        if encoded and noise is None:
            layout = study.layout(ask, parts, None, {name: size.records for name, size in sizes.items()})
            arrays, off = _encoded(layout, units, sizes), layout.resolution(len(tables))
        total = Total(
            arrays, noise.std(len(tables)) if noise else None, {} if noise else sent, sizes, tuple(sorted(tables)), off
        )
        told.append(Told(ask, total))


def _encoded(layout: Layout, sent: Mapping[str, Arrays], sizes: Mapping[str, Size]) -> dict[str, Any]:
    """The sum of what holders encode."""
    records = sum(size.records for size in sizes.values())
    whole = [layout.for_holder(sizes[name].records / records).encode(sent[name]).astype(object) for name in sent]
    total = sum(whole[1:], whole[0])
    return layout.decode(total if layout.bits == 192 else total.astype(np.int64))


def _values(noise: Any, units: Mapping[str, Arrays], seed: int) -> Any:
    names = next(iter(units.values()))
    return noise.values({key: sum(arrays[key] for arrays in units.values()) for key in names}, stream(seed, "total"))


def steps(terms: Terms, frames: "Mapping[str, pd.DataFrame]") -> Iterator[Step]:
    """Every ask of one run over frames, one a holder, in order."""
    yield from _line(terms, frames)


def finished(
    terms: Terms,
    frames: "Mapping[str, pd.DataFrame]",
    *,
    encoded: bool = False,
    seed: int = 1,
    kept: _Kept | None = None,
) -> Any:
    """What a run over frames, one a holder, returns. encoded: totals are sums of whole numbers, as under a protection
    in fixed point; seed: of noise that core adds; kept: what was sent to an ask, for other runs over the same frames.
    Raises Refused where the result is finer than those."""
    line = _line(terms, frames, encoded=encoded, seed=seed, kept=kept)
    while True:
        try:
            next(line)
        except StopIteration as end:
            return end.value
