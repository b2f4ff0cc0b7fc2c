"""The result of a run: `result.json`, validated; its JSON Schema is docs/schema/result.json."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")


class ClassScore(_Part):
    """Scores of one class on the held-out persons."""

    name: str
    precision: float
    recall: float
    f1: float
    support: int


class Scores(_Part):
    """Scores of one model on the held-out persons. confusion[i][j]: records of class i taken for class j."""

    accuracy: float
    macro_f1: float
    classes: list[ClassScore]
    confusion: list[list[int]]


class Candidate(_Part):
    """One line of the comparison: a way of getting a model, and how well it does."""

    id: str = Field(description="federated, pooled, local/<holder>, local-dp/<holder>, majority")
    title: str
    kind: Literal["federated", "pooled", "local", "local-dp", "majority"]
    scores: Scores
    note: str = ""


class Round(_Part):
    """One round: scores of the global model after it, and what it took."""

    round: int
    accuracy: float
    macro_f1: float
    seconds: float
    bytes_down: int = Field(description="array bytes sent to all holders")
    bytes_up: int = Field(description="array bytes received from all holders")
    holder_seconds: dict[str, float] = Field(default_factory=dict, description="time each holder computed")


class Spending(_Part):
    """What the run cost one holder. Epsilons are None without differential privacy."""

    holder: str
    records: int = Field(description="public number of records")
    units: int = Field(description="public number of privacy units")
    unit: Literal["record", "person"] | None
    delta: float | None = Field(description="the study's delta")
    lifetime_delta: float | None = Field(default=None, description="delta of history, filter and budget")
    noise_multiplier: float | None
    sampling_rate: float
    steps: int
    study_epsilon: float | None = Field(
        description="PLD composition over all rounds charged in this run, interrupted attempts too"
    )
    history_epsilon: float | None = Field(
        description="PLD composition over everything ever charged; None once anything left without noise"
    )
    filter_epsilon: float | None = Field(description="Renyi filter over everything noised; the lifetime gate")
    budget_epsilon: float | None = Field(description="lifetime budget in the holder's policy")
    noise_to_signal: float | None
    disclosures: int = Field(description="ledger entries that are not differentially private")
    ledger_head: str


class Phase(_Part):
    """Time of one phase of the run."""

    name: str
    seconds: float


class Disclosure(_Part):
    """One row of who learns what."""

    role: str
    learns: str
    protected_by: str


class Result(_Part):
    """A finished run."""

    format: Literal["statfed.result/1"] = "statfed.result/1"
    run: str
    created: str = Field(description="ISO 8601, UTC")
    title: str
    scenario: str
    engine: str
    synthetic: bool = Field(description="the data are generated, not observed")
    simulated: bool = Field(default=True, description="parties are simulated; noise follows from the public seed")
    origin: str = Field(description="the data, in one line")
    warnings: list[str]
    study: dict[str, Any]
    study_digest: str
    classes: list[str]
    test_records: int
    test_persons: int
    candidates: list[Candidate] = Field(description="federated first")
    rounds: list[Round] = Field(description="round 0 is the initial model")
    spending: list[Spending]
    accountant: str
    phases: list[Phase]
    memory_mib: dict[str, float] = Field(default_factory=dict, description="peak resident memory per process")
    learns: list[Disclosure]
    versions: dict[str, str]
    model_digest: str = Field(description="SHA-256 of the final model's parameters")
