"""A holder in its home folder and the words to speak to it, which tests of its gates share."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from statfed.client.guard.policy import Policy, write_policy
from statfed.client.holder import Holder, Reply
from statfed.core import VERSION
from statfed.core.conditions import parse_where
from statfed.core.errors import Refused, UsageError
from statfed.core.statement import Statement, Step, outside
from statfed.core.terms import Terms
from tests.universe import CODEBOOK

PRIVATE = {"privacy": {"epsilon": 1.0, "delta": 1e-6}}
MEANS = {"method": "describe", "options": {"columns": ["income"]}}
FREE = {"minimum_frequency": "off", "dominance_k": "off", "p_percent": "off", "residual_df": "off"}
FREE |= {"parameters_per_record": "off"}
BASE: dict[str, Any] = {
    "holder": {"name": "office"},
    "dataset": {"id": "people", "path": "people.parquet", "records": 200, "persons": 200},
    "allow": {
        "methods": ["*"],
        "protections": ["plain"],
        "columns": ["*"],
        "weights": ["*"],
        "without_privacy": True,
    },
    "disclosure": FREE,
    "refusals": {"explain": True},
    "limits": {"figures": "off", "refusals": "off"},
    "budget": {"unit": "record", "epsilon": 20.0, "delta": 1e-5},
}
Open = Callable[..., "Office"]


class Office:
    """A holder in its home folder, and the words to speak to it."""

    def __init__(self, home: Path, frame: pd.DataFrame, **changes: dict[str, Any]) -> None:
        home.mkdir(mode=0o700)
        self.home, self.frame = home, frame
        self.write(frame)
        self.policy(**changes)
        self.holder = Holder(home)

    def write(self, frame: pd.DataFrame) -> None:
        frame.to_parquet(self.home / "people.parquet")

    def policy(self, **changes: dict[str, Any]) -> None:
        made = {name: keys | changes.get(name, {}) for name, keys in (BASE | {"minimum": {}}).items()}
        write_policy(Policy.model_validate(made), self.home / "policy.toml")

    def say(
        self,
        step: Step,
        query: Terms,
        number: int = 0,
        ask: str = "",
        arrays: Mapping[str, Any] | None = None,
        run: str = "r",
        **more: Any,
    ) -> Reply:
        """The answer to one statement. more: its further fields."""
        made = Statement(
            version=VERSION,
            run=run,
            step=step,
            round=number,
            ask=ask,
            sizes=dict.fromkeys(query.holders, self.holder.policy.dataset.records),
            outside=outside(query),
            terms=query,
        )
        return self.holder.answer(json.dumps(made.model_dump(mode="json") | more), dict(arrays or {}))

    def refusal(self, *words: Any, **more: Any) -> str:
        with pytest.raises((Refused, UsageError)) as caught:
            self.say(*words, **more)
        return str(caught.value)

    @property
    def refused(self) -> int:
        """How many refusals the ledger counts."""
        with self.holder.ledger() as ledger:
            return ledger.refusals(30.0)

    @property
    def entries(self) -> list[str]:
        """Kinds of the ledger's entries, refusals left out; none where there is no ledger yet."""
        if not (self.home / "ledger.sqlite").exists():
            return []
        with self.holder.ledger() as ledger:
            ledger.verify()
            return [entry.kind for entry in ledger.entries() if not entry.kind.startswith("refus")]

    def close(self) -> None:
        """Let go of the data."""
        self.holder._contributions.close()


def query(**terms: Any) -> Terms:
    where = parse_where(terms.pop("where", ()), CODEBOOK)
    return Terms.model_validate({"codebook": CODEBOOK, "holders": ("office",), "seed": None, "where": where} | terms)
