"""Parts of an answer that are validated when a stored one is read: scores, rounds, what it cost each holder."""

from typing import Literal

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


class NumberScores(_Part):
    """Scores of one model of a number on the held-out records, in the number's unit. r2: 1 for no error, 0 for the
    errors of their mean, None where they are all equal."""

    rmse: float
    mae: float
    r2: float | None


class _Way(_Part):
    """A way of getting a model."""

    id: str = Field(description="federated, pooled, local/<holder>, local-dp/<holder>, glm, majority, mean")
    title: str
    kind: Literal["federated", "pooled", "local", "local-dp", "glm", "majority", "mean"]
    note: str = ""


class Candidate(_Way):
    """One line of the comparison: a way of getting a model, and how well it tells classes."""

    scores: Scores


class NumberCandidate(_Way):
    """One line of the comparison: a way of getting a model, and how well it predicts a number."""

    scores: NumberScores


class Round(_Part):
    """One round: scores of the global model after it, where records are held out, and what it took. rmse, r2: of a
    number."""

    round: int
    accuracy: float | None = None
    macro_f1: float | None = None
    rmse: float | None = None
    r2: float | None = None
    seconds: float
    bytes_down: int = Field(description="array bytes sent to all holders")
    bytes_up: int = Field(description="array bytes received from all holders")
    holder_seconds: dict[str, float] = Field(default_factory=dict, description="time each holder computed")


class Spending(_Part):
    """What the run cost one holder. Epsilons are None without differential privacy."""

    holder: str
    records: int = Field(description="public number of records")
    persons: int = Field(description="public number of persons")
    units: int = Field(description="public number of privacy units")
    unit: Literal["record", "person"] | None
    delta: float | None = Field(description="the study's delta")
    lifetime_delta: float | None = Field(default=None, description="delta of history, filter and budget")
    noise_multiplier: float | None = None
    sampling_rate: float | None = None
    steps: int | None = Field(default=None, description="steps of training, all rounds together")
    study_epsilon: float | None = Field(
        description="PLD composition over all rounds charged in this run, interrupted attempts too"
    )
    history_epsilon: float | None = Field(
        description="PLD composition over everything ever charged; None once anything left without noise"
    )
    filter_epsilon: float | None = Field(description="Renyi composition of everything noised")
    share: float | None = Field(
        default=None, description="of the lifetime budget, taken so far by the gate that enforces it: the meter"
    )
    budget_epsilon: float | None = Field(description="lifetime budget in the holder's policy")
    more: int | None = Field(
        default=None, description="studies like this one that the holder would still answer; null without noise"
    )
    noise_to_signal: float | None = None
    disclosures: int = Field(description="ledger entries that are not differentially private")
    figures: int = Field(default=0, description="distinct exact figures that the dataset has given so far")
    most_figures: int | None = Field(default=None, description="most that it ever gives; None where none are counted")
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


class Trained(_Part):
    """What a run of training has beside its released result.

    classes: of the target, none where a number is predicted; test_records, test_persons: held out by the simulator, of
    a reference scenario, or kept apart by the holders; candidates, or numbers: ways of getting a model that the
    simulator compares, the federated one first, none without held-out records.
    """

    classes: list[str]
    test_records: int = 0
    test_persons: int = 0
    candidates: list[Candidate] = Field(default_factory=list, description="federated first")
    numbers: list[NumberCandidate] = Field(default_factory=list, description="where a number is predicted")
    rounds: list[Round] = Field(default_factory=list, description="round 0 is the initial model")
    model_digest: str = Field(description="SHA-256 of the final model's parameters")

    @property
    def comparison(self) -> list[dict[str, str | float | None]]:
        """The compared ways as rows: their scores, of classes or of a number, and notes."""
        rows: list[dict[str, str | float | None]] = []
        for one in self.candidates:
            figures = {"accuracy": one.scores.accuracy, "macro_f1": one.scores.macro_f1}
            rows.append({"id": one.id, "title": one.title, **figures, "note": one.note})
        for number in self.numbers:
            rows.append({"id": number.id, "title": number.title, **number.scores.model_dump(), "note": number.note})
        return rows
