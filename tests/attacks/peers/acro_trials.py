# ruff: noqa: E501, T201  # a script for another environment
"""The same before ACRO (python package `acro`), in an environment of its own: it needs other versions than ours.

    python -m venv /elsewhere/acro && /elsewhere/acro/bin/pip install acro pyarrow
    PYTHONPATH=<the rooms> /elsewhere/acro/bin/python tests/attacks/peers/acro_trials.py PERSONS.csv ENTERPRISES.csv

The two files are holder a's frames of `tests.attacks.population`. Prints JSON: for each attack whether ACRO's own status
of the output is pass, and whether the figure that it shows is the target's.
"""

import json
import sys
from collections.abc import Callable
from typing import Any


def main(people_file: str, enterprises_file: str) -> None:
    import acro  # type: ignore[import-not-found,unused-ignore]
    import numpy as np
    import pandas as pd
    import statsmodels.api as sm

    people, firms = pd.read_csv(people_file), pd.read_csv(enterprises_file)
    session = acro.ACRO(suppress=True)
    found: dict[str, Any] = {}

    def status() -> list[str]:
        return [output.status for output in session.results.results.values()]

    def trial(name: str, run: Callable[[], float | None], truth: float, width: float) -> None:
        before = len(status())
        try:
            got = run()
        except Exception as error:  # noqa: BLE001
            found[name] = {"through": False, "status": f"error: {type(error).__name__}"}
            return
        said = status()[before:]
        known = got is not None and bool(np.isfinite(got)) and abs(got - truth) <= 0.01 * width
        found[name] = {"through": known and "fail" not in said, "status": said, "got": got}

    y = people["income"]

    def fitted(*columns: Any, at: list[float]) -> float:
        x = sm.add_constant(pd.DataFrame({str(i): np.asarray(c, float) for i, c in enumerate(columns)}))
        return float(session.ols(y, x).params.to_numpy() @ np.array([1.0, *at]))

    bump = 1 / (1 + 1e7 * ((people["age"] - 47) ** 2 + (people["entry"] - 17) ** 2))
    club, union = (people[name].eq("y").astype(float) for name in ("club", "union"))
    trial("formula that is one at the target", lambda: fitted(bump, at=[1.0]), 187_423, 2e5)
    trial("column that one person has", lambda: fitted(people["grant"], at=[31_250.0]), 187_423, 2e5)
    trial("level of one person", lambda: fitted(people["list"].eq("short"), at=[1.0]), 187_423, 2e5)
    trial("interaction of one person", lambda: fitted(club, union, club * union, at=[1.0, 1.0, 1.0]), 187_423, 2e5)

    def cell(rows: Any, columns: Any, values: Any, frame: Any, how: str, row: str, column: str) -> float:
        table = session.crosstab(frame[rows], frame[columns], values=values, aggfunc=how)
        return float(
            table.loc[row].xs(column, level=-1).iloc[0] if table.columns.nlevels > 1 else table.loc[row, column]
        )

    people["all"], firms["all"] = "all", "all"
    trial(
        "mean of 12 records of one person", lambda: cell("region", "all", y, people, "mean", "far", "all"), 61_234, 2e5
    )
    trial("dummy of 12 records of one person", lambda: fitted(people["region"].eq("far"), at=[1.0]), 61_234, 2e5)
    trial(
        "weight that one person has",
        lambda: cell("all", "sex", y * people["grant"], people, "sum", "all", "f") / 31_250,
        187_423,
        2e5,
    )

    def total(inside: Any) -> float:
        part = people[inside]
        return cell("all", "list", part["income"], part, "sum", "all", "long")

    everybody = people.assign(list="long")

    def difference() -> float:
        whole = cell("all", "list", everybody["income"], everybody, "sum", "all", "long")
        return whole - total(people["list"].eq("long"))

    trial("difference of two totals", difference, 187_423, 2e5)

    def inclusion() -> float:
        def of(inside: Any) -> float:
            part = everybody[inside]
            return cell("all", "list", part["income"], part, "sum", "all", "long")

        both = (club == 1).to_numpy(), (union == 1).to_numpy()
        whole = np.ones(len(people), bool)
        return of(both[0]) + of(both[1]) - of(whole) + of(~both[0] & ~both[1])

    trial("inclusion and exclusion", inclusion, 187_423, 2e5)
    trial(
        "total that one enterprise dominates",
        lambda: cell("sector", "all", firms["turnover"], firms, "sum", "mining", "all"),
        873_512,
        1e6,
    )
    trial(
        "table with a cell of one",
        lambda: float(session.crosstab(people["club"], people["union"]).loc["y", "y"]),
        1,
        10,
    )
    print("RESULT " + json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:3])
