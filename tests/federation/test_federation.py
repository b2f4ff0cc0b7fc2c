"""Coordinator and holders together in process: equality with one machine, refusals, faults, and what is spent."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from flwr.app import Message
from numpy.typing import NDArray
from pyarrow import parquet

from statfed.client.guard.ledger import read_only
from statfed.client.guard.restoring import restore
from statfed.client.holder import Holder
from statfed.core import VERSION
from statfed.core.errors import EngineError, Refused, StatfedError, UsageError
from statfed.core.method import Question, read_question
from statfed.core.progress import silent
from statfed.core.randomness import stream
from statfed.core.records import concatenate
from statfed.core.resolve import resolve
from statfed.core.statement import Statement, Step
from statfed.core.study import Study, make_study
from statfed.core.table import Size
from statfed.core.terms import Terms
from statfed.federation.population import FILE, table_of
from statfed.federation.references import prepare
from statfed.federation.training import digest, warnings_of
from statfed.scenarios import time_use
from statfed.server.driver import Checkpoint, Driven, drive
from statfed.server.engine import Deployment, Session
from statfed.server.grid import inprocess
from statfed.strategies.learning.local import fit, get_vector, schedule
from statfed.strategies.learning.prepared import build
from tests.conftest import CODEBOOK, TOY, toy_records, toy_study, toy_terms

Homes = Callable[..., dict[str, Path]]
PRIVATE = {"epsilon": 4.0, "delta": 1e-4}


def federate(study: Study, homes: dict[str, Path], run: str = "r1", **options: Any) -> Driven:
    """Run a study in process and return what the coordinator has."""
    resolved = resolve(study.terms(TOY.codebook))
    return inprocess.run(
        Deployment(run, homes, Path("unused")),
        lambda session: drive(session, resolved, run, timeout=60, progress=silent),
        silent,
        **options,
    )


def vector(driven: Driven) -> NDArray[np.float32]:
    return np.asarray(driven.result.arrays["model"], np.float32)


def question_of(study: Study) -> Question[Any]:
    return read_question(study.terms(TOY.codebook))[1]


def spent(home: Path) -> float:
    with read_only(home / "ledger.sqlite") as ledger:
        return ledger.spending().filter_epsilon


def replace_table(home: Path, table: pa.Table) -> None:
    """Other data in a holder's home, for which the simulation is not asked."""
    parquet.write_table(table, home / FILE)


def say(holder: Holder, terms: Terms, step: Step, number: int = 0, run: str = "r", done: int = 0) -> str:
    """A statement about training, as the coordinator sends it."""
    sizes = dict.fromkeys(terms.holders, holder.policy.dataset.records)
    ask = "fit" if step == "ask" else ""
    said = Statement(version=VERSION, run=run, step=step, round=number, ask=ask, sizes=sizes, done=done, terms=terms)
    return said.model_dump_json()


def test_one_holder_without_privacy_equals_training_on_one_machine(homes: Homes) -> None:
    study = toy_study(holders=1, rounds=3)
    records = toy_records(3, 20)
    federated = vector(federate(study, homes(study, {"office-1": records})))
    question = question_of(study)
    options = question.options
    model, data = build(question, study.seed or 0), prepare(records, question)
    for number in (1, 2, 3):
        plan = schedule(options, None, Size(60, 3))
        sampling = stream(study.seed, "office-1", number, "sampling")
        fit(model, data.inputs, data.labels, data.units, options, None, plan, sampling, stream(0, "unused"))
    np.testing.assert_array_equal(federated, get_vector(model))


def test_full_batch_over_unequal_holders_equals_pooled_gradient_descent(homes: Homes) -> None:
    study = toy_study(holders=3, rounds=4, training={"batch_size": 10_000, "learning_rate": 0.2})
    parts = {f"office-{i}": toy_records(i + 1, 15 * i, seed=i, first=10 * i) for i in (1, 2, 3)}
    federated = vector(federate(study, homes(study, parts)))
    question = question_of(study)
    options = question.options
    model, data = build(question, study.seed or 0), prepare(concatenate(list(parts.values())), question)
    for number in range(4):
        plan = schedule(options, None, Size(len(data.labels), 9))
        fit(model, data.inputs, data.labels, data.units, options, None, plan, stream(number), stream(0))
    np.testing.assert_allclose(federated, get_vector(model), atol=2e-6)


@pytest.mark.parametrize("strategy", ["fedavg", "fedprox", "fedavgm", "fedadam", "fedyogi", "fedadagrad"])
def test_every_strategy_learns_and_is_reproducible(homes: Homes, strategy: str) -> None:
    study = toy_study(rounds=6, strategy={"name": strategy, "server_momentum": 0.5}, training={"batch_size": 8})
    places = homes(study)
    one, two = federate(study, places, "r1"), federate(study, places, "r2", wire=True)
    assert digest(vector(one)) == digest(vector(two))
    from statfed.federation.references import scores
    from statfed.strategies.learning.local import set_vector

    question = question_of(study)
    model, data = build(question), prepare(toy_records(3, 20, seed=9), question)
    set_vector(model, vector(one))
    assert scores(model, data, CODEBOOK.classes).accuracy > 0.55


def test_privacy_is_composed_over_rounds_and_runs_and_survives_in_the_ledger(homes: Homes) -> None:
    study = toy_study(privacy=PRIVATE, rounds=2)
    places = homes(study)
    first, second = federate(study, places, "r1"), federate(study, places, "r2")
    one, two = first.closings["office-1"], second.closings["office-1"]
    assert one.study_epsilon == pytest.approx(first.admissions["office-1"].epsilon)
    assert one.study_epsilon is not None
    assert 3.5 < one.study_epsilon <= 4.0  # at the study's delta
    assert one.history_epsilon is not None
    assert two.history_epsilon is not None
    assert one.history_epsilon > one.study_epsilon  # at the smaller delta of the lifetime budget
    assert two.history_epsilon > 1.3 * one.history_epsilon


def test_a_refusal_names_the_holder_and_no_other_holder_pays(homes: Homes) -> None:
    study = toy_study(privacy=PRIVATE, simulation={"lifetime_epsilon": 7.0})
    places = homes(study)
    federate(study, places, "r1")
    before = {name: spent(home) for name, home in places.items()}
    fresh = toy_study(privacy=PRIVATE, simulation={"lifetime_epsilon": 7.0})
    (places["office-2"] / "ledger.sqlite").unlink()
    with pytest.raises(Refused, match=r"office-2: its privacy ledger does not verify"):
        federate(fresh, places, "r2")
    assert spent(places["office-1"]) == before["office-1"]
    (places["office-2"] / "ledger.opened").unlink()
    with pytest.raises(Refused, match=r"office-2: its privacy ledger does not verify"):  # the register knows of it
        federate(fresh, places, "r2")
    restore(places["office-2"], None, None)
    with pytest.raises(Refused, match=r"office-1: .*budget"):
        federate(fresh, places, "r2")
    assert {name: spent(home) for name, home in places.items()} == before


def test_a_run_that_fails_midway_pays_only_for_the_rounds_it_trained(homes: Homes) -> None:
    study = toy_study(privacy=PRIVATE, rounds=4)
    places = homes(study)

    def fault(holder: str, message: Message) -> str | None:
        text = str(message.content.config_records["config"]["statement"])
        return "dropped" if holder == "office-2" and '"round":3' in text else None

    with pytest.raises(EngineError, match="office-2"):
        federate(study, places, "r1", fault=fault)
    with read_only(places["office-2"] / "ledger.sqlite") as ledger:
        kinds = [entry.kind for entry in ledger.entries()]
    assert kinds.count("charge") == 2
    assert kinds[-1] == "release"


def test_a_silent_holder_ends_the_round_with_its_name(homes: Homes) -> None:
    study = toy_study(holders=3)

    class Deaf(inprocess.InProcessGrid):
        def send_and_receive(self, messages: Any, *, timeout: float | None = None) -> Any:
            return [m for m in super().send_and_receive(messages) if m.metadata.src_node_id != self.nodes["office-2"]]

    from statfed.server.grid._holder_app import holder_app

    grid = Deaf(holder_app(), {n: str(h) for n, h in homes(study).items()})
    with pytest.raises(EngineError, match="no answer from office-2"):
        drive(Session(grid, grid.nodes), resolve(study.terms(TOY.codebook)), "r", timeout=1, progress=silent)


def test_versions_must_match_and_both_are_named(homes: Homes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("statfed.server.exchange.VERSION", "9.9.9")
    study = toy_study()
    with pytest.raises(Refused, match=r"coordinator runs 9\.9\.9; this holder runs"):
        federate(study, homes(study))


def test_a_replayed_round_is_refused(homes: Homes) -> None:
    study = toy_study(privacy=PRIVATE)
    holder, terms = Holder(homes(study)["office-1"]), study.terms(TOY.codebook)
    sent = {"vector": get_vector(build(question_of(study), 1))}
    with pytest.raises(Refused):
        holder.answer(say(holder, terms, "ask", 1), sent)  # never admitted
    holder.answer(say(holder, terms, "admit"), {})
    assert holder.answer(say(holder, terms, "ask", 1), sent).packet is not None
    with pytest.raises(Refused, match="1"):
        holder.answer(say(holder, terms, "ask", 1), sent)
    with pytest.raises(Refused, match="number 3; want in this order fit \\(2\\)"):
        holder.answer(say(holder, terms, "ask", 3), sent)
    holder.answer(say(holder, terms, "release"), {})
    with pytest.raises(Refused):
        holder.answer(say(holder, terms, "ask", 2), sent)


def test_changed_terms_are_not_covered_by_what_was_admitted(homes: Homes) -> None:
    study = toy_study(privacy=PRIVATE)
    holder, terms = Holder(homes(study)["office-1"]), study.terms(TOY.codebook)
    holder.answer(say(holder, terms, "admit"), {})
    louder = toy_terms(privacy=PRIVATE | {"epsilon": 9.0})
    with pytest.raises(Refused):
        holder.answer(say(holder, louder, "ask", 1), {"vector": get_vector(build(question_of(study), 1))})
    holder.answer(say(holder, terms, "release"), {})


def column(name: str, values: Any) -> Callable[[pa.Table], pa.Table]:
    """The table with other values in a column."""
    return lambda table: table.set_column(table.column_names.index(name), name, values(table))


def windows(change: Callable[[NDArray[np.float32]], Any]) -> Callable[[pa.Table], pa.Table]:
    """The table with other arrays in channel x."""
    return column("x", lambda table: pa.array(list(change(np.stack(table.column("x").to_numpy())))))


def holed(values: NDArray[np.float32]) -> NDArray[np.float32]:
    values = values.copy()
    values[0, 5] = np.nan
    return values


BAD: dict[str, Callable[[pa.Table], pa.Table]] = {
    "x: got entries that are not finite": windows(holed),
    "x: not a column of the data": lambda table: table.drop_columns(["x"]),
    "x: got arrays of another length; want 128": windows(lambda values: values[:, :100]),
    "x: got entries above the codebook's bound; want at most 50": windows(lambda values: values * 1e4),
    "class: got a category outside the codebook; want one of still, walk, run": column(
        "class", lambda table: pa.array(["jump"] * len(table))
    ),
    "person: got missing": column("person", lambda table: pa.array([None] * len(table), pa.string())),
}


@pytest.mark.parametrize("message", list(BAD))
def test_data_that_do_not_fit_the_codebook_are_named_before_anything_is_spent(homes: Homes, message: str) -> None:
    study = toy_study(privacy=PRIVATE | {"unit": "person"})
    places = homes(study)
    replace_table(places["office-2"], BAD[message](table_of(toy_records(3, 20), CODEBOOK)))
    with pytest.raises(UsageError, match=f"(?s)office-2: .*{message}"):
        federate(study, places)
    assert [spent(home) for home in places.values()] == [0.0, 0.0]


def test_missing_and_corrupt_data_files_are_named_in_the_holders_own_log(
    homes: Homes, caplog: pytest.LogCaptureFixture
) -> None:
    study = toy_study()
    places = homes(study)
    (places["office-1"] / FILE).write_bytes(b"PAR1 not a table")
    (places["office-2"] / FILE).unlink()
    with pytest.raises(UsageError, match=r"(?s)office-1: .*data cannot be opened.*office-2: .*cannot be opened"):
        federate(study, places)
    assert "not readable as Parquet" in caplog.text
    assert "no such file" in caplog.text


def test_an_unforeseen_error_at_a_holder_travels_without_its_text(
    homes: Homes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def leak(*_: object, **__: object) -> None:
        raise RuntimeError("person 4711 earns 123456")

    monkeypatch.setattr("statfed.strategies.learning.local.fit", leak)
    study = toy_study()
    with pytest.raises(StatfedError) as caught:
        federate(study, homes(study))
    assert "4711" not in str(caught.value)
    assert "internal error at the holder" in str(caught.value)


def test_a_broken_policy_is_not_quoted_to_the_coordinator(homes: Homes, caplog: pytest.LogCaptureFixture) -> None:
    study = toy_study()
    places = homes(study)
    path = places["office-1"] / "policy.toml"
    path.write_text(path.read_text().replace("records = 60 ", "records = 7919.5 "))
    with pytest.raises(Refused, match=r"office-1: this holder's policy cannot be read") as caught:
        federate(study, places)
    assert "7919" not in str(caught.value)
    assert str(path) not in str(caught.value)
    assert "7919" in caplog.text  # the holder's own log has it


def test_without_noise_every_update_is_a_disclosure(homes: Homes) -> None:
    study = toy_study(rounds=3)
    places = homes(study)
    first = federate(study, places)
    assert first.closings["office-1"].disclosures == 3
    private = toy_study(privacy=PRIVATE)
    after = federate(private, places, "r2")
    closing = after.closings["office-1"]
    assert closing.study_epsilon == pytest.approx(after.admissions["office-1"].epsilon)
    assert closing.history_epsilon is None  # exact models left these data: no finite epsilon covers their history
    (told,) = warnings_of(resolve(private.terms(TOY.codebook)), after)
    assert "no finite epsilon" in told
    assert warnings_of(resolve(study.terms(TOY.codebook)), first) == []


def test_holders_that_dropped_out_of_a_training_are_named(homes: Homes) -> None:
    study = toy_study(holders=3)
    driven = federate(study, homes(study))
    del driven.closings["office-2"]
    (warning,) = warnings_of(resolve(study.terms(TOY.codebook)), driven)
    assert warning.startswith("office-2 dropped out: ")


def test_a_pilot_holder_refuses_a_public_seed(homes: Homes) -> None:
    from statfed.client.guard.policy import load_policy, write_policy

    study = toy_study(privacy=PRIVATE)
    places = homes(study)
    path = places["office-1"] / "policy.toml"
    policy = load_policy(path)
    write_policy(policy.model_copy(update={"allow": policy.allow.model_copy(update={"public_seed": False})}), path)
    with pytest.raises(Refused, match="public seed"):
        federate(study, places)


@pytest.mark.parametrize("strategy", [pytest.param("fedavg", marks=pytest.mark.whole), "fedavgm", "fedyogi"])
def test_an_interrupted_run_goes_on_to_the_same_model_and_pays_each_round_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, strategy: str
) -> None:
    from statfed.federation import Options, resume_study, run_study
    from statfed.federation.checkpoint import save
    from statfed.federation.runs import read_status

    study = make_study(
        dict(time_use.STUDY)
        | {
            "holders": 2,
            "privacy": PRIVATE,
            "data": {"source": "generated", "persons": 5, "records_per_person": 10, "test_persons": 4},
            "options": {"rounds": 4, "model": {"hidden": 8}, "batch_size": 16, "strategy": {"name": strategy}},
        }
    )
    options = Options(tmp_path / "ws", tmp_path / "runs", fresh=True, references=False)
    whole = run_study(study, options)

    def unplugged(folder: Path, checkpoint: Any, curve: Any, of: Any) -> None:
        save(folder, checkpoint, curve, of)
        if checkpoint.done == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr("statfed.federation.checkpoint.save", unplugged)
    with pytest.raises(KeyboardInterrupt):
        run_study(study, options)
    (folder,) = (path for path in (tmp_path / "runs").iterdir() if path.name != whole.run)
    assert read_status(folder)["state"] == "interrupted"
    monkeypatch.setattr("statfed.federation.checkpoint.save", save)
    resumed = resume_study(folder, options)
    with read_only(folder / "holders" / "office-1" / "ledger.sqlite") as ledger:
        assert ledger.spending().reserved == 0
    assert resumed.model_digest == whole.model_digest
    assert resumed.study_digest == whole.study_digest
    assert [r.round for r in resumed.rounds] == [0, 1, 2, 3, 4]
    assert [r.accuracy for r in resumed.rounds] == [r.accuracy for r in whole.rounds]
    assert resumed.spending[0].history_epsilon == pytest.approx(whole.spending[0].history_epsilon, rel=1e-6)
    with pytest.raises(UsageError, match="already finished"):
        resume_study(folder, options)


@pytest.mark.parametrize("kept", [True, False])
def test_a_killed_coordinators_reservation_is_freed_when_the_run_goes_on(homes: Homes, kept: bool) -> None:
    study = toy_study(privacy=PRIVATE, rounds=3)
    places = homes(study)
    terms = study.terms(TOY.codebook)
    initial = get_vector(build(question_of(study), 1))
    for home in places.values():  # a coordinator that was killed in round 2, after all had trained it
        holder = Holder(home)
        holder.answer(say(holder, terms, "admit"), {})
        for number in (1, 2):
            holder.answer(say(holder, terms, "ask", number), {"vector": initial})
        holder._contributions.close()
    if not kept:  # one of them does not have it any more
        for path in (places["office-1"] / "open").iterdir():
            path.unlink()

    def go_on(session: Session) -> Driven:
        start = Checkpoint("r", 1, {"model": initial, "round": np.array(1)})
        return drive(session, resolve(terms), "r~2", timeout=60, progress=silent, resume=start)

    done = inprocess.run(Deployment("r~2", places, Path("unused")), go_on, silent)
    with read_only(places["office-1"] / "ledger.sqlite") as ledger:
        assert (ledger.spending().charged, ledger.spending().reserved) == (3, 0)
    spent_on = done.closings["office-1"].study_epsilon
    assert spent_on is not None
    assert spent_on <= PRIVATE["epsilon"]
    assert done.result.tables["model"][0]["rounds"] == (3 if kept else 2)  # the one that is lost was paid for
    holder = Holder(places["office-1"])
    with pytest.raises(Refused, match="resume: got 1 sums done; want 3"):
        holder.answer(say(holder, terms, "admit", run="r~3", done=1), {})
    holder._contributions.close()


def test_no_answer_depends_on_how_far_the_file_is_from_its_declared_size(homes: Homes) -> None:
    study = toy_study(privacy=PRIVATE | {"unit": "person"}, training={"batch_size": 2})
    places = homes(study)
    before = federate(study, places, "r1").admissions["office-1"].model_dump(exclude={"ledger_head"})
    replace_table(places["office-1"], table_of(toy_records(1, 20), CODEBOOK))  # two persons fewer than declared
    after = federate(study, places, "r2").admissions["office-1"].model_dump(exclude={"ledger_head"})
    assert before == after
