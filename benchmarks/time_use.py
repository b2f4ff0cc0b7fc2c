"""Accuracy of the scenario time-use: pooled, local-only and federated, without privacy and at epsilon 10, 3 and 1.

    python benchmarks/time_use.py [--seeds 5] [--unit record|person] [--source watch|generated] [--persons 300]
        [--epsilons none,10,3,1] [--strategies fedavg,fedyogi]

Each seed deals persons to offices and test anew. Prints mean and standard deviation over seeds, as Markdown; writes
one line per run to --out (JSON lines), and does not repeat runs that are already there.
"""

import argparse
import json
import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from statfed.core.study import make_study
from statfed.federation.run import Options, run_study
from statfed.scenarios.time_use import STUDY

STRATEGIES: dict[str, dict[str, Any]] = {
    "fedavg": {"name": "fedavg"},
    "fedyogi": {"name": "fedyogi", "server_learning_rate": 0.05},
}


def cases(arguments: argparse.Namespace) -> Iterator[tuple[str, dict[str, Any]]]:
    """Name and study of every run."""
    data: dict[str, Any] = {"source": arguments.source}
    options = dict(STUDY["options"])
    private: dict[str, Any] = {}
    if arguments.source == "generated":
        data["persons"] = arguments.persons
    if arguments.unit == "person":
        batch = max(1, arguments.persons // 6) if arguments.source == "generated" else 2
        private = {"batch_size": batch, "learning_rate": 0.5}
    for seed in range(1, arguments.seeds + 1):
        for epsilon in (None if word == "none" else float(word) for word in arguments.epsilons.split(",")):
            for name in arguments.strategies.split(","):
                strategy = STRATEGIES[name]
                privacy = {"unit": arguments.unit, "epsilon": epsilon, "delta": 1e-5} if epsilon else None
                own = options | {"strategy": strategy} | (private if epsilon else {})
                changes = {"seed": seed, "data": data, "privacy": privacy, "options": own}
                key = f"{prefix(arguments)}{seed}/{epsilon}/{name}"
                yield key, {**STUDY, "simulation": {"lifetime_epsilon": 1000.0}, **changes}


def prefix(arguments: argparse.Namespace) -> str:
    """Names the population and the unit: `watch/record/`, `generated-300/person/`."""
    size = f"-{arguments.persons}" if arguments.source == "generated" else ""
    return f"{arguments.source}{size}/{arguments.unit}/"


def main() -> None:
    """Run what is missing, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--unit", choices=["record", "person"], default="record")
    parser.add_argument("--source", choices=["watch", "generated"], default="watch")
    parser.add_argument("--persons", type=int, default=300, help="generated: persons per office")
    parser.add_argument("--epsilons", default="none,10,3,1")
    parser.add_argument("--strategies", default="fedavg,fedyogi")
    parser.add_argument("--out", type=Path, default=Path("runs/benchmark-time-use.jsonl"))
    parser.add_argument("--cache", type=Path, default=Path(".statfed"))
    arguments = parser.parse_args()
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    done = [json.loads(line) for line in arguments.out.read_text().splitlines()] if arguments.out.exists() else []
    known = {row["key"] for row in done}
    for key, table in cases(arguments):
        if key in known:
            continue
        with tempfile.TemporaryDirectory() as folder:
            references = table["options"]["strategy"]["name"] == "fedavg"
            options = Options(arguments.cache, Path(folder), fresh=True, references=references)
            result = run_study(make_study(table), options)
        scores: dict[str, list[tuple[float, float]]] = {}
        for candidate in result.candidates:
            scores.setdefault(candidate.kind, []).append((candidate.scores.accuracy, candidate.scores.macro_f1))
        row = {"key": key, "scores": scores}
        with arguments.out.open("a") as file:
            file.write(json.dumps(row) + "\n")
        done.append(row)
        print(key, scores["federated"][0], flush=True)
    show(done, prefix(arguments))


def show(rows: list[dict[str, Any]], start: str) -> None:
    """Mean and standard deviation over seeds; of several holders alone the mean counts once a seed."""
    table: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        if not row["key"].startswith(start):
            continue
        _, _, _, epsilon, strategy = row["key"].split("/")
        for kind, pairs in row["scores"].items():
            mean = (statistics.mean(a for a, _ in pairs), statistics.mean(f for _, f in pairs))
            if kind == "federated":
                table.setdefault(f"federated {strategy}, epsilon {epsilon}", []).append(mean)
            elif kind == "local-dp":
                table.setdefault(f"local only, epsilon {epsilon}", []).append(mean)
            elif epsilon == "None":
                table.setdefault({"pooled": "pooled, tuned", "local": "local only"}.get(kind, kind), []).append(mean)
    print(f"\n| {start.rstrip('/')} | accuracy | macro-F1 | seeds |\n| --- | --- | --- | --- |")
    for name, pairs in table.items():
        figures = [
            f"{statistics.mean(v):.3f} ± {statistics.stdev(v) if len(v) > 1 else 0:.3f}"
            for v in zip(*pairs, strict=True)
        ]
        print(f"| {name.replace('epsilon None', 'no privacy')} | {figures[0]} | {figures[1]} | {len(pairs)} |")


if __name__ == "__main__":
    main()
