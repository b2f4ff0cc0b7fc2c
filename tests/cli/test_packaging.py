"""The shape of the project: one namespace over many roots, a wheel that holds every room, pages that match the code."""

import importlib.util
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from statfed.core.discovery import modules

ROOT = Path(__file__).parents[2]
ROOMS = ("core", "strategies", "client", "server", "federation", "lab", "scenarios", "cli")


def test_no_room_hides_the_others_with_a_namespace_init() -> None:
    assert not list(ROOT.glob("*/statfed/__init__.py"))


@pytest.mark.parametrize("room", ROOMS)
def test_every_room_is_typed_and_imports(room: str) -> None:
    assert (ROOT / room / "statfed" / room / "py.typed").exists()
    assert importlib.util.find_spec(f"statfed.{room}") is not None


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    (built,) = folder.glob("*.whl")
    return built


def test_the_wheel_holds_every_module_template_and_description(wheel: Path) -> None:
    inside = set(zipfile.ZipFile(wheel).namelist())
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True).stdout.split()
    wanted = {path.partition("/")[2] for path in listed if re.match(rf"({'|'.join(ROOMS)})/statfed/", path)}
    assert wanted <= inside
    assert not any(name.startswith(("tests/", "docs/")) for name in inside)


def test_descriptions_are_read_from_the_wheel_as_it_is_installed(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path)
    code = (
        "from statfed.core.discovery import load, modules;"
        "from statfed.lab.recommend import techniques;"
        "kinds = ('statfed.scenarios', 'statfed.strategies.protections');"
        "found = [load(kind, name, 'module') for kind in kinds for name in modules(kind)];"
        "assert all(getattr(one, 'ABOUT', None) or one.CARD.questions and one.TRUST for one in found);"
        "assert techniques.OUTSIDE;"
        "print(*{one.__file__ for one in (*found, techniques)}, sep='\\n')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=dict(os.environ) | {"PYTHONPATH": str(tmp_path)},
    )
    files = [Path(line) for line in done.stdout.split()]
    assert len(files) > 10
    assert all(file.is_relative_to(tmp_path) for file in files)


def test_generated_pages_match_the_code() -> None:
    spec = importlib.util.spec_from_file_location("make_reference", ROOT / "docs" / "make_reference.py")
    assert spec is not None
    assert spec.loader is not None
    page = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(page)
    for path, text in page.pages().items():
        assert path.read_text() == text, f"{path.name} is stale: run `make docs`"


def test_contracts_can_be_imported_without_flower_or_pytorch() -> None:
    """A partner that only reads studies needs neither; start-up of the command stays quick."""
    code = (
        "import sys, pkgutil, importlib, statfed.core;"
        "[importlib.import_module('statfed.core.' + m.name) for m in pkgutil.iter_modules(statfed.core.__path__)];"
        "import statfed.cli.main;"
        "print([m for m in ('flwr', 'torch', 'opacus', 'dp_accounting', 'ray') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, env=dict(os.environ)
    )
    assert done.stdout.strip() == "[]"


def test_every_tested_pin_satisfies_what_the_project_asks_for() -> None:
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    lines = [line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line]
    pins = {canonicalize_name(name): version for name, version in lines}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [
        *project["dependencies"],
        *project["optional-dependencies"]["ray"],
        *project["optional-dependencies"]["dev"],
    ]
    for requirement in map(Requirement, wanted):
        assert requirement.specifier.contains(pins[canonicalize_name(requirement.name)]), requirement


def test_discovery_finds_one_file_one_thing() -> None:
    assert set(modules("statfed.strategies.models")) == {"cnn", "dense", "mlp", "text"}
    assert set(modules("statfed.server.grid")) == {"inprocess", "processes", "ray"}
    assert "time-use" in modules("statfed.scenarios")
