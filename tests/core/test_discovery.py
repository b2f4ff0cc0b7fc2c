"""Ids of plugins: one alphabet, and none that reads like another's."""

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from statfed.core import discovery
from statfed.core.errors import UsageError

ANALYSES, TRAINING = "statfed.strategies.analyses", "statfed.strategies.training"
PROTECTIONS = "statfed.strategies.protections"


@pytest.fixture
def brought(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Make packages `p0`, `p1` ... bring these (package, id)."""

    def bring(*ids: tuple[str, str]) -> None:
        def points(group: str | None) -> list[Any]:
            return [
                SimpleNamespace(name=name, value=f"m{i}", dist=SimpleNamespace(name=f"p{i}", version="1.0"))
                for i, (package, name) in enumerate(ids)
                if discovery.GROUPS[package] == group
            ]

        monkeypatch.setattr(discovery, "entry_points", points)
        discovery.plugins.cache_clear()
        discovery.modules.cache_clear()

    yield bring
    monkeypatch.undo()
    discovery.plugins.cache_clear()
    discovery.modules.cache_clear()


LIKE_BUILT_INS = {
    "MEAN": ANALYSES,
    "Mean": ANALYSES,
    "mean_": ANALYSES,
    "_mean": ANALYSES,
    "ｍean": ANALYSES,  # full width
    "secure_aggregation": PROTECTIONS,
    "Secure-Aggregation": PROTECTIONS,
    "local_sgd": TRAINING,
    "local-sgd": ANALYSES,  # methods share their ids
    "mean": TRAINING,
}


@pytest.mark.parametrize(("name", "package"), LIKE_BUILT_INS.items())
def test_an_id_that_reads_like_a_built_ins_is_refused_naming_both(
    name: str, package: str, brought: Callable[..., None]
) -> None:
    brought((package, name))
    with pytest.raises(UsageError, match=rf"plugin p0 1\.0: brings {name} in .*, which statfed itself has too; want"):
        discovery.load(package, name, "plugin")


@pytest.mark.parametrize("name", ["meаn", "mean 2", "mean.2", "2mean", "a--b", "", "méan", "mean\n"])
def test_an_id_of_another_alphabet_is_refused(name: str, brought: Callable[..., None]) -> None:
    brought((ANALYSES, name))
    with pytest.raises(UsageError, match="want lower-case letters, digits and single hyphens"):
        discovery.modules(ANALYSES)


def test_two_plugins_that_read_alike_are_refused_naming_both(brought: Callable[..., None]) -> None:
    brought((ANALYSES, "trimmed-mean"), (TRAINING, "trimmed_mean"))
    with pytest.raises(UsageError, match=r"plugin p1 1\.0: brings trimmed_mean in .*, which p0 1\.0 has too"):
        discovery.modules(ANALYSES)


def test_other_ids_are_found_each_in_its_group(brought: Callable[..., None]) -> None:
    brought((ANALYSES, "trimmed-mean"), (TRAINING, "tree2"), (PROTECTIONS, "mean"))
    assert set(discovery.plugins(ANALYSES)) == {"trimmed-mean"}
    assert set(discovery.plugins(TRAINING)) == {"tree2"}
    assert set(discovery.plugins(PROTECTIONS)) == {"mean"}  # another kind of thing
    assert discovery.origin(ANALYSES, "trimmed-mean") == "p0 1.0"
    assert discovery.origin(ANALYSES, "mean") == ""


def test_every_built_in_has_an_id_of_the_alphabet() -> None:
    for package in discovery.GROUPS:
        for name in discovery._built_in(package):
            assert discovery.ID.fullmatch(name), (package, name)
