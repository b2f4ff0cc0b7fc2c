"""Attacks tried and held: by actor and by method, the automatic attacker's strongest partial inference, and which rule
each attack is for.

    python benchmarks/attacks.py                        # every attack, three holders, and the automatic attacker
    python benchmarks/attacks.py --seeds 3 --questions 20
    python benchmarks/attacks.py --switches             # rules switched off one by one: which attacks then succeed
    python benchmarks/attacks.py --json FILE

An interval's width is what equations leave of the target's value, as a share of its public range: 1 is nothing learned.
Reach is the share of the target's unit vector in the span of all figures: 1 is the value, and the joint rule of holders
keeps it low.
"""

import argparse
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tests.attacks.attacker.arrays import SECRETS
from tests.attacks.attacker.campaign import PROBES, by_arrays, by_bits, by_questions, pairs
from tests.attacks.finding import FREE, Attack
from tests.attacks.suite import ALL, tried, world_of
from tests.attacks.world import World

SWITCHES: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "functions of formulas": {"allow": {"functions": ["*"]}},
    "columns of weights": {"allow": {"weights": ["*"]}},
    "minimum frequency": {"disclosure": {"minimum_frequency": "off"}},
    "dominance": {"disclosure": {"dominance_k": "off", "p_percent": "off"}},
    "all disclosure rules": {"disclosure": FREE},
    "pinned codebook": {"refusals": {"explain": True}, "dataset": {"codebooks": ["*"]}},
    "one refusal": {"refusals": {"explain": True}, "limits": {"refusals": "off"}},
    "all, and functions and weights": {"disclosure": FREE, "allow": {"functions": ["*"], "weights": ["*"]}},
}
"""Sections of the policy with which one rule is off."""


def _home() -> Path:
    return Path(tempfile.mkdtemp(prefix="attacks-"))


def fixed(holders: int) -> list[dict[str, Any]]:
    """Every attack of the list under the template standard."""
    rows = []
    for attack in ALL:
        found, world = tried(attack, _home(), ruled=True, holders=max(holders, attack.holders))
        rows.append(_row(attack) | {"held": not found.known, "questions": world.questions, "refused": world.refusals})
        print(
            f"{'held' if not found.known else 'FELL':5} {attack.actor:11} {attack.method:10} {attack.name}", flush=True
        )
    return rows


def _row(attack: Attack) -> dict[str, Any]:
    return {key: getattr(attack, key) for key in ("name", "row", "actor", "method", "rule")}


def automatic(seeds: int, questions: int) -> list[dict[str, Any]]:
    """The automatic attacker, strongest of several seeds by method."""
    rows: list[dict[str, Any]] = []
    for method, column in pairs():
        runs = [by_questions(_home(), "standard", method, column, questions, seed) for seed in range(seeds)]
        rows.append({"actor": "analyst"} | _strongest([asdict(run) | {"success": run.success} for run in runs]))
        _told(rows[-1])
    for method in SECRETS:
        runs = [by_arrays(_home(), "standard", method, questions, seed) for seed in range(seeds)]
        rows.append({"actor": "coordinator"} | _strongest([asdict(run) | {"success": run.success} for run in runs]))
        _told(rows[-1])
    for name in PROBES:
        bit = by_bits(_home(), "standard", name)
        rows.append({"actor": "analyst", "reach": None} | asdict(bit) | {"success": bit.success, "runs": 1})
        print(
            f"{'FELL' if bit.success else 'held':5} probe: {name}: width {bit.width:.3f}, {bit.asked} asked", flush=True
        )
    return rows


def _strongest(runs: list[dict[str, Any]]) -> dict[str, Any]:
    best = min(runs, key=lambda run: (not run["success"], run["width"], -run["reach"]))
    best.pop("trail")
    return best | {"runs": len(runs), "successes": sum(run["success"] for run in runs)}


def _told(row: Mapping[str, Any]) -> None:
    print(
        f"{'FELL' if row['success'] else 'held':5} {row['actor']:11} {row['method']:10} {row['column']:8} width "
        f"{row['width']:.3f} reach {row['reach']:.3f} asked {row['asked']} refused {row['refused']}",
        flush=True,
    )


def switched() -> dict[str, list[str]]:
    """For each rule that is off alone, the attacks that then succeed."""
    found: dict[str, list[str]] = {}
    for rule, changes in SWITCHES.items():
        found[rule] = []
        for attack in ALL:
            if attack.actor == "reader":
                continue
            made = world_of(attack, _home(), ruled=True)
            sections = {
                name: {**attack.policies.get(name, {}), **changes.get(name, {})}
                for name in {*changes, *attack.policies}
            }
            made.close()
            world = World(_home(), made.frames, made.codebook, "standard", sections, made.rules)
            if attack.run(world).known:
                found[rule].append(attack.name)
            world.close()
        print(f"{rule}: {len(found[rule])}: {', '.join(found[rule]) or 'none'}", flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--holders", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--questions", type=int, default=20)
    parser.add_argument("--switches", action="store_true", help="rules off one by one instead")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    found: Any
    if given.switches:
        found = switched()
    else:
        rows = fixed(given.holders)
        for key in ("actor", "method"):
            tried_, held = Counter(row[key] for row in rows), Counter(row[key] for row in rows if row["held"])
            print(f"\nby {key}")
            for name, n in sorted(tried_.items()):
                print(f"  {name:12} tried {n:3} held {held[name]:3}")
        found = {"fixed": rows, "automatic": automatic(given.seeds, given.questions)}
        every = [row["held"] for row in rows] + [not row["success"] for row in found["automatic"]]
        print(f"\ntried {len(every)}, held {sum(every)}")
    if given.json:
        given.json.write_text(json.dumps(found, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
