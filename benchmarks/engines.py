"""Start-up, seconds per round and memory of each engine, on the same small study.

    python benchmarks/engines.py [--holders 4] [--rounds 10] [--engines inprocess,processes,ray]

The model is the default one and every holder has a few records, so that a round is almost only what the engine costs.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from statfed.core.study import make_study
from statfed.federation.run import Options, run_study


def main() -> None:
    """Print one row per engine."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--holders", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--engines", default="inprocess,processes,ray")
    arguments = parser.parse_args()
    print("| engine | start s | stop s | s per round (median) | min | whole run s | memory MiB (peak) |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for engine in arguments.engines.split(","):
        study = make_study(
            {
                "scenario": "time-use",
                "engine": engine,
                "holders": arguments.holders,
                "rounds": arguments.rounds,
                "data": {"source": "generated", "persons": 4, "records_per_person": 16, "test_persons": 4},
            }
        )
        with tempfile.TemporaryDirectory() as folder:
            started = time.perf_counter()
            options = Options(workspace=Path(folder), runs=Path(folder), fresh=True, references=False)
            result = run_study(study, options)
            whole = time.perf_counter() - started
        phases = {phase.name: phase.seconds for phase in result.phases}
        seconds = [r.seconds for r in result.rounds[1:]]
        runners = [v for k, v in result.memory_mib.items() if k.endswith("/runner")]
        memory = f"runner {max(runners):.0f}, " if runners else ""
        memory += ", ".join(f"{k} {v:.0f}" for k, v in result.memory_mib.items() if "/" not in k)
        nodes = [v for k, v in result.memory_mib.items() if k.endswith("/supernode")]
        memory += f", supernode {max(nodes):.0f}" if nodes else ""
        print(
            f"| {engine} | {phases['start engine']:.1f} | {phases['stop engine']:.1f} | "
            f"{statistics.median(seconds):.3f} | {min(seconds):.3f} | {whole:.1f} | {memory} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
