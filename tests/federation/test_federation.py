"""Coordinator and holders together in process: equality with one machine, refusals, faults, and what is spent."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Message
from numpy.typing import NDArray

from statfed.client.guard.ledger import read_only
from statfed.core import statement
from statfed.core.errors import EngineError, Refused, StatfedError, UsageError
from statfed.core.progress import silent
from statfed.core.randomness import stream
from statfed.core.records import Records, concatenate
from statfed.core.study import Study
from statfed.federation.assemble import digest, disclosure_warnings
from statfed.federation.references import build, prepare
from statfed.server.app import Training, train
from statfed.server.engine import Deployment
from statfed.server.grid import inprocess
from statfed.strategies.learning.local import fit, get_vector, schedule
from tests.conftest import CODEBOOK, toy_records, toy_study

Homes = Callable[..., dict[str, Path]]
PRIVATE = {"epsilon": 4.0, "delta": 1e-4}


def drive(study: Study, homes: dict[str, Path], run: str = "r1", **options: Any) -> Training:
    """Train in process and return the training."""
    terms = study.terms(CODEBOOK)
    initial = get_vector(build(terms, study.seed))
    hooks = {key: options.pop(key) for key in ("on_plan", "on_round") if key in options}
    return inprocess.run(
        Deployment(run, homes, Path("unused")),
        lambda session: train(session, terms, run, initial, timeout=60, progress=silent, **hooks),
        silent,
        **options,
    )


def spent(home: Path) -> float:
    with read_only(home / "ledger.sqlite") as ledger:
        return ledger.spending().filter_epsilon


def test_one_holder_without_privacy_equals_training_on_one_machine(homes: Homes) -> None:
    study = toy_study(holders=1, rounds=3)
    records = toy_records(3, 20)
    federated = drive(study, homes(study, {"office-1": records})).vector
    terms = study.terms(CODEBOOK)
    model, data = build(terms, study.seed), prepare(records, terms)
    for number in (1, 2, 3):
        plan = schedule(terms, 60, 3)
        sampling = stream(study.seed, "office-1", number, "sampling")
        fit(model, data.inputs, data.labels, data.persons, terms, plan, sampling, stream(0, "unused"))
    np.testing.assert_array_equal(federated, get_vector(model))


def test_full_batch_over_unequal_holders_equals_pooled_gradient_descent(homes: Homes) -> None:
    study = toy_study(holders=3, rounds=4, training={"batch_size": 10_000, "learning_rate": 0.2})
    parts = {f"office-{i}": toy_records(i + 1, 15 * i, seed=i, first=10 * i) for i in (1, 2, 3)}
    federated = drive(study, homes(study, parts)).vector
    terms = study.terms(CODEBOOK)
    model, data = build(terms, study.seed), prepare(concatenate(list(parts.values())), terms)
    for number in range(4):
        fit(
            model,
            data.inputs,
            data.labels,
            data.persons,
            terms,
            schedule(terms, len(data.labels), 9),
            stream(number),
            stream(0),
        )
    np.testing.assert_allclose(federated, get_vector(model), atol=2e-6)


@pytest.mark.parametrize("strategy", ["fedavg", "fedprox", "fedavgm", "fedadam", "fedyogi", "fedadagrad"])
def test_every_strategy_learns_and_is_reproducible(homes: Homes, strategy: str) -> None:
    study = toy_study(rounds=6, strategy={"name": strategy, "server_momentum": 0.5}, training={"batch_size": 8})
    places = homes(study)
    data = prepare(toy_records(3, 20, seed=9), study.terms(CODEBOOK))
    one, two = drive(study, places, "r1"), drive(study, places, "r2", wire=True)
    assert digest(one.vector) == digest(two.vector)
    model = build(study.terms(CODEBOOK), study.seed)

    def accuracy(vector: NDArray[np.float32]) -> float:
        from statfed.federation.references import scores
        from statfed.strategies.learning.local import set_vector

        set_vector(model, vector)
        return scores(model, data, CODEBOOK.classes).accuracy

    assert accuracy(one.vector) > 0.55


def test_privacy_is_composed_over_rounds_and_runs_and_survives_in_the_ledger(homes: Homes) -> None:
    study = toy_study(privacy=PRIVATE, rounds=2)
    places = homes(study)
    first, second = drive(study, places, "r1"), drive(study, places, "r2")
    one, two = first.closings["office-1"], second.closings["office-1"]
    assert one.study_epsilon == pytest.approx(first.plans["office-1"].epsilon)
    assert one.study_epsilon is not None
    assert 3.5 < one.study_epsilon <= 4.0  # at the study's delta
    assert one.history_epsilon is not None
    assert two.history_epsilon is not None
    assert one.history_epsilon > one.study_epsilon  # at the smaller delta of the lifetime budget
    assert two.history_epsilon > 1.3 * one.history_epsilon


def test_a_refusal_names_the_holder_and_no_other_holder_pays(homes: Homes) -> None:
    study = toy_study(privacy=PRIVATE, simulation={"lifetime_epsilon": 7.0})
    places = homes(study)
    drive(study, places, "r1")
    before = {name: spent(home) for name, home in places.items()}
    fresh = toy_study(privacy=PRIVATE, simulation={"lifetime_epsilon": 7.0})
    (places["office-2"] / "ledger.sqlite").unlink()
    with pytest.raises(Refused, match=r"office-2: its privacy ledger does not verify"):
        drive(fresh, places, "r2")
    assert spent(places["office-1"]) == before["office-1"]
    (places["office-2"] / "ledger.opened").unlink()
    with pytest.raises(Refused, match=r"office-1: .*budget"):
        drive(fresh, places, "r2")
    assert spent(places["office-1"]) == before["office-1"]
    assert spent(places["office-2"]) == 0.0


def test_a_run_that_fails_midway_pays_only_for_the_rounds_it_trained(homes: Homes) -> None:
    study = toy_study(privacy=PRIVATE, rounds=4)
    places = homes(study)

    def fault(holder: str, message: Message) -> str | None:
        text = str(message.content.config_records["config"]["statement"])
        return "dropped" if holder == "office-2" and '"round":3' in text else None

    with pytest.raises(EngineError, match="office-2"):
        drive(study, places, "r1", fault=fault)
    with read_only(places["office-2"] / "ledger.sqlite") as ledger:
        kinds = [entry.kind for entry in ledger.entries()]
    assert kinds.count("charge") == 2
    assert kinds[-1] == "release"


def test_a_silent_holder_ends_the_round_with_its_name(homes: Homes) -> None:
    study = toy_study(holders=3)

    class Deaf(inprocess.InProcessGrid):
        def send_and_receive(self, messages: Any, *, timeout: float | None = None) -> Any:
            return [m for m in super().send_and_receive(messages) if m.metadata.src_node_id != self.nodes["office-2"]]

    from statfed.server.engine import Session
    from statfed.server.grid._holder_app import holder_app

    grid = Deaf(holder_app(), {n: str(h) for n, h in homes(study).items()})
    terms = study.terms(CODEBOOK)
    with pytest.raises(EngineError, match="no answer from office-2"):
        train(Session(grid, grid.nodes), terms, "r", np.zeros(3, np.float32), timeout=1, progress=silent)


def test_versions_must_match_and_both_are_named(homes: Homes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("statfed.server.exchange.VERSION", "9.9.9")
    study = toy_study()
    with pytest.raises(Refused, match=r"coordinator runs 9\.9\.9; this holder runs"):
        drive(study, homes(study))


def test_a_replayed_round_is_refused(homes: Homes) -> None:
    study = toy_study(privacy=PRIVATE)
    places = homes(study)
    from statfed.client.holder import Holder
    from statfed.core import VERSION

    terms = study.terms(CODEBOOK)
    holder = Holder(places["office-1"])

    def say(step: statement.Step, number: int = 0) -> str:
        sizes = dict.fromkeys(terms.holders, holder.policy.dataset.records)
        said = statement.Statement(version=VERSION, run="r", step=step, round=number, sizes=sizes, terms=terms)
        return said.model_dump_json()

    vector = get_vector(build(terms, 1))
    with pytest.raises(Refused):
        holder.answer(say("fit", 1), {"vector": vector})  # never admitted
    holder.answer(say("admit"), {})
    assert holder.answer(say("fit", 1), {"vector": vector}).packet is not None
    with pytest.raises(Refused, match="round 1"):
        holder.answer(say("fit", 1), {"vector": vector})
    with pytest.raises(Refused, match="want 1 to 2"):
        holder.answer(say("fit", 3), {"vector": vector})
    holder.answer(say("release"), {})
    with pytest.raises(Refused):
        holder.answer(say("fit", 2), {"vector": vector})


def test_changed_terms_are_not_covered_by_what_was_admitted(homes: Homes) -> None:
    from statfed.client.holder import Holder
    from statfed.core import VERSION

    study = toy_study(privacy=PRIVATE)
    holder = Holder(homes(study)["office-1"])

    def say(step: statement.Step, terms: Any, number: int = 0) -> str:
        sizes = dict.fromkeys(terms.holders, holder.policy.dataset.records)
        said = statement.Statement(version=VERSION, run="r", step=step, round=number, sizes=sizes, terms=terms)
        return said.model_dump_json()

    terms = study.terms(CODEBOOK)
    holder.answer(say("admit", terms), {})
    louder = toy_study(privacy=PRIVATE | {"epsilon": 9.0}).terms(CODEBOOK)
    with pytest.raises(Refused):
        holder.answer(say("fit", louder, 1), {"vector": get_vector(build(terms, 1))})


def spoil(records: Records, **columns: Any) -> Records:
    return dataclasses.replace(records, **columns)


BAD = {
    "x: got missing or infinite values": lambda r: spoil(
        r, windows=np.where(r.windows == r.windows[0, 0, 0], np.nan, r.windows)
    ),
    r"want \(records, 6, 128\)": lambda r: spoil(r, windows=r.windows[:, :5]),
    "outside the codebook; want 0 to 2": lambda r: spoil(r, labels=r.labels + 5),
    r"values outside \[-50.0, 50.0\]": lambda r: spoil(r, windows=r.windows * 1e4),
    "labels: got 1 dimensions of float64": lambda r: spoil(r, labels=r.labels.astype(np.float64)),
    "labels: got another number of entries than windows": lambda r: spoil(r, labels=r.labels[:-1]),
}


@pytest.mark.parametrize("message", list(BAD))
def test_data_that_do_not_fit_the_codebook_are_named_before_anything_is_spent(homes: Homes, message: str) -> None:
    study = toy_study(privacy=PRIVATE)
    places = homes(study)
    BAD[message](toy_records(3, 20)).save(places["office-2"] / "data.npz")
    with pytest.raises(UsageError, match=f"(?s)office-2: .*{message}"):
        drive(study, places)
    assert [spent(home) for home in places.values()] == [0.0, 0.0]


def test_missing_and_corrupt_data_files_are_named(homes: Homes) -> None:
    study = toy_study()
    places = homes(study)
    (places["office-1"] / "data.npz").write_bytes(b"PK not a zip")
    (places["office-2"] / "data.npz").unlink()
    with pytest.raises(UsageError, match=r"(?s)office-1: .*not a readable.*office-2: .*not found"):
        drive(study, places)


def test_an_unforeseen_error_at_a_holder_travels_without_its_text(
    homes: Homes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def leak(*_: object, **__: object) -> None:
        raise RuntimeError("person 4711 earns 123456")

    monkeypatch.setattr("statfed.strategies.learning.local.fit", leak)
    study = toy_study()
    with pytest.raises(StatfedError) as caught:
        drive(study, homes(study))
    assert "4711" not in str(caught.value)
    assert "internal error at the holder" in str(caught.value)


def test_a_broken_policy_is_not_quoted_to_the_coordinator(homes: Homes, caplog: pytest.LogCaptureFixture) -> None:
    study = toy_study()
    places = homes(study)
    path = places["office-1"] / "policy.toml"
    path.write_text(path.read_text().replace("records = 10 ", "records = 7919.5 "))
    with pytest.raises(Refused, match=r"office-1: this holder's policy cannot be read") as caught:
        drive(study, places)
    assert "7919" not in str(caught.value)
    assert str(path) not in str(caught.value)
    assert "7919" in caplog.text  # the holder's own log has it


def test_without_noise_every_update_is_a_disclosure(homes: Homes) -> None:
    study = toy_study(rounds=3)
    places = homes(study)
    assert drive(study, places).closings["office-1"].disclosures == 3
    private = toy_study(privacy=PRIVATE)
    after = drive(private, places, "r2")
    closing = after.closings["office-1"]
    assert closing.study_epsilon == pytest.approx(after.plans["office-1"].epsilon)
    assert closing.history_epsilon is None  # exact models left these data: no finite epsilon covers their history
    assert "no finite epsilon" in disclosure_warnings(after.closings, private.terms(CODEBOOK))[0]
    assert disclosure_warnings(after.closings, study.terms(CODEBOOK)) == []


def test_a_pilot_holder_refuses_a_public_seed(homes: Homes) -> None:
    from statfed.client.guard.policy import load_policy, write_policy

    study = toy_study(privacy=PRIVATE)
    places = homes(study)
    path = places["office-1"] / "policy.toml"
    policy = load_policy(path)
    write_policy(policy.model_copy(update={"allow": policy.allow.model_copy(update={"public_seed": False})}), path)
    with pytest.raises(Refused, match="public seed"):
        drive(study, places)


@pytest.mark.parametrize("strategy", ["fedavg", "fedavgm", "fedyogi"])
def test_an_interrupted_run_goes_on_to_the_same_model_and_pays_each_round_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, strategy: str
) -> None:
    from statfed.federation import training as _run
    from statfed.federation.checkpoint import save

    study = toy_study(
        rounds=4,
        privacy=PRIVATE,
        strategy={"name": strategy},
        data={"source": "generated", "persons": 5, "records_per_person": 10, "test_persons": 4},
    )
    options = _run.Options(tmp_path / "runs", tmp_path / "ws", fresh=True, references=False)
    whole, _ = _run.run_study(study, options)

    def unplugged(folder: Path, checkpoint: Any, curve: Any) -> None:
        save(folder, checkpoint, curve)
        if checkpoint.round == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr("statfed.federation.checkpoint.save", unplugged)
    with pytest.raises(KeyboardInterrupt):
        _run.run_study(study, options)
    folder = sorted((tmp_path / "runs").iterdir())[-1]
    if folder.name == whole.run:
        folder = sorted((tmp_path / "runs").iterdir())[0]
    assert _run.read_status(folder)["state"] == "interrupted"
    monkeypatch.setattr("statfed.federation.checkpoint.save", save)
    resumed, _ = _run.resume_study(folder, options)
    with read_only(folder / "holders" / "office-1" / "ledger.sqlite") as ledger:
        assert ledger.spending().reserved == 0
    assert resumed.model_digest == whole.model_digest
    assert [r.round for r in resumed.rounds] == [0, 1, 2, 3, 4]
    assert resumed.spending[0].history_epsilon == pytest.approx(whole.spending[0].history_epsilon, rel=1e-6)
    with pytest.raises(UsageError, match="already finished"):
        _run.resume_study(folder, options)


def test_a_killed_coordinators_reservation_is_freed_when_the_run_goes_on(homes: Homes) -> None:
    from statfed.client.holder import Holder
    from statfed.core import VERSION
    from statfed.server.app import Checkpoint

    study = toy_study(privacy=PRIVATE, rounds=3)
    places = homes(study)
    terms = study.terms(CODEBOOK)
    initial = get_vector(build(terms, 1))
    for home in places.values():  # a coordinator that was killed in round 2, after all had trained it
        for step, number in (("admit", 0), ("fit", 1), ("fit", 2)):
            sizes = dict.fromkeys(terms.holders, Holder(home).policy.dataset.records)
            said = statement.Statement(version=VERSION, run="r", step=step, round=number, sizes=sizes, terms=terms)
            Holder(home).answer(said.model_dump_json(), {"vector": initial})

    def go_on(session: Any) -> Training:
        start = Checkpoint("r", 1, initial, {})
        return train(session, terms, "r~2", initial, timeout=60, progress=silent, resume=start)

    done = inprocess.run(Deployment("r~2", places, Path("unused")), go_on, silent)
    with read_only(places["office-1"] / "ledger.sqlite") as ledger:
        assert (ledger.spending().charged, ledger.spending().reserved) == (4, 0)
    planned, spent_on = done.plans["office-1"].epsilon, done.closings["office-1"].study_epsilon
    assert planned is not None
    assert spent_on is not None
    assert spent_on > 1.1 * planned  # round 2 was paid twice, and the report says so


def test_no_answer_depends_on_how_far_the_file_is_from_its_declared_size(homes: Homes) -> None:
    study = toy_study(privacy=PRIVATE | {"unit": "person"}, training={"batch_size": 2})
    places = homes(study)
    before = drive(study, places, "r1").plans["office-1"].model_dump(exclude={"ledger_head"})
    toy_records(1, 20).save(places["office-1"] / "data.npz")  # two persons fewer than the policy declares
    after = drive(study, places, "r2").plans["office-1"].model_dump(exclude={"ledger_head"})
    assert before == after
