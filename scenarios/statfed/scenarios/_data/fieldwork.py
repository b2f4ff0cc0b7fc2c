"""Generated paradata of one social survey in seven countries: the gross sample, contact attempts and outcomes.

Orders of magnitude follow the European Social Survey's documented fieldwork: response rates between about 30 and 70 %
that differ more between countries than within them, about two and a half attempts a person, more of them in cities and
flats, telephone contact where the sampling frame has numbers. The number of further attempts is Poisson given a
person's characteristics, and the response a Bernoulli draw given those and the attempts: the two models that the
scenario fits, so that their coefficients here are the truth of its figures.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd

COUNTRIES: Mapping[str, tuple[int, float, float]] = {
    "country-a": (2100, 0.45, 0.15),
    "country-b": (1500, 0.30, 0.30),
    "country-c": (1250, 0.65, 0.50),
    "country-d": (950, 0.25, 0.10),
    "country-e": (800, 0.55, 0.60),
    "country-f": (600, 0.40, 0.20),
    "country-g": (420, 0.75, 0.35),
}
"""Persons in the small world's gross sample, share of them in cities, share first contacted by telephone."""
AGES = ("15-24", "25-34", "35-49", "50-64", "65-79", "80+")
SEXES = ("f", "m")
AREAS = ("town", "city", "rural")
DWELLINGS = ("house", "flat", "other")
MODES = ("visit", "telephone", "letter")
MOST_ATTEMPTS = 20
SPREAD = 0.5
"""Standard deviation of country effects on the log odds of response."""
RESPONSE: Mapping[str, float] = {
    "Intercept": 0.10,
    "C(age)[T.25-34]": -0.15,
    "C(age)[T.35-49]": 0.05,
    "C(age)[T.50-64]": 0.20,
    "C(age)[T.65-79]": 0.30,
    "C(age)[T.80+]": -0.20,
    "C(sex)[T.m]": -0.12,
    "C(area)[T.city]": -0.35,
    "C(area)[T.rural]": 0.20,
    "C(dwelling)[T.flat]": -0.30,
    "C(dwelling)[T.other]": -0.55,
    "C(mode)[T.telephone]": -0.40,
    "C(mode)[T.letter]": -0.70,
    "log(attempts)": 0.25,
}
"""Log odds of response."""
EFFORT: Mapping[str, float] = {
    "C(age)[T.25-34]": 0.10,
    "C(age)[T.35-49]": 0.05,
    "C(age)[T.50-64]": -0.08,
    "C(age)[T.65-79]": -0.25,
    "C(age)[T.80+]": -0.20,
    "C(sex)[T.m]": 0.06,
    "C(area)[T.city]": 0.22,
    "C(area)[T.rural]": -0.10,
    "C(dwelling)[T.flat]": 0.15,
    "C(dwelling)[T.other]": 0.10,
    "C(mode)[T.telephone]": 0.35,
    "C(mode)[T.letter]": -0.30,
}
"""Log rate of attempts after the first."""
_FURTHER = 0.25  # log of the mean number of further attempts of the reference person in a country of no effect
_POLICY = 0.2  # standard deviation of countries' fieldwork policies on it
_AGE_MIX = (0.14, 0.16, 0.26, 0.24, 0.15, 0.05)


def gross_sample(country: str, scale: int, seed: int) -> pd.DataFrame:
    """One record for each sampled person of a country, eligible ones only.

    scale: persons per person of the small world. Country effects follow from country and seed, not from the scale.
    """
    place = list(COUNTRIES).index(country)
    effects = np.random.default_rng([seed, 7411, place])
    effect, policy = SPREAD * effects.standard_normal(), _POLICY * effects.standard_normal()
    size, cities, telephone = COUNTRIES[country]
    rng, n = np.random.default_rng([seed, 7412, place, scale]), size * scale
    area = rng.choice(AREAS, n, p=(0.6 * (1 - cities), cities, 0.4 * (1 - cities)))
    flats = np.select([area == "city", area == "town"], [0.70, 0.40], 0.12)
    draw = rng.random(n)
    dwelling = np.select([draw < flats, draw < flats + 0.04], ["flat", "other"], "house")
    persons = pd.DataFrame(
        {
            "country": country,
            "age": rng.choice(AGES, n, p=_AGE_MIX),
            "sex": rng.choice(SEXES, n, p=(0.51, 0.49)),
            "area": area,
            "dwelling": dwelling,
            "mode": rng.choice(MODES, n, p=(0.9 - telephone, telephone, 0.1)),
        }
    )
    further = rng.poisson(np.exp(_FURTHER + policy + _predictor(persons, EFFORT)))
    persons["attempts"] = np.minimum(1 + further, MOST_ATTEMPTS)
    odds = effect + RESPONSE["Intercept"] + _predictor(persons, RESPONSE)
    odds += RESPONSE["log(attempts)"] * np.log(persons["attempts"].to_numpy())
    persons["responded"] = rng.random(n) < 1 / (1 + np.exp(-odds))
    return persons


def _predictor(
    persons: pd.DataFrame, coefficients: Mapping[str, float]
) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Sum of the effects of categories."""
    total = np.zeros(len(persons))
    for column in ("age", "sex", "area", "dwelling", "mode"):
        effect = {
            name.partition("[T.")[2][:-1]: b for name, b in coefficients.items() if name.startswith(f"C({column})")
        }
        total += persons[column].map(effect).fillna(0.0).to_numpy(np.float64)
    return total
