"""Pupils' records in the shape of UCI Student Performance (Cortez and Silva 2008): generated, or the user's own copy.

The data set is about pupils of two Portuguese schools: 30 questions about person, home and habits, the grades of two
periods, and the final grade, all 0 to 20; 10 and above is a pass. Its file on mathematics has 395 pupils, of whom 67 %
passed; the one on Portuguese has 649. Neither can be passed on here. Generated records have its columns and codes,
margins near those of the mathematics file, and grades that hang together as there (correlation of the final grade with
those of the periods about .8 and .9).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from statfed.core.errors import UsageError
from statfed.core.records import Channel, WindowCodebook

PASS = 10
CLASSES = ("fail", "pass")
_JOBS = {"at_home": 0.12, "health": 0.07, "other": 0.42, "services": 0.28, "teacher": 0.11}


@dataclass(frozen=True)
class Answer:
    """A question with codes. shares: of each code; pull: shift of the latent ability's share in the answer."""

    shares: Mapping[str, float]
    pull: float = 0.0


@dataclass(frozen=True)
class Scale:
    """A question on an ordered scale, from `low`: shares of low, low + 1, ...; pull: correlation with ability."""

    low: int
    shares: tuple[float, ...]
    pull: float = 0.0


def _yes(share: float, pull: float = 0.0) -> Answer:
    return Answer({"no": 1 - share, "yes": share}, pull)


QUESTIONS: Mapping[str, Answer | Scale] = {
    "school": Answer({"GP": 0.88, "MS": 0.12}),
    "sex": Answer({"F": 0.53, "M": 0.47}, 0.10),
    "age": Scale(15, (0.21, 0.26, 0.25, 0.21, 0.05, 0.01, 0.005, 0.005), -0.20),
    "address": Answer({"R": 0.22, "U": 0.78}, 0.12),
    "famsize": Answer({"GT3": 0.71, "LE3": 0.29}, 0.08),
    "Pstatus": Answer({"A": 0.10, "T": 0.90}, -0.05),
    "Medu": Scale(0, (0.01, 0.15, 0.26, 0.25, 0.33), 0.25),
    "Fedu": Scale(0, (0.01, 0.21, 0.29, 0.25, 0.24), 0.20),
    "Mjob": Answer(_JOBS),
    "Fjob": Answer({"at_home": 0.05, "health": 0.05, "other": 0.55, "services": 0.28, "teacher": 0.07}),
    "reason": Answer({"course": 0.37, "home": 0.27, "other": 0.09, "reputation": 0.27}),
    "guardian": Answer({"father": 0.23, "mother": 0.69, "other": 0.08}),
    "traveltime": Scale(1, (0.65, 0.27, 0.06, 0.02), -0.12),
    "studytime": Scale(1, (0.27, 0.50, 0.16, 0.07), 0.12),
    "failures": Scale(0, (0.79, 0.13, 0.04, 0.04), -0.45),
    "schoolsup": _yes(0.13, -0.15),
    "famsup": _yes(0.61, -0.05),
    "paid": _yes(0.46, 0.10),
    "activities": _yes(0.51),
    "nursery": _yes(0.79, 0.05),
    "higher": _yes(0.95, 0.25),
    "internet": _yes(0.83, 0.10),
    "romantic": _yes(0.33, -0.12),
    "famrel": Scale(1, (0.02, 0.05, 0.17, 0.49, 0.27), 0.05),
    "freetime": Scale(1, (0.05, 0.16, 0.40, 0.29, 0.10)),
    "goout": Scale(1, (0.06, 0.26, 0.33, 0.22, 0.13), -0.15),
    "Dalc": Scale(1, (0.70, 0.19, 0.07, 0.02, 0.02), -0.08),
    "Walc": Scale(1, (0.38, 0.22, 0.20, 0.13, 0.07), -0.08),
    "health": Scale(1, (0.12, 0.11, 0.23, 0.17, 0.37), -0.05),
}
"""The 29 questions with codes. The thirtieth is the number of absences."""
ABSENCES = 40
"""Days of absence are top-coded here."""
_GRADES = {"G1": (10.9, 3.3, 0.88), "G2": (10.7, 3.8, 0.97), "G3": (11.3, 4.0, 0.93)}  # mean, deviation, with ability


def _channels() -> tuple[Channel, ...]:
    found = []
    for name, question in QUESTIONS.items():
        if isinstance(question, Scale):
            high = question.low + len(question.shares) - 1
            half = (high - question.low) / 2
            found.append(Channel(name=name, unit="code", low=question.low, high=high, scale=half))
        elif len(question.shares) == 2:
            found.append(Channel(name=name, unit="indicator", low=0, high=1))
        else:
            found += [Channel(name=f"{name}={code}", unit="indicator", low=0, high=1) for code in question.shares]
    found.append(Channel(name="absences", unit="days", low=0, high=ABSENCES, scale=20))
    found += [Channel(name=grade, unit="points", low=0, high=20, scale=4) for grade in ("G1", "G2")]
    return tuple(found)


CODEBOOK = WindowCodebook(channels=_channels(), samples=1, classes=CLASSES)
"""A channel for each number and each question of two codes (the second is 1), and for each code of the others."""


def generate(count: int, random: np.random.Generator) -> pd.DataFrame:
    """`count` pupils with the columns of the data set, the final grade G3 last."""
    ability = random.normal(size=count)
    table: dict[str, NDArray[np.generic]] = {}
    for name, question in QUESTIONS.items():
        levels = list(question.shares.values()) if isinstance(question, Answer) else list(question.shares)
        mixed = question.pull * ability + np.sqrt(1 - question.pull**2) * random.normal(size=count)
        place = np.searchsorted(_limits(levels), mixed)
        codes = np.array(list(question.shares)) if isinstance(question, Answer) else question.low + np.arange(99)
        table[name] = codes[place]
    table["absences"] = np.minimum(ABSENCES, random.negative_binomial(0.6, 0.1, count))
    for grade, (mean, deviation, pull) in _GRADES.items():
        noise = np.sqrt(1 - pull**2) * random.normal(size=count)
        table[grade] = np.clip(np.rint(mean + deviation * (pull * ability + noise)), 0, 20).astype(np.int64)
    return pd.DataFrame(table)


def _limits(shares: list[float]) -> NDArray[np.float64]:
    """Where a standard normal value is cut so that the parts have these shares, (parts - 1,)."""
    from scipy.stats import norm

    cut: NDArray[np.float64] = norm.ppf(np.cumsum(shares)[:-1] / np.sum(shares))
    return cut


def load(path: Path) -> pd.DataFrame:
    """The user's own copy of `student-mat.csv` or `student-por.csv`.

    Raises UsageError when there is none, or it lacks a column or has a code that the data set does not have.
    """
    try:
        table = pd.read_csv(path, sep=";")
    except (OSError, ValueError) as error:
        got = f"got {path}, not readable ({type(error).__name__})"
        raise UsageError(f"study: data.path: {got}; want student-mat.csv") from None
    wanted = [*QUESTIONS, "absences", "G1", "G2", "G3"]
    missing = [name for name in wanted if name not in table]
    if missing:
        raise UsageError(f"study: data.path: {path.name} lacks {', '.join(missing)}; want {', '.join(wanted)}")
    for name, question in QUESTIONS.items():
        low = question.low if isinstance(question, Scale) else 0
        codes = range(low, low + len(question.shares)) if isinstance(question, Scale) else question.shares
        strangers = sorted(set(table[name].tolist()) - set(codes), key=str)
        if strangers:
            raise UsageError(f"study: data.path: {name}: got {strangers[0]!r}; want {', '.join(map(str, codes))}")
    return table[wanted].assign(absences=table["absences"].clip(upper=ABSENCES))


def windows(table: pd.DataFrame) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """A table as records under CODEBOOK, (records, channels, 1), and whether each passed, (records,)."""
    columns = []
    for channel in CODEBOOK.channels:
        name, _, code = channel.name.partition("=")
        question = QUESTIONS.get(name)
        if code:
            columns.append(table[name] == code)
        elif isinstance(question, Answer):
            columns.append(table[name] == list(question.shares)[1])
        else:
            columns.append(table[name])
    values = np.stack([np.asarray(column, np.float32) for column in columns], axis=1)
    return values[:, :, None], (table["G3"].to_numpy() >= PASS).astype(np.int64)
