"""The example plugin, found by its metadata as if it were installed: listed, checked, run, compared on equal terms.

The environment stays as it is: a folder with the package's metadata is put on the path of other processes.
"""

import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from statfed.core import VERSION, discovery
from statfed.core.codebook import make_codebook
from statfed.core.errors import Refused, UsageError
from statfed.core.statement import Statement, outside
from statfed.core.terms import Terms

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "plugin"
PROJECT = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["project"]
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as an installation would leave it, less the code, which stays where it is."""
    root = tmp_path_factory.mktemp("site")
    info = root / f"{PROJECT['name'].replace('-', '_')}-{PROJECT['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {PROJECT['name']}\nVersion: {PROJECT['version']}\n")
    lines = []
    for group, points in PROJECT["entry-points"].items():
        lines += [f"[{group}]", *(f"{name} = {module}" for name, module in points.items()), ""]
    (info / "entry_points.txt").write_text("\n".join(lines))
    return root


@pytest.fixture(scope="module")
def run(site: Path) -> Run:
    def in_process(*arguments: str, more: tuple[str, ...] = (), code: int = 0) -> subprocess.CompletedProcess[str]:
        path = os.pathsep.join([str(site), str(EXAMPLE / "src"), *more])
        done = subprocess.run(
            [sys.executable, *arguments],
            capture_output=True,
            text=True,
            cwd=ROOT,
            env=dict(os.environ) | {"PYTHONPATH": path},
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done

    return in_process


def statfed(run: Run, *arguments: str, **more: Any) -> Any:
    return json.loads(run("-m", "statfed.cli.main", *arguments, "--json", **more).stdout)


def test_plugins_are_listed_with_the_package_and_version_that_bring_them(run: Run) -> None:
    rows = statfed(run, "plugin", "list")["plugins"]
    assert {(row["group"], row["id"]) for row in rows} == {
        (group, name) for group, points in PROJECT["entry-points"].items() for name in points
    }
    for row in rows:
        assert (row["distribution"], row["version"]) == (PROJECT["name"], PROJECT["version"])
        assert (row["loads"], row["error"]) == (True, None)


def test_a_plugin_that_cannot_be_imported_is_told_with_what_it_raised(run: Run, tmp_path: Path) -> None:
    broken(tmp_path, "statfed.protections", "faulty = faulty_module")
    (tmp_path / "faulty_module.py").write_text("raise RuntimeError('no such library')")
    rows = {row["id"]: row for row in statfed(run, "plugin", "list", more=(str(tmp_path),))["plugins"]}
    assert rows["dealer-masks"]["loads"]
    assert not rows["faulty"]["loads"]
    wanted = "protection faulty of faulty 1.0: cannot be imported (RuntimeError: no such library)"
    assert wanted in rows["faulty"]["error"]
    error = statfed(run, "plugin", "check", "faulty", more=(str(tmp_path),), code=2)["error"]
    assert wanted in error["message"]


def test_a_plugin_does_not_take_the_name_of_a_built_in(run: Run, tmp_path: Path) -> None:
    broken(tmp_path, "statfed.analyses", "mean = faulty_module")
    rows = statfed(run, "plugin", "list", more=(str(tmp_path),))["plugins"]
    (error,) = {row["error"] for row in rows if not row["loads"]}  # of both groups that share their ids
    assert "plugin faulty 1.0: brings mean in statfed.analyses, which statfed itself has too" in error
    assert any(row["id"] == "dealer-masks" and row["loads"] for row in rows)
    table = run("-m", "statfed.cli.main", "plugin", "list", more=(str(tmp_path),)).stdout
    assert "dealer-masks" in table


def broken(folder: Path, group: str, point: str) -> None:
    """Metadata of a package `faulty` 1.0."""
    info = folder / "faulty-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: faulty\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{group}]\n{point}\n")


@pytest.mark.parametrize("name", ["dealer-masks", "geometric-mean"])
def test_the_example_keeps_every_law_of_its_contract(run: Run, name: str) -> None:
    found = statfed(run, "plugin", "check", name)
    assert found["passed"]
    (checked,) = found["checked"]
    assert checked["from"] == f"{PROJECT['name']} {PROJECT['version']}"
    laws = {law["id"]: law["passed"] for law in checked["laws"]}
    assert all(passed for law, passed in laws.items() if law != "card")
    assert len(laws) >= 8


def test_the_examples_own_tests_pass(run: Run) -> None:
    done = run("-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "not every_law", str(EXAMPLE))
    assert " passed" in done.stdout


TRIAL = """
import json, sys
from pathlib import Path
from types import SimpleNamespace
import numpy as np
import pandas as pd
from scipy import stats
from statfed.lab.compare.bench import tried
from statfed.lab.compare.statistics import bench_of, write_sources
from statfed.lab.compare.trial import Cell, Technique
from statfed.core.scenario import EXACT, Figure, Success, World, private
from statfed.scenarios._measures import median_relative_error
from statfed_example import geometric_mean

options, codebook, frame = geometric_mean.example()
holders = {f"office-{i}": frame.iloc[start:stop] for i, (start, stop) in enumerate([(0, 40), (40, 130), (130, 300)])}
world = World(holders, codebook, "generated")

def compute(ask, public):
    rows = ask("geometric-mean", columns=["rent"], by=["region"]).tables["estimates"]
    return {row["region"]: Figure(row["estimate"]) for row in rows}

rent = frame.dropna(subset="rent").groupby("region")["rent"]
pooled = {region: float(stats.gmean(values)) for region, values in rent}
levels = (EXACT, private(20.0, "shared"))
success = Success("median relative error", median_relative_error, 1e-6)
toy = SimpleNamespace(compute=compute, LEVELS=levels, SUCCESS=success)
sources = write_sources(world, Path(sys.argv[1]))
rows = []
for protection in ("plain", "secure-aggregation", "dealer-masks"):
    for level in levels:
        cell = Cell("toy", "quick", Technique(protection, level), 1)
        trial = tried(bench_of(toy, world, sources, pooled), cell)
        parties = {role.party: role.sent for role in trial.roles}
        rows.append([protection, level.id, trial.status, trial.error, trial.epsilon, trial.disclosures, parties])
print(json.dumps(rows))
"""


def test_the_comparison_tries_it_on_equal_terms_with_built_ins(run: Run, tmp_path: Path) -> None:
    rows = json.loads(run("-c", TRIAL, str(tmp_path)).stdout.splitlines()[-1])
    found = {(row[0], row[1]): row[2:] for row in rows}
    assert found["plain", "epsilon-20-shared"][0] == "not-applicable"
    for protection in ("plain", "secure-aggregation", "dealer-masks"):
        status, error, epsilon, disclosures, parties = found[protection, "exact"]
        assert (status, epsilon) == ("done", None)
        assert error < 1e-7
        assert disclosures == found["plain", "exact"][3]
        assert ("dealer" in parties) == (protection == "dealer-masks")
        assert all(sent > 0 for party, sent in parties.items() if party != "coordinator")
    for protection in ("secure-aggregation", "dealer-masks"):
        status, error, epsilon, disclosures, _ = found[protection, "epsilon-20-shared"]
        assert (status, disclosures) == ("done", 0)
        assert 18 < epsilon <= 20
        assert 0 < error < 0.5


# --- versions


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Say which version of a plugin of analysis `outsider` this party has installed; none where it is empty."""
    module = ModuleType("outsider_module")
    monkeypatch.setitem(sys.modules, "outsider_module", module)
    state = {"version": "1.0"}

    def entry_points(group: str) -> list[Any]:
        dist = SimpleNamespace(name="outsider", version=state["version"])
        point = SimpleNamespace(name="outsider", value="outsider_module", dist=dist)
        return [point] if group == "statfed.analyses" and state["version"] else []

    def now(version: str) -> None:
        state["version"] = version
        discovery.plugins.cache_clear()
        discovery.modules.cache_clear()

    monkeypatch.setattr(discovery, "entry_points", entry_points)
    now("1.0")
    yield now
    monkeypatch.undo()
    discovery.plugins.cache_clear()
    discovery.modules.cache_clear()


def test_a_holder_refuses_a_coordinator_with_another_version_of_a_plugin(installed: Callable[[str], None]) -> None:
    codebook = make_codebook({"columns": {"x": {"type": "number"}}})
    query = Terms(method="outsider", codebook=codebook, holders=("a", "b"), seed=1)
    said = Statement(version=VERSION, run="r", step="admit", outside=outside(query), terms=query)
    assert said.outside == ("method outsider of outsider 1.0",)
    assert Statement.parse(said.model_dump_json(), VERSION) == said
    for version, here in (("1.1", "method outsider of outsider 1.1"), ("", "none")):
        installed(version)
        with pytest.raises(Refused, match=f"coordinator runs method outsider of outsider 1.0 .* holder runs {here}"):
            Statement.parse(said.model_dump_json(), VERSION)
    left_out = said.model_copy(update={"outside": ()})
    installed("1.0")
    with pytest.raises(Refused, match="the coordinator runs none for this study"):
        Statement.parse(left_out.model_dump_json(), VERSION)


def test_two_plugins_of_one_name_are_refused(installed: Callable[[str], None], monkeypatch: pytest.MonkeyPatch) -> None:
    def points(group: str) -> list[Any]:
        made = [SimpleNamespace(name=name, version="1.0") for name in ("one", "two")]
        return [SimpleNamespace(name="outsider", value="outsider_module", dist=dist) for dist in made]

    monkeypatch.setattr(discovery, "entry_points", points)
    installed("1.0")
    with pytest.raises(UsageError, match=r"plugin two 1.0: brings outsider in statfed.analyses, which one 1.0 has too"):
        discovery.load("statfed.strategies.analyses", "outsider", "analysis")
