"""The whole path from a question to a released answer, in memory, with every message encoded as on the wire."""

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from statfed.client.guard.ledger import read_only
from statfed.core.disclosure import Rules
from statfed.core.discovery import modules
from statfed.core.errors import Refused, UsageError
from statfed.core.method import ANALYSES, Method, load_method
from statfed.core.result import Result
from statfed.core.terms import Privacy
from statfed.federation import Answer, DryRun, Federation, Options, Study, load_study, make_study, run_study
from statfed.federation.schema import answer_schema
from statfed.server.grid import inprocess
from tests.federate import codebook_of, federate, split
from tests.universe import CODEBOOK, EXAMPLES, people

FRAMES = split(people(400, 1), 2, seed=4)
CASES = [
    pytest.param(name, options, id=f"{name}-{i}") for name, made in EXAMPLES.items() for i, options in enumerate(made)
]


@pytest.fixture(autouse=True)
def _on_the_wire(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inprocess, "run", partial(inprocess.run, wire=True))


@pytest.fixture(scope="module")
def federation() -> Federation:
    return Federation({f"holder-{i}": frame for i, frame in enumerate(FRAMES)}, CODEBOOK)


def scalars(value: Any, where: str = "") -> Iterator[tuple[str, Any]]:
    """Every leaf of a document with its path; what the release alone adds or takes away is left out."""
    if isinstance(value, dict):
        for key, below in value.items():
            if key not in ("status", "disclosure", "beyond") and not key.startswith("dominance_bound"):
                yield from scalars(below, f"{where}.{key}")
    elif isinstance(value, list):
        for i, below in enumerate(value):
            yield from scalars(below, f"{where}[{i}]")
    else:
        yield where, value


def assert_same(one: Result, other: Result) -> None:
    mine, theirs = dict(scalars(one.to_dict())), dict(scalars(other.to_dict()))
    assert list(mine) == list(theirs)
    for where, value in mine.items():
        wanted = pytest.approx(theirs[where], rel=1e-12, abs=1e-300) if isinstance(value, float) else theirs[where]
        assert value == wanted, where


def test_every_analysis_has_an_example() -> None:
    assert set(EXAMPLES) == set(modules(ANALYSES))


@pytest.mark.parametrize(("name", "options"), CASES)
def test_the_whole_path_gives_what_both_halves_give_alone_in_a_document_that_fits_its_schema(
    federation: Federation, name: str, options: dict[str, Any]
) -> None:
    result = federation.ask(name, **options)
    assert_same(result, federate(name, FRAMES, CODEBOOK, **options))
    answer = federation.last
    assert answer is not None
    document = json.loads(json.dumps(answer.to_dict(), allow_nan=False))
    jsonschema.validate(document, answer_schema())
    assert document["tables"] == list(result.tables)
    assert [row["holder"] for row in document["spending"]] == [f"holder-{i}" for i in range(2)]
    assert {row["role"] for row in document["learns"]} >= {
        "coordinator",
        "other holders",
        "result party",
        "all parties",
    }
    assert len(document["sums"]) == len(answer.sums) >= 1
    assert all(row["history_epsilon"] is None and row["study_epsilon"] is None for row in document["spending"])
    again = Result.from_dict(document)
    assert again.to_dict() == result.to_dict()
    assert result.title in result.summary()


def test_shorthands_ask_what_their_names_say(federation: Federation) -> None:
    asked = {
        "describe": federation.describe("age"),
        "count": federation.count("sex"),
        "total": federation.total("income"),
        "mean": federation.mean(["income"], by="sex", where="age >= 30"),
        "table": federation.table("region", "sex"),
        "quantile": federation.quantile("age", [0.5], tolerance=8),
        "ols": federation.ols("income ~ age"),
        "glm": federation.glm("employed ~ age", family="binomial"),
    }
    assert {name: result.analysis for name, result in asked.items()} == {name: name for name in asked}
    pooled = pd.concat(FRAMES)
    assert len(asked["table"].to_pandas()) == 6
    assert asked["mean"].to_pandas()["count"].sum() == (pooled["age"] >= 30).sum()
    limits = asked["ols"].conf_int()
    assert list(limits["name"]) == ["Intercept", "age"]
    assert (limits["lower"] < asked["ols"].to_pandas()["estimate"]).all()


def test_frames_arrow_tables_and_paths_are_holders_alike_and_others_are_named(tmp_path: Path) -> None:
    frame = FRAMES[0]
    frame.to_csv(tmp_path / "a.csv", index=False)
    arrow = pa.Table.from_pandas(frame, preserve_index=False)
    fed = Federation({"a": tmp_path / "a.csv", "b": arrow, "c": frame, "d": str(tmp_path / "a.csv")}, CODEBOOK)
    row = fed.describe("income").to_dict()["columns"][0]
    assert row["count"] == 4 * len(frame)
    assert row["mean"] == pytest.approx(frame["income"].mean(), rel=1e-12)
    with pytest.raises(UsageError, match="a: got list; want a path, a URL, a pandas or polars DataFrame"):
        Federation({"a": [1, 2]})


def test_holders_that_drafted_different_levels_still_give_the_pooled_total() -> None:
    """The peer's defect: 240 instead of 300, as levels that one holder lacks shifted the cells of the others."""
    north = pd.DataFrame({"sector": ["a"] * 60 + ["b"] * 40, "wage": [10.0] * 100})
    south = pd.DataFrame({"sector": ["b"] * 70 + ["c"] * 30, "wage": [20.0] * 100})
    east = pd.DataFrame({"sector": ["c"] * 99 + ["d"], "wage": [30.0] * 100})
    fed = Federation({"north": north, "south": south, "east": east})
    cells = {row["sector"]: row["count"] for row in fed.table("sector").to_dict()["cells"]}
    assert cells == {"a": 60, "b": 110, "c": 129, "d": 1}
    assert sum(cells.values()) == 300
    assert fed.codebook is not None
    assert fed.codebook.columns["sector"].levels == ("a", "b", "c", "d")
    rows = fed.ols("wage ~ C(sector)").to_dict()["coefficients"]
    pooled = pd.concat([north, south, east]).groupby("sector")["wage"].mean()
    assert [row["estimate"] for row in rows] == pytest.approx([pooled["a"], *(pooled[1:] - pooled["a"])])


def test_dtypes_that_differ_between_holders_and_holders_without_values_give_the_pooled_answer(tmp_path: Path) -> None:
    whole = pd.DataFrame({"k": [0, 1, 2, 3], "works": [True, False, True, True], "g": ["1", "2", "1", "2"]})
    floats = pd.DataFrame({"k": [4.0, np.nan, 2.0, 1.0], "works": [1, 0, 0, 0], "g": [1, 2, 2, 2]})
    texts = pd.DataFrame({"k": ["7", "", " 3 "], "works": ["no", "yes", ""], "g": ["2.0", "1", ""]})
    nothing = pd.DataFrame({"k": [None, None], "works": [None, None], "g": [None, None]})
    texts.to_csv(tmp_path / "t.csv", index=False)
    holders = {"a": whole, "b": floats, "c": tmp_path / "t.csv", "d": nothing, "e": whole.iloc[:0]}
    fed = Federation(holders, codebook_of({"k": ("integer", 0, 9), "works": "boolean", "g": ["1", "2"]}))
    values = [0, 1, 2, 3, 4, 2, 1, 7, 3]
    row = fed.describe("k").to_dict()["columns"][0]
    assert (row["count"], row["missing"], row["mean"]) == (9, 4, pytest.approx(np.mean(values), rel=1e-15))
    assert row["variance"] == pytest.approx(np.var(values, ddof=1), rel=1e-12)
    cells = {(r["g"], r["works"]): r["count"] for r in fed.table("g", "works").to_dict()["cells"]}
    assert cells == {("1", "false"): 0, ("1", "true"): 4, ("2", "false"): 5, ("2", "true"): 1}


def test_answers_do_not_depend_on_the_order_of_the_holders() -> None:
    named = {f"h{i}": frame for i, frame in enumerate(FRAMES)}
    one = Federation(named, CODEBOOK).ols("income ~ age + C(region)")
    other = Federation(dict(reversed(named.items())), CODEBOOK).ols("income ~ age + C(region)")
    assert one.to_dict() == other.to_dict()


def test_a_private_answer_costs_what_was_asked_and_an_exact_one_ends_the_finite_history() -> None:
    fed = Federation({"a": FRAMES[0], "b": FRAMES[1]}, CODEBOOK, seed=3)
    result = fed.count("sex", privacy={"epsilon": 0.7, "delta": 1e-6})
    assert fed.last is not None
    assert result.privacy is not None
    assert [one.holder for one in fed.last.spending] == ["a", "b"]
    for closing in fed.last.spending:
        assert closing.study_epsilon == pytest.approx(0.7, rel=0.02)
        assert (closing.study_epsilon or 1.0) <= 0.7
        assert closing.history_epsilon is not None
        assert closing.disclosures == 0
    assert all("epsilon 0.7 per record" in row.protected_by for row in fed.last.learns[:3])
    first = fed.last.spending[0].history_epsilon
    fed.count("sex", privacy=Privacy(epsilon=0.7))
    assert first is not None
    assert (fed.last.spending[0].history_epsilon or 0) > first
    fed.count("sex")
    assert all(c.history_epsilon is None and c.disclosures == 2 for c in fed.last.spending)
    fed.count("sex", privacy=0.3)
    assert all(c.history_epsilon is None for c in fed.last.spending)
    assert fed.last.spending[0].study_epsilon == pytest.approx(0.3, rel=0.02)


def test_the_same_seed_gives_the_same_noise_and_another_seed_another() -> None:
    def noisy(seed: int) -> dict[str, Any]:
        return Federation({"a": FRAMES[0], "b": FRAMES[1]}, CODEBOOK, seed=seed).count("sex", privacy=1.0).to_dict()

    assert noisy(1) == noisy(1) != noisy(2)


def test_private_analyses_of_persons_name_what_the_codebook_lacks() -> None:
    fed = Federation({"a": FRAMES[0]}, codebook_of({"age": ("integer", 0, 110), "income": "number"}))
    with pytest.raises(UsageError, match=r"privacy\.unit: got person; want a codebook with a column of role unit"):
        fed.mean("age", privacy={"epsilon": 1, "unit": "person"})
    with pytest.raises(UsageError, match="income: got no bounds; want low and high in the codebook"):
        fed.mean("income", privacy=1.0)
    with pytest.raises(UsageError, match="glm has no differentially private form"):
        fed.glm("age ~ income", family="gaussian", privacy=1.0)


def study(tmp_path: Path, **changes: Any) -> Study:
    for name, frame in (("a", FRAMES[0]), ("b", FRAMES[1])):
        frame.to_parquet(tmp_path / f"{name}.parquet")
    base: dict[str, Any] = {"method": "count", "holders": {"a": "a.parquet", "b": "b.parquet"}}
    return make_study(base | changes)


def run(asked: Study, tmp_path: Path, **how: Any) -> Answer:
    """Run a study whose files lie in the test's folder, under the common codebook."""
    return run_study(asked, Options(base=tmp_path, codebook=CODEBOOK, **how))


def entries(workspace: Path, holder: str) -> list[str]:
    (home,) = (workspace / "tables").glob(f"{holder}-*")
    with read_only(home / "ledger.sqlite") as ledger:
        return [entry.kind for entry in ledger.entries()]


def test_a_dry_run_reserves_and_frees_and_says_what_it_would_cost(tmp_path: Path) -> None:
    asked = study(tmp_path, privacy={"epsilon": 1.0})
    with pytest.raises(DryRun) as stop:
        run(asked, tmp_path, workspace=tmp_path / "ws", dry_run=True)
    assert [a.holder for a in stop.value.admissions.values()] == ["a", "b"]
    assert all(0.98 <= (a.epsilon or 0) <= 1.0 for a in stop.value.admissions.values())
    assert entries(tmp_path / "ws", "a") == ["open", "reserve", "release"]


def test_when_one_holder_cannot_take_part_nobody_spends_and_all_that_is_wrong_is_said(tmp_path: Path) -> None:
    asked = study(tmp_path, privacy={"epsilon": 1.0}, options={"by": ["region"]})
    odd = FRAMES[1].assign(region="atlantis")
    odd.to_parquet(tmp_path / "b.parquet")
    with pytest.raises(UsageError) as caught:
        run(asked, tmp_path, workspace=tmp_path / "ws")
    assert "b: data do not fit the codebook:\n  region: got a category outside the codebook" in str(caught.value)
    assert "1 of 2 holders had agreed; nothing was spent" in str(caught.value)
    assert "atlantis" not in str(caught.value)
    for holder in ("a", "b"):
        assert entries(tmp_path / "ws", holder) == [
            "open",
            "reserve",
            *(["refuse"] if holder == "b" else []),
            "release",
        ]


def test_budgets_outlive_runs_in_a_workspace_and_run_out_with_the_numbers(tmp_path: Path) -> None:
    asked = study(tmp_path, privacy={"epsilon": 1.0}, simulation={"lifetime_epsilon": 1.1, "lifetime_delta": 1e-5})
    run(asked, tmp_path, workspace=tmp_path / "ws")
    with pytest.raises(Refused, match=r"(?s)a: privacy budget: asked epsilon .*\nb: privacy budget: asked epsilon"):
        run(asked, tmp_path, workspace=tmp_path / "ws")
    assert entries(tmp_path / "ws", "a") == ["open", "reserve", "charge", "release"]
    run(asked, tmp_path)  # without a workspace: holders of this run alone


def test_holders_rules_of_a_simulation_refuse_small_cells_with_all_their_names(tmp_path: Path) -> None:
    frame = people(300, 3)
    frame.loc[:, "region"] = "north"
    frame.loc[:3, "region"] = "west"
    frame.to_parquet(tmp_path / "small.parquet")
    holders = {"a": "small.parquet", "b": "small.parquet"}
    said = []
    for minimum in (10, 25):
        rules = {"minimum_frequency": minimum}
        asked = make_study(
            {
                "method": "count",
                "options": {"by": ["region"]},
                "holders": holders,
                "simulation": {"disclosure": rules},
            }
        )
        with pytest.raises(Refused) as caught:
            run(asked, tmp_path, workspace=tmp_path / "ws")
        said.append(str(caught.value))
    assert said[0] == said[1]
    assert "minimum frequency" in said[0]
    assert said[0].startswith("a: not allowed by this holder's disclosure rules")
    assert "\nb: not allowed" in said[0]
    assert entries(tmp_path / "ws", "a") == ["open", "refuse", "refuse"]


def test_standard_rules_treat_a_small_cell_of_the_release_and_say_so(tmp_path: Path) -> None:
    frame = people(300, 3)
    frame.loc[:, "region"] = np.where(np.arange(300) < 150, "north", "south")
    frame.loc[:3, "region"] = "west"
    asked: dict[str, Any] = {"a": frame.iloc[::2], "b": frame.iloc[1::2]}
    shown = Federation(asked, CODEBOOK, disclosure="standard").table("region", "sex")
    cells = {(r["region"], r["sex"]): r for r in shown.to_dict()["cells"]}
    small = [r for (region, _), r in cells.items() if region == "west"]
    assert all(r["count"] is None and r["status"] != "released" for r in small if r["status"] != "empty")
    assert shown.disclosure["treated"]
    assert "minimum frequency" in shown.disclosure["rules"]
    rounded = Federation(asked, CODEBOOK, disclosure=Rules(method="controlled-round", base=5)).table("region", "sex")
    assert all(r["count"] % 5 == 0 for r in rounded.to_dict()["cells"] if r["count"] is not None)


STUDY = """
method = "mean"
title = "Means"
codebook = "books/people.codebook.toml"
where = ["age >= 18"]
disclosure = "none"

[options]
columns = ["income"]

[holders]
north = "data/a.parquet"
south = "data/b.csv"
"""


def test_a_study_file_starts_its_paths_at_its_own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from statfed.client.data.drafting import to_toml

    folder = tmp_path / "study"
    for name in ("data", "books"):
        (folder / name).mkdir(parents=True)
    FRAMES[0].to_parquet(folder / "data/a.parquet")
    FRAMES[1].to_csv(folder / "data/b.csv", index=False)
    (folder / "books/people.codebook.toml").write_text(to_toml(CODEBOOK))
    (folder / "mean.study.toml").write_text(STUDY)
    monkeypatch.chdir(tmp_path)
    loaded = load_study(Path("study/mean.study.toml"), ["options.by=['sex']"])
    answer = run_study(loaded, Options(base=Path("study")))
    pooled = pd.concat(FRAMES)
    means = pooled[pooled["age"] >= 18].groupby("sex")["income"].mean()
    assert [row["estimate"] for row in answer.result.tables["estimates"]] == pytest.approx(list(means), rel=1e-12)
    assert not answer.drafted
    assert answer.result.disclosure["rules"] == []


def test_a_study_has_standard_rules_unless_it_says_none_and_refuses_other_words() -> None:
    base: dict[str, Any] = {"method": "count", "holders": {"a": "a.csv"}}
    assert make_study(base).disclosure == Rules()
    assert make_study(base | {"disclosure": "none"}).disclosure.minimum_frequency is None
    assert make_study(base | {"disclosure": None}).disclosure.minimum_frequency is None
    assert make_study(base | {"disclosure": {"minimum_frequency": 3}}).disclosure.minimum_frequency == 3
    with pytest.raises(UsageError, match="disclosure: got 'strict'; want none, standard or a table of rules"):
        make_study(base | {"disclosure": "strict"})


def test_arrays_of_every_dtype_and_shape_that_analyses_send_survive_the_wire() -> None:
    from flwr.app import Message, RecordDict
    from flwr.supercore.task_identity import TaskIdentity

    from statfed.server.packets import packet_in, put_packet

    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 1, 1  # as a run before this test sets them
    sent: dict[str, NDArray[Any]] = {
        "scalar": np.array(2**53 + 1, np.int64),
        "negative": np.array([-(2**62), 2**62], np.int64),
        "float": np.array(0.1),
        "empty": np.zeros((0, 3)),
        "table": np.arange(24, dtype=np.float64).reshape(2, 3, 4),
    }
    message = Message(RecordDict(), 1000, "query.ask")
    put_packet(message.content, {**sent, "key": b"\x00\xff"})
    message.metadata.__dict__["_message_id"] = "1"
    arrived = packet_in(inprocess.over_the_wire(message).content)
    assert set(arrived) == {*sent, "key"}
    assert arrived["key"] == b"\x00\xff"
    for name, array in sent.items():
        got = np.asarray(arrived[name])
        assert (got.dtype, got.shape) == (array.dtype, array.shape)
        assert np.array_equal(got, array)


def test_no_analysis_hides_its_halves_behind_more_than_the_contract() -> None:
    contract = {"TITLE", "GROUP", "PUSHES_DOWN", "Options", "columns", "coordinate", "parts", "contribute", "discloses"}
    for name in modules(ANALYSES):
        module: Method = load_method(name)
        assert all(hasattr(module, part) for part in contract), name
