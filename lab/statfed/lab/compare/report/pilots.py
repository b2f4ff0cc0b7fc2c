"""Figures of pilots in official statistics beside ours: "pilot figure | ours | why different".

What a pilot published is taken as given, with its source. Ours is either measured by this comparison, or recomputed
here from what the pilot published. A figure of trials that are not in the tables says so.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

from statfed.core.privacy import accountant as privacy
from statfed.federation.report import formats
from statfed.lab.compare.tables import Summary, Tables

NOT_MEASURED = "not measured"
_UNECE = "UNECE HLG-MOS Input Privacy Preservation project"
_HAR = f"{_UNECE}, machine learning (activity recognition)"
_NOTEBOOKS = "repository StatCan/UN-PML-Pilot, notebooks"
_ISTAT = f"{_UNECE}, set intersection with analytics (Istat, Bank of Italy)"
_TYPOS = f"{_UNECE}, set intersection with typos (CBS, Statistics Canada)"
_REMOTE = f"{_UNECE}, remote analytics (Istat)"
_HAMBURG = "Destatis / Hamburg University of Technology, federated learning"


@dataclass(frozen=True)
class Pilot:
    """One line of the page. value: as published; ours: written from the tables, or NOT_MEASURED; given: what is taken
    from the pilot and not checked by us; why: what makes the two differ."""

    pilot: str
    figure: str
    value: str
    source: str
    ours: Callable[[Tables], str] | str
    why: str
    given: str = ""

    def shown(self, tables: Tables) -> str:
        """Our figure, as written in all reports."""
        return self.ours if isinstance(self.ours, str) else self.ours(tables)


# What the pilot's training function does, by its notebook: a new privacy engine in every fit of a client.
BATCH, EPOCHS, WINDOWS, ROUNDS = 32, 2, 1029, 10
DELTA = 1e-5
CLAIMED = {10.0: 0.556182861328125, 1.0: 1.46484375, 0.3: 3.359375}
"""Epsilon that was asked for, to the noise multiplier which Opacus finds for it (Renyi accountant, delta 1e-5)."""
STEPS = -(-WINDOWS // BATCH)
"""Steps of an epoch; the sampling rate is its inverse."""


@cache
def composed(claimed: float, rounds: int) -> float:
    """Epsilon of a client's window over `rounds` fits with the noise that was chosen for one fit, by privacy loss
    distributions at delta 1e-5. It presumes fresh noise in every round."""
    return privacy.epsilon([privacy.dp_sgd(1 / STEPS, CLAIMED[claimed], rounds * EPOCHS * STEPS)], DELTA)


STUDENTS, STUDENT_BATCH, STUDENT_STEPS = 252, 22, 200 * 252 // 22


@cache
def student(noise_multiplier: float) -> float:
    """Epsilon of the remote-analytics pilot's training by privacy loss distributions, at its delta of 1 / (1.1 n)."""
    rate = STUDENT_BATCH / STUDENTS
    return privacy.epsilon([privacy.dp_sgd(rate, noise_multiplier, STUDENT_STEPS)], 1 / (1.1 * STUDENTS))


CENSUS = ((139049, 28194, 35326.844527), (46795, 9612, 12043.755041), (159037, 31595, 39588.268876),
          (52261, 10416, 13051.160267))  # fmt: skip
SAMPLE = ((68677, 14013, 17345.776840), (22951, 4649, 5754.693251), (77687, 15377, 19034.183290),
          (25910, 5185, 6418.172619))  # fmt: skip
"""Links by blocking key, links by linkage key, corrected count: the four cells that the pilot's guide prints."""


def corrected(links: float, block: float, recall: float, ratio: float) -> float:
    """Total that is adjusted for errors of linkage: (links - r * block) / (recall - r).

    links, block: pairs that agree on the linkage key and on the blocking key; recall of the linkage key; r = false
    positive rate of the linkage key over that of the blocking key, whose recall is taken to be 1.
    """
    return (links - ratio * block) / (recall - ratio)


def rates(cells: Sequence[tuple[float, float, float]]) -> tuple[float, float]:
    """(recall, r) that the first two published cells imply: links = (recall - r) * corrected + r * block."""
    (block, links, right), (other_block, other_links, other_right) = cells[:2]
    ratio = (links * other_right - other_links * right) / (block * other_right - other_block * right)
    return (links - ratio * block) / right + ratio, ratio


def _adjusted(cells: Sequence[tuple[float, float, float]]) -> str:
    recall, ratio = rates(cells)
    again = [corrected(links, block, recall, ratio) for block, links, _ in cells]
    apart = max(abs(ours - cell[2]) for ours, cell in zip(again, cells, strict=True))
    return (
        f"{formats.count(sum(again))} (recomputed: recall {recall:.3f} and r {ratio:.1e} follow from two published "
        f"cells; all four then agree within {apart:.1g})"
    )


def _written(found: Summary | None, form: Callable[[float | None], str], seeds: bool = True) -> str:
    if found is None:
        return NOT_MEASURED
    spread = f" ± {form(found.error)}" if found.error else ""
    return form(found.mean) + spread + (f" ({found.n} seed{'' if found.n == 1 else 's'})" if seeds else "")


def _figure(
    scenario: str, name: str, level: str, protection: str = "plain", column: str = "value"
) -> Callable[[Tables], str]:
    def read(tables: Tables) -> str:
        tried = tables.find(scenario, level, protection)
        return _written(tried.figure(name, column) if tried else None, formats.percent)

    return read


def _alone(tables: Tables) -> str:
    """Accuracy of the mean holder alone: pooled accuracy less the shortfall of holders that compute alone."""
    tried = tables.find("time-use", "exact")
    pooled, short = (tried.figure("accuracy", "pooled"), tried.column("local")) if tried else (None, None)
    if pooled is None or short is None:
        return NOT_MEASURED
    return _written(Summary(pooled.mean - short.mean, None, pooled.n), formats.percent)


def _three(scenario: str) -> Callable[[Tables], str]:
    """Federated, local and pooled accuracy of a training scenario."""

    def read(tables: Tables) -> str:
        tried = tables.find(scenario, "exact")
        federated = tried.figure("accuracy") if tried else None
        if tried is None or federated is None:
            return NOT_MEASURED
        pooled, short = tried.figure("accuracy", "pooled"), tried.column("local")
        alone = Summary(pooled.mean - short.mean, None, short.n) if pooled and short else None
        told = (("federated", federated), ("alone", alone), ("pooled", pooled))
        return f"{scenario}: " + ", ".join(f"{name} {_written(one, formats.percent, False)}" for name, one in told)

    return read


def _cost(scenario: str, protection: str) -> Callable[[Tables], str]:
    """Bytes and processor time of a protection over plain, on exact figures of a scenario."""

    def read(tables: Tables) -> str:
        tried, plain = tables.find(scenario, "exact", protection), tables.find(scenario, "exact")
        sent = tried.role("holder", "sent") if tried else None
        base = plain.role("holder", "sent") if plain else None
        if tried is None or sent is None or base is None or not base.mean:
            return NOT_MEASURED
        time = tried.measure("overhead")
        told = f"{protection}: {sent.mean / base.mean:,.1f}× the bytes"
        return told + (f", {time.mean:,.1f}× the processor time" if time else "")

    return read


def _remote(level: str) -> Callable[[Tables], str]:
    def read(tables: Tables) -> str:
        tried = tables.find("remote-analytics", level)
        if tried is None:
            return NOT_MEASURED
        accuracy, attack = tried.figure("accuracy"), tried.measure("leakage.membership_auc")
        if accuracy is None and attack is None:
            return NOT_MEASURED
        epsilon = f"epsilon {formats.epsilon(tried.epsilon.mean)}" if tried.epsilon else "no DP"
        return (
            f"{epsilon}: accuracy {_written(accuracy, formats.percent)}, membership AUC "
            f"{_written(attack, lambda value: formats.number(value, 2))}"
        )

    return read


def _multi_party(tables: Tables) -> str:
    found = [
        (tried.scenario, error, time)
        for tried in tables.tried
        if (tried.protection, tried.level) == ("multi-party", "exact") and tried.done
        for error, time in [(tried.column("error"), tried.measure("overhead"))]
    ]
    told = [
        f"{name}: error {_written(error, formats.number, False)}, {time.mean:,.1f}× the processor time"
        for name, error, time in found
        if time is not None
    ]
    return "; ".join(told) or NOT_MEASURED


def _intersection(tables: Tables) -> str:
    """What linkages give of the intersection: its size, how much of the tables, bytes of the holders."""
    told = []
    for name in ("helper", "ecdh"):
        tried = tables.find("set-intersection", "exact", name)
        size, sent = (tried.figure("size"), tried.role("holder", "sent")) if tried else (None, None)
        missed = tried.column("error") if tried else None
        if size is not None and missed is not None:
            spent = f", {sent.mean / 1000:,.0f} kB" if sent else ""
            told.append(f"{name}: {size.mean:,.0f} in both, {formats.percent(1 - missed.mean)} of the figures{spent}")
    return "; ".join(told) or NOT_MEASURED


def _epsilons(rounds: int) -> Callable[[Tables], str]:
    def read(_: Tables) -> str:
        return " / ".join(formats.epsilon(composed(claimed, rounds)) for claimed in CLAIMED)

    return read


_DATA = "other data: the pilot's UCI HAR is not to be had offline; ours are 10 persons with a smart watch, 7 classes"
_PERSONS = (
    "the pilot deals windows, so that one person's are at several clients and in the test set; ours deals whole persons"
)

PILOTS: Sequence[Pilot] = (
    Pilot(
        _HAR,
        "centralised accuracy",
        "85.2 % (weakly tuned); 96.4 % by the pilot's own search",
        f"{_NOTEBOOKS} (baseline; HAR_model_tuning, trial 84)",
        _figure("time-use", "accuracy", "exact", column="pooled"),
        f"{_DATA}; {_PERSONS}. The pilot's tuned pooled model is as good as its federated ones: the gain over 85.2 % "
        "is one of tuning",
    ),
    Pilot(
        _HAR,
        "FedAvg without DP, 8 clients, 15 rounds: accuracy",
        "95.5 %; weighted by class 96.1 % (macro-F1 0.963)",
        f"{_NOTEBOOKS} (FederatedWeightedAverageImbalance)",
        _figure("time-use", "accuracy", "exact"),
        f"{_DATA}; {_PERSONS}; the pilot's figure is that of the best round on the test records (FedAvg: 13 of "
        "15), ours of the last",
    ),
    Pilot(
        _HAR,
        "a client that trains alone: accuracy",
        "not reported",
        "",
        _alone,
        "without local-only models nobody knows what federation is worth to whom: Destatis's pilot below has them",
    ),
    Pilot(
        _HAR,
        "FedAvg with DP: accuracy at claimed epsilon 10 / 1 / 0.3",
        "curves only",
        "UN expert meeting 2023",
        lambda tables: " / ".join(
            f"epsilon {level[8:]}: {_figure('time-use', 'accuracy', level)(tables)}"
            for level in ("epsilon-10", "epsilon-3", "epsilon-1")
        ),
        "our epsilons hold for all rounds together; the pilot's for one. Compare at equal composed epsilon",
    ),
    Pilot(
        _HAR,
        "epsilon of a window over 10 rounds",
        "claimed 10 / 1 / 0.3; composed 24.1 / 2.9 / 0.99 (Renyi accountant)",
        f"{_NOTEBOOKS}: a new privacy engine in every fit",
        _epsilons(ROUNDS),
        "composition over the rounds, by privacy loss distributions, which are tighter than the Renyi accountant. The "
        "notebook seeds the noise alike in every round and client: these figures presume fresh noise",
        f"{WINDOWS:,} windows a client, batches of {BATCH}, {EPOCHS} epochs a round, delta 1e-5, and the noise "
        "multipliers that Opacus finds for one fit: " + ", ".join(f"{sigma:.3f}" for sigma in CLAIMED.values()),
    ),
    Pilot(
        _HAR,
        "the same over the notebooks' 15 rounds",
        "claimed 10 / 1 / 0.3",
        f"{_NOTEBOOKS}: n_rounds = 15",
        _epsilons(15),
        "as above. The unit is a window of 2.56 seconds: a person has hundreds, and is protected accordingly less",
        "as above",
    ),
    Pilot(
        _HAR,
        "Paillier, last bias encrypted: ciphertext and run time",
        "14× size, 1.2× run",
        f"{_NOTEBOOKS} (SecureFederatedWeightedAverageImbalance)",
        _cost("time-use", "homomorphic-encryption"),
        "ours encrypts every parameter, with packed BFV ciphertexts in place of one Paillier ciphertext a number",
        "the pilot's figures; Paillier is not run here",
    ),
    Pilot(
        _HAR,
        "Paillier, last layer's weights encrypted",
        "5,606× size, 13.4× run",
        f"{_NOTEBOOKS} (SecureFederatedWeightedAverageImbalance)",
        _cost("time-use", "secure-aggregation"),
        "masks that cancel hide the same contributions from the same coordinator, for words of at most twice the size",
        "the pilot's figures",
    ),
    Pilot(
        _HAR,
        "Paillier, all layers encrypted",
        "528,000× size, 9 minutes to encrypt once",
        f"{_NOTEBOOKS} (SecureFederatedWeightedAverageImbalance)",
        _cost("time-use", "homomorphic-encryption"),
        "one ciphertext a number against thousands of numbers a ciphertext. All of the pilot's clients share one "
        "private key: any of them can decrypt what the server has of another",
        "the pilot's figures",
    ),
    Pilot(
        _REMOTE,
        "no noise: accuracy and best-slice membership AUC",
        "0.873; 0.73",
        f"{_NOTEBOOKS} (gridsearch_MIA_on_NN_DP)",
        _remote("exact"),
        "the pilot reports the best of several attacks and slices on 79 test records: by chance alone above 0.5",
    ),
    Pilot(
        _REMOTE,
        "noise multiplier 1: epsilon",
        "29.9",
        f"{_NOTEBOOKS} (gridsearch_MIA_on_NN_DP)",
        lambda _: f"{formats.epsilon(student(1.0))} as the pilot assumes; {formats.epsilon(student(0.5))} as it ran",
        "privacy loss distributions are tighter than the Renyi accountant. But with one microbatch the clipped mean of "
        "a whole batch is noised: a record can move it by twice the clipping norm, so that the noise counts half",
        f"{STUDENTS} records, batches of {STUDENT_BATCH}, {STUDENT_STEPS:,} steps, delta 1 / (1.1 n), Poisson batches",
    ),
    Pilot(
        _REMOTE,
        "noise multiplier 1: accuracy and membership AUC",
        "0.633; 0.54",
        f"{_NOTEBOOKS} (gridsearch_MIA_on_NN_DP)",
        lambda tables: "; ".join(
            dict.fromkeys(_remote(level)(tables) for level in ("epsilon-30", "epsilon-10", "epsilon-1"))
        ),
        "the majority class has about 67 %: the pilot's private model is worse than no model",
    ),
    Pilot(
        _HAMBURG,
        "particulate matter: accuracy of FL / local / pooled",
        "67.0 / 70.05 / 72.4 %",
        "arXiv 2307.15503 and its notebooks",
        _three("time-use"),
        "other data. The pilot's lesson, which we keep: compare with a tuned pooled model and with local-only ones",
        "the pilot's figures",
    ),
    Pilot(
        _HAMBURG,
        "mobile network quality: R² of FL / pooled random forest",
        "0.114 / 0.158",
        "arXiv 2307.15503 and its notebooks",
        _three("coding"),
        "other data and another measure: no regression model of that kind is among the scenarios",
        "the pilot's figures",
    ),
    Pilot(
        _HAMBURG,
        "insurance charges: mean absolute error of FL / pooled",
        "3,752 / 3,058",
        "arXiv 2307.15503 and its notebooks",
        NOT_MEASURED,
        "no regression of that kind is among the scenarios",
        "the pilot's figures",
    ),
    Pilot(
        _ISTAT,
        "private set intersection with grouped counts, files of 1.0k and 3.5k rows",
        "RSA-blind intersection; a third party returns the counts",
        "repository UNECE/Input-Privacy-Preserving-Project",
        _intersection,
        "generated registers of the same sizes. What the pilot's code would not pass here: ECB mode with an MD5 key, "
        "plain HTTP, randomness that is not cryptographic, the intersection shown to both holders, no minimum count",
    ),
    Pilot(
        _TYPOS,
        "corrected total of two censuses linked with typos, 100,000 records",
        "100,010 (uncorrected 79,817; truth about 100,000)",
        "repository UNECE/Input-Privacy-Preserving-Project, PSI_WITH_TYPOS",
        lambda _: _adjusted(CENSUS),
        "the same formula on the published counts: it agrees. The protocol itself is an entry of the inventory",
        "the counts by key; recall and false positive rates are estimates of the pilot's error model",
    ),
    Pilot(
        _TYPOS,
        "the same with two 70 % samples",
        "48,553 (uncorrected 39,224; truth about 49,000)",
        "repository UNECE/Input-Privacy-Preserving-Project, PSI_WITH_TYPOS",
        lambda _: _adjusted(SAMPLE),
        "as above",
        "as above",
    ),
    Pilot(
        "Allegheny County / US demonstration, multi-party computation",
        "answers and cost against the clear computation",
        "same answers, about 10,000 times slower than an enclave",
        "US demonstration report",
        _multi_party,
        "shares among compute nodes that add up need no joins or comparisons; functions beyond sums cost more. Our "
        "nodes are processes of one machine: no line between them. Enclaves are not measured",
    ),
)
