"""Holders as they were before refusals were made one: a control of the attacks that read refusals.

What is removed cannot be switched off, so the old behaviour is played here from the records themselves: conditions that
select nobody are answered and those that select a few are not, a refusal names its rule, and a population that differs
from an earlier one by few records is refused where one that is equal is answered.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from statfed.core.disclosure import Rules
from statfed.core.result import Result
from tests.attacks.world import No, World

MINIMUM = 10


class Former(World):
    """Answers to counts and totals as they once were."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._past: list[dict[str, np.ndarray]] = []

    def release(
        self,
        method: str,
        options: Mapping[str, Any] | None = None,
        where: Sequence[str] = (),
        rules: Rules | None = None,
        **more: Any,
    ) -> Result:
        """Raises No as holders did; the figures of the answer are left out. Of tables, the labels as they were."""
        if method == "table" and self.template == "rehearsal":
            return self._labelled(super().release(method, options, where, Rules(), **more))
        self.questions += 1
        conditions = self.terms(method, options or {}, where, **more).where
        inside: dict[str, np.ndarray] = {}
        for name, frame in self.frames.items():
            inside[name] = np.ones(len(frame), np.bool_)
            for clause in conditions:
                [c] = clause.either
                x = frame[c.column].to_numpy()
                inside[name] &= {"==": x == c.value, ">=": x >= c.value, "<=": x <= c.value, "<": x < c.value}[c.op]
        sizes = [int(part.sum()) for part in inside.values()]
        if any(0 < size < MINIMUM for size in sizes):
            raise self._no(No("not allowed: minimum frequency"))
        if not all(sizes) and self.changes.get("disclosure", {}).get("zeros") == "protect":
            raise self._no(No("not allowed: zeros"))
        for other in self._past:
            apart = [int((inside[name] != other[name]).sum()) for name in inside]
            if any(0 < n < MINIMUM for n in apart):
                raise self._no(No("not allowed: differencing"))
        self._past.append(inside)
        return Result(method, "", {"estimates": ()})

    def _labelled(self, found: Result) -> Result:
        """Hidden cells as primary or secondary, which the status of a cell once said."""
        whole = pd.concat(self.frames.values())
        tables = {}
        for name, rows in found.tables.items():
            made = []
            for row in rows:
                inside = np.ones(len(whole), np.bool_)
                for key, value in row.items():
                    if key in whole and value is not None:
                        inside &= (whole[key] == value).to_numpy()
                few = 0 < inside.sum() < MINIMUM
                made.append({**row, "status": "primary" if few else "secondary"} if row.get("count") is None else row)
            tables[name] = made
        return found.with_(tables=tables)
