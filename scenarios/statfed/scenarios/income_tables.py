"""Reference scenario `income-tables`: incomes by region, age and source, from tax registers and a household survey."""

from collections.abc import Mapping, Sequence
from typing import Any

import duckdb
import numpy as np
import pandas as pd

from statfed.core import VERSION
from statfed.core.card import Card, Question
from statfed.core.codebook import Codebook, Column, Design
from statfed.core.disclosure import Rules
from statfed.core.result import Result, Row
from statfed.scenarios._contract import (
    EXACT, About, Ask, Case, Figure, Figures, Level, Profile, Reference, Success, World, private,
)
from statfed.scenarios._data import incomes

PERSONS: Mapping[Profile, int] = {"quick": 240_000, "full": 2_400_000}
LEVELS: Sequence[Level] = (
    EXACT,
    Level("suppress", "minimum frequency 10, dominance (2, 90 %), p 10 %, secondary suppression", disclosure=Rules()),
    Level("cell-key", "cell-key noise of at most 5 persons", disclosure=Rules(method="cell-key", base=5)),
    private(10.0),
    private(3.0),
    private(1.0),
    private(3.0, "shared"),
)
COMMON = ("R1", "R2", "R3", "R4", "R5")
OWN = {"region-6": "R6", "region-7": "R7", "region-8": "R8"}

def codebook():
    columns = {
        "person": Column(type="id", role="unit", required=True),
        "region": Column(type="category", categories={r.code: "" for r in incomes.REGIONS}, required=True),
        "age": Column(type="category", categories=incomes.AGES, required=True),
        "sex": Column(type="category", categories=incomes.SEXES, required=True),
        "source": Column(type="category", categories=incomes.SOURCES, required=True),
        "income": Column(type="number", low=0, high=incomes.TOP_CODE, required=True, unit="EUR"),
        "key": Column(type="number", low=0, high=1, role="record-key", required=True),
        "weight": Column(type="number", low=0, high=incomes.MOST_WEIGHT, role="weight", required=True),
    }
    columns |= {n: Column(type="number", low=0, high=incomes.MOST_REPLICATE, role="replicate", required=True) for n in incomes.replicates()}
    return Codebook(title="Incomes", columns=columns, design=Design(replicate_method="bootstrap"))

def world(profile, seed):
    people = {r.code: incomes.adults(r, PERSONS[profile], seed) for r in incomes.REGIONS}
    holders = {"tax-authority": pd.concat([incomes.register(people[c]) for c in COMMON], ignore_index=True)}
    holders |= {n: incomes.register(people[c]) for n, c in OWN.items()}
    holders["nso"] = pd.concat([incomes.sample(people[r.code], r, seed) for r in incomes.REGIONS], ignore_index=True)
    everybody = pd.concat(people.values()).assign(weight=1.0)
    return World(holders, codebook(), "x", public={"holders": tuple(holders)}, truth=figures_of(everybody))

def figures_of(people):
    found = {}
    with duckdb.connect() as c:
        c.register("people", people)
        for r,a,s,n in c.sql("select region, age, source, sum(weight) from people group by all").fetchall():
            found[f"persons|{r}|{a}|{s}"]=n
        for r,a,t,m in c.sql("select region, age, sum(weight*income), sum(weight*income)/sum(weight) from people group by all").fetchall():
            found[f"income|{r}|{a}"]=t; found[f"mean|{r}|{a}"]=m
    for r in incomes.REGIONS:
        for a in incomes.AGES:
            for s in incomes.SOURCES:
                found.setdefault(f"persons|{r.code}|{a}|{s}",0.0)
    return found
pooled = lambda w: figures_of(pd.concat(w.holders.values()))

def compute(ask, public, S=(0.3,0.35,0.35)):
    persons = ask("table", share=S[0], rows=("region","age"), columns=("source",), weight="weight")
    exact = persons.privacy is None
    totals = ask("table", share=S[1], rows=("region",), columns=("age",), value="income", weight="weight", design=exact)
    means = ask("mean", share=S[2], columns=("income",), by=("region","age"), weight="weight", design=exact)
    fig = {}
    for row in persons.tables["cells"]:
        fig[f"persons|{row['region']}|{row['age']}|{row['source']}"]=Figure(row["total"])
    ci = totals.conf_int()
    for row in totals.tables["cells"]:
        v=row["total"]; se=row["std_error"]
        lo = hi = None
        if v is not None and se is not None:
            lo,hi=v-2.02*se,v+2.02*se
        fig[f"income|{row['region']}|{row['age']}"]=Figure(v,lo,hi)
    for row in means.tables["estimates"]:
        fig[f"mean|{row['region']}|{row['age']}"]=Figure(row["estimate"],row["lower"],row["upper"])
    return fig

def measure(figures, pooled):
    e=[1.0 if f.value is None else abs(f.value-pooled[n])/pooled[n] for n,f in figures.items() if pooled[n]]
    return float(np.quantile(e,.75))
SUCCESS = Success("x", measure, 0.05)
