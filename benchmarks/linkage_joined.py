"""What the helper linkage costs: processor time and bytes of matching by tags, and of analyses on shares beside those
of the plain join.

    python benchmarks/linkage_joined.py --match 100000 1000000 --analyse 10000 100000 --columns 10

All parties run in this process, one after the other, sealed channels included: seconds are processor time of all of
them together, and of the dearest one. Bytes are what each party sends. The plain join is pandas.merge with statsmodels
or pandas. off: largest difference of an estimate in standard errors, of a table in counts.
"""

import argparse
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import statsmodels.api as sm

from statfed.core.codebook import Codebook, make_codebook
from statfed.core.identity import Identity
from statfed.core.linkage import Outcome, Units, linked
from statfed.core.protection import Agreement, Packet
from statfed.strategies.linkages import helper


@dataclass
class Timed:
    """A party with its processor time and the bytes that it has sent."""

    party: Any
    seconds: float = 0.0
    sent: int = 0
    rounds: int = field(default=0)

    def answer(self, stage: str, packet: Packet) -> Packet:
        start = time.process_time()
        reply: Packet = self.party.answer(stage, packet)
        self.seconds += time.process_time() - start
        self.sent += sum(x.nbytes if isinstance(x, np.ndarray) else len(x) for x in reply.values())
        self.rounds += 1
        return reply


def run(units: Mapping[str, Units], **options: Any) -> tuple[Outcome, dict[str, Timed], float]:
    """A linkage of these holders: outcome, parties, processor seconds of everything."""
    chosen = helper.Options(**options)
    names, third = tuple(sorted(units)), helper.third_parties(chosen)
    sizes = {name: units[name].count for name in names}
    agreement = Agreement("benchmark", "study", "helper", names, third, len(names), sizes, chosen)
    made = {name: Identity.ephemeral(name) for name in agreement.parties}
    pins = {name: identity.public for name, identity in made.items()}
    start = time.process_time()
    parties = {
        name: Timed(helper.party(agreement, Identity(name, made[name]._key, pins), units.get(name)))
        for name in agreement.parties
    }
    outcome = linked(helper.coordinator(agreement), parties)
    return outcome, parties, time.process_time() - start


def shown(what: str, count: int, parties: Mapping[str, Timed], seconds: float, plain: float, off: str) -> None:
    each = max(party.seconds for party in parties.values())
    sent = sum(party.sent for party in parties.values())
    most = max(parties, key=lambda name: parties[name].sent)
    print(
        f"{what:12} {count:>9,} {seconds:9.2f} {each:9.2f} {plain:9.3f} {sent / 1e6:10.1f} {sent / count:9.0f} "
        f"{most:>8} {parties[most].sent / 1e6:9.1f} {parties[most].rounds:7} {off:>10}",
        flush=True,
    )


def matching(count: int) -> None:
    rng = np.random.default_rng(0)
    made = {name: Units({"id": list(map(str, rng.choice(2 * count, count, replace=False)))}) for name in ("a", "b")}
    start = time.process_time()
    frames = [pd.DataFrame({"id": each.keys["id"]}) for each in made.values()]
    wanted = len(frames[0].merge(frames[1], on="id"))
    plain = time.process_time() - start
    outcome, parties, seconds = run(made)
    holder, helps = max(parties["a"].seconds, parties["b"].seconds), parties["helper"].seconds
    shown("size", count, parties, seconds, plain, str(abs((outcome.size or 0) - wanted)))
    print(
        f"{'':12} microseconds an item: {seconds / (2 * count) * 1e6:.2f} in all, a holder {holder / count * 1e6:.2f}, "
        f"the helper {helps / (2 * count) * 1e6:.2f}; bytes an item {parties['a'].sent / count:.0f}",
        flush=True,
    )


def registers(count: int, columns: int) -> tuple[dict[str, pd.DataFrame], Codebook, dict[str, tuple[str, ...]]]:
    """Two registers of which two thirds match; half of the columns at each; income and y at b."""
    rng = np.random.default_rng(1)
    made = {name: pd.DataFrame({"id": rng.choice(3 * count // 2, count, replace=False)}) for name in ("a", "b")}
    half, table = columns // 2, dict[str, Any]()
    for i in range(columns):
        frame = made["a" if i < half else "b"]
        frame[f"x{i}"] = rng.normal(0, 1, count).clip(-5, 5)
        table[f"x{i}"] = {"type": "number", "low": -5, "high": 5}
    for name, column, levels in (("a", "region", 20), ("b", "sector", 20)):
        made[name][column] = rng.integers(0, levels, count)
        table[column] = {"type": "category", "categories": [f"l{i:02}" for i in range(levels)]}
    own = made["b"][[f"x{i}" for i in range(half, columns)]].sum(axis=1) / 4
    made["b"]["income"] = (2000 + 300 * own + rng.normal(0, 500, count)).clip(0, 10_000)
    made["b"]["y"] = (rng.random(count) < 1 / (1 + np.exp(-own))).astype(int)
    table |= {"income": {"type": "number", "low": 0, "high": 10_000}, "y": {"type": "boolean"}}
    had = {name: tuple(str(column) for column in frame if column != "id") for name, frame in made.items()}
    return made, make_codebook({"columns": table}), had


def analyses(count: int, columns: int) -> None:
    made, codebook, had = registers(count, columns)
    units = {
        name: Units({"id": list(map(str, frame["id"]))}, {c: frame[c].to_numpy(np.float64) for c in had[name]})
        for name, frame in made.items()
    }
    terms = [f"x{i}" for i in range(columns)]
    right = " + ".join(terms)

    def fitted(fit: Callable[[pd.DataFrame], Any]) -> Callable[[pd.DataFrame, Any], str]:
        def off(plain: pd.DataFrame, result: Any) -> str:
            found = result.to_pandas().set_index("name")
            model = fit(plain)
            names = ["Intercept", *terms]
            return f"{np.abs((found.loc[names, 'estimate'].to_numpy() - model.params) / model.bse).max():.1e}"

        return off

    def crossed(plain: pd.DataFrame, result: Any) -> str:
        counts = pd.crosstab(plain["region"], plain["sector"]).to_numpy().ravel()
        return str(int(np.abs(result.to_pandas()["count"].to_numpy() - counts).max()))

    def design(plain: pd.DataFrame) -> Any:
        return sm.add_constant(plain[terms].to_numpy())

    asked: dict[str, tuple[dict[str, Any], Callable[[pd.DataFrame, Any], str]]] = {
        "table": ({"rows": ["region"], "columns": ["sector"]}, crossed),
        "ols": ({"formula": f"income ~ {right}"}, fitted(lambda p: sm.OLS(p["income"].to_numpy(), design(p)).fit())),
        "glm": (
            {"formula": f"y ~ {right}"},
            fitted(lambda p: sm.GLM(p["y"].to_numpy(), design(p), sm.families.Binomial()).fit(tol=1e-12)),
        ),
    }
    for method, (options, compared) in asked.items():
        outcome, parties, seconds = run(
            units,
            reveal="totals",
            method=method,
            options=options,
            codebook=codebook,
            columns=had,
            minimum_frequency=3,
        )
        start = time.process_time()
        off = compared(made["a"].merge(made["b"], on="id"), outcome.result)
        shown(method, count, parties, seconds, time.process_time() - start, off)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--match", type=int, nargs="*", default=[100_000], help="units of each holder, to be matched")
    parser.add_argument("--analyse", type=int, nargs="*", default=[10_000], help="units of each holder, to be analysed")
    parser.add_argument("--columns", type=int, default=10, help="columns of the regressions")
    given = parser.parse_args()
    print(
        f"{'what':12} {'units':>9} {'seconds':>9} {'dearest':>9} {'plain':>9} {'MB sent':>10} {'a unit':>9} "
        f"{'most':>8} {'MB':>9} {'stages':>7} {'off':>10}"
    )
    for count in given.match:
        matching(count)
    for count in given.analyse:
        analyses(count, given.columns)


if __name__ == "__main__":
    main()
