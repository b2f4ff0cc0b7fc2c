"""Singling out, linkability and inference beside those of Anonymeter, on the same records.

    PYTHONPATH=. python benchmarks/anonymeter_check.py [census.csv] [--records 3000] [--attempts 1000]
        [--environment FOLDER]

Anonymeter (Giomi et al. 2023; BSD 3-Clause Clear) wants an older numpy than this software has, so that it gets an
environment of its own, outside the repository: a temporary folder, or FOLDER, which is used again where it is there.
Data are those of benchmarks/synthetic_risk.py. Cases: `others`: other records of the population in the place of
synthetic ones; `planted`: 2 % of them are the original's rarest records; `copy`: the original itself. Columns are
halved in turn, each secret is attacked by all other columns. Shown are success on the original, on fresh records, and
the excess, with 95 % intervals; Anonymeter cuts the excess off at 0. Prints Markdown.

Known differences: predicates of one column are limited in number, and Anonymeter counts those that it did not find, of
so many that were asked for, as failures, where here they are no attempts; it drops records that are equal to another
before it singles out, and predicates that it has already; it takes the first of several nearest records, here one of
them is drawn; a guessed number is right within 5 % of itself, here of the true one; a missing secret that is guessed as
missing is a success, here such records are not attacked.
"""

import argparse
import importlib
import json
import subprocess
import venv
import warnings
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

PACKAGE = "anonymeter==1.1.0"
FILES = ("original", "synthetic", "fresh")


def inside(folder: Path, attempts: int, numbers: list[str], secrets: list[str]) -> dict[str, Any]:
    """What Anonymeter says, run by the environment that has it."""
    import numpy as np
    import pandas as pd

    warnings.simplefilter("ignore")
    kinds = dict.fromkeys(numbers, float)
    tables = []
    for name in FILES:
        found = pd.read_csv(folder / f"{name}.csv", dtype=str, keep_default_na=False, na_values=[""])
        tables.append(found.astype(kinds))
    own, made, fresh = tables
    names = list(own.columns)
    evaluators: Any = importlib.import_module("anonymeter.evaluators")
    np.random.seed(1)  # pandas' sample draws from it
    told = {}
    for columns in (1, min(3, len(names)), min(5, len(names))):
        attack = evaluators.SinglingOutEvaluator(own, made, attempts // 2, columns, fresh, seed=1)
        attack.evaluate(mode="univariate" if columns == 1 else "multivariate")
        told[f"singling-out, {columns} columns"] = attack
    attack = evaluators.LinkabilityEvaluator(own, made, (names[::2], names[1::2]), attempts, 1, fresh)
    told["linkability"] = attack.evaluate(n_jobs=1)
    for secret in secrets:
        beside = [name for name in names if name != secret]
        attack = evaluators.InferenceEvaluator(own, made, beside, secret, secret in numbers, attempts, fresh)
        told[f"inference, {secret}"] = attack.evaluate(n_jobs=1)
    return {name: _shown(one) for name, one in told.items()}


def _shown(attack: Any) -> list[list[float | None]]:
    found = attack.results(confidence_level=0.95)
    risk = found.risk()
    own, fresh = found.attack_rate, found.control_rate
    return [
        [own.value, own.value - own.error, own.value + own.error],
        [fresh.value, None, None],
        [risk.value, *risk.ci],
    ]


def environment(folder: Path) -> Path:
    """The interpreter of an environment with Anonymeter."""
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", PACKAGE], check=True)
    return python


def ours(own: Any, made: Any, fresh: Any, attempts: int, secrets: list[str]) -> dict[str, Any]:
    """The same attacks of this software."""
    import numpy as np

    from statfed.core.synthetic import attacks

    rng, told = np.random.default_rng(1), {}
    for columns in (1, min(3, len(own.names)), min(5, len(own.names))):
        told[f"singling-out, {columns} columns"] = attacks.singling_out(own, made, fresh, rng, attempts // 2, columns)
    told["linkability"] = attacks.linkability(own, made, fresh, rng, attempts=attempts)
    for secret in secrets:
        told[f"inference, {secret}"] = attacks.inference(own, made, fresh, rng, secret, attempts=attempts)
    return told


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("file", nargs="?", type=Path)
    asked.add_argument("--records", type=int, default=3000)
    asked.add_argument("--attempts", type=int, default=1000)
    asked.add_argument("--environment", type=Path)
    asked.add_argument("--inside", help=argparse.SUPPRESS)
    told = asked.parse_args()
    if told.inside:
        print(json.dumps(inside(**json.loads(told.inside) | {"folder": Path(json.loads(told.inside)["folder"])})))
        return
    from synthetic_risk import planted, samples  # type: ignore[import-not-found]

    from statfed.federation.synthetic import frame_of

    _, own, fresh, others, codebook = samples(told.file, told.records)
    secrets = ["income", "occupation"] if told.file else ["income", "employed"]
    numbers = [name for name in own.names if not codebook.columns[name].levels]
    print("| case | attack | by | on the original | on fresh records | excess |\n| --- | --- | --- | --- | --- | --- |")
    with TemporaryDirectory(prefix="anonymeter-") as temporary:
        python = environment(told.environment or Path(temporary) / "environment")
        for case, made in (("others", others), ("planted", planted(own, others)), ("copy", own)):
            for name, table in zip(FILES, (own, made, fresh), strict=True):
                frame_of(table).to_csv(Path(temporary) / f"{name}.csv", index=False)
            question = {"folder": temporary, "attempts": told.attempts, "numbers": numbers, "secrets": secrets}
            command = [str(python), __file__, "--inside", json.dumps(question)]
            answered = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            theirs = json.loads(answered.stdout.splitlines()[-1])
            for attack, one in ours(own, made, fresh, told.attempts, secrets).items():
                excess = [one.excess, one.excess_low, one.excess_high]
                mine = [[one.value, one.low, one.high], [one.baseline, None, None], excess]
                for by, figures in (("statfed", mine), ("Anonymeter", theirs[attack])):
                    cells = " | ".join(_cell(*each) for each in figures)
                    print(f"| {case} | {attack} | {by} | {cells} |", flush=True)


def _cell(value: float, low: float | None, high: float | None) -> str:
    return f"{value:.3f}" + ("" if low is None or high is None else f" ({low:.3f} to {high:.3f})")


if __name__ == "__main__":
    main()
