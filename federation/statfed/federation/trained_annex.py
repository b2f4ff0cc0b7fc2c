"""The facts of a trained model, for the annexes that a run is exported to: see `statfed.federation.annex`."""

from statfed.core.errors import UsageError
from statfed.core.protection import Disclosure
from statfed.core.scenario import load_training
from statfed.core.study import Study, make_study
from statfed.core.terms import Terms
from statfed.federation.annex.facts import SIMULATED, Account, Facts, Release, Variable, parties_of, technique_of
from statfed.federation.trained import Result, Spending


def training_facts(result: Result) -> Facts:
    """The facts of a finished training.

    Raises UsageError where its scenario or protection is not installed, or the study's digest is another with the
    installed version than the holders saw.
    """
    scenario = load_training(result.scenario)
    study = make_study(result.study, where="result.json: study")
    terms = study.terms(scenario.codebook(study))
    if terms.digest() != result.study_digest:
        raise UsageError(
            "result.json: got a study whose digest differs from study_digest; want the version of statfed and of the "
            f"scenario {result.scenario} that it was run with"
        )
    records = {one.holder: one.records for one in result.spending}
    about = scenario.ABOUT
    trained = [one for one in result.rounds if one.round]
    return Facts(
        run=result.run,
        created=result.created,
        title=result.title,
        kind="training of a model",
        subject=result.scenario,
        engine=result.engine,
        simulated=result.simulated or result.engine in SIMULATED,
        computation=_computation(study),
        origin=f"{result.origin}{' (generated, not observed)' if result.synthetic else ''}",
        holders=parties_of(terms.holders, list(records), records),
        variables=_variables(terms),
        filters=(),
        technique=technique_of(terms),
        privacy=study.privacy.model_dump(mode="json") if study.privacy else None,
        against=_against(study),
        seed=study.seed,
        accounts=tuple(_account(one) for one in result.spending),
        release=Release(),
        rounds=len(trained),
        bytes_down=sum(one.bytes_down for one in trained),
        bytes_up=sum(one.bytes_up for one in trained),
        seconds=sum(one.seconds for one in trained),
        learns=tuple(Disclosure(row.role, row.learns, row.protected_by) for row in result.learns),
        digests={"study": result.study_digest, "model": result.model_digest},
        versions=dict(result.versions),
        notes=tuple(result.warnings),
        kept=("result.json", "report.html", "study.toml", "model.npz", "checkpoint.npz", "logs"),
        purpose=about.purpose,
        source=about.source,
        gsbpm=about.gsbpm,
        cast=dict(about.roles),
        case=about.card,
    )


def _computation(study: Study) -> dict[str, str]:
    """What was trained and how, by label."""
    training = study.training
    how = f"learning rate {training.learning_rate:g}"
    if training.method == "local-sgd":
        how += f", {training.local_epochs} local epochs, batches of {training.batch_size}"
    else:
        how += f", sampling rate {training.sampling_rate:g}"
    return {
        "model": f"{study.model.name}, hidden {study.model.hidden}",
        "training": f"{training.method}, {how}",
        "strategy": study.strategy.name,
        "rounds agreed": str(study.rounds),
    }


def _variables(terms: Terms) -> tuple[Variable, ...]:
    """Channels of a window, its class and the person it is of: training reads them all."""
    book = terms.codebook
    channels = [
        Variable(one.name, f"{book.samples} numbers a record, {one.low:g} to {one.high:g} {one.unit}", "sensor channel")
        for one in book.channels
    ]
    codes = f"category, {len(book.classes)} codes: {', '.join(book.classes)}"
    return (*channels, Variable("label", codes, "class"), Variable("person", "id", "whose record it is", "unit"))


def _against(study: Study) -> str:
    """Whom the epsilon does not hold against, where that is somebody."""
    privacy = study.privacy
    if privacy is None or privacy.noise != "shared":
        return ""
    known = f"the noise of at most {privacy.colluders} of them" if privacy.colluders else "no holder's noise"
    return f"the holders shared the noise: epsilon holds against all who together know {known}"


def _account(spent: Spending) -> Account:
    return Account(
        holder=spent.holder,
        unit=spent.unit,
        epsilon=spent.study_epsilon,
        delta=spent.delta,
        history=spent.history_epsilon,
        filter=spent.filter_epsilon,
        budget=spent.budget_epsilon,
        lifetime_delta=spent.lifetime_delta,
        disclosures=spent.disclosures,
        ledger_head=spent.ledger_head,
    )
