"""Synthetic data as a user's program makes them: a model fitted by asking holders, saved as one file, and sampled.

    model = fit({"a": "a.parquet", "b": "b.parquet"}, "mst", codebook="people.codebook.toml", epsilon=1)
    model.save("people.synth.json"), model.sample(10_000)

The file is JSON: everything that was learnt stands in it in clear, with what it cost, so that it can be read before it
is given away. Records that break a rule of the codebook are drawn anew.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from statfed.core import VERSION
from statfed.core.codebook import Codebook, make_codebook
from statfed.core.errors import UsageError
from statfed.core.result import Result
from statfed.core.synthesis import Fitted, load_synthesis, read_synthesis
from statfed.core.synthetic import edits
from statfed.core.synthetic.coded import Coded, coded, described
from statfed.core.synthetic.weights import survey_notes
from statfed.federation.answers import Answer
from statfed.federation.own import own_records

if TYPE_CHECKING:
    import pandas as pd

    from statfed.federation.federation import Federation

FORMAT = "statfed.synthetic/1"
METADATA = b"statfed.synthetic"
"""Key of a Parquet file's metadata that says that its records are synthetic, and which model they are of."""
MOST_RECORDS = 50_000_000
_EPOCH = date(1970, 1, 1)


@dataclass(frozen=True)
class Synthesizer:
    """A fitted model of synthetic data."""

    fitted: Fitted

    def sample(self, count: int, seed: int | None = None) -> "pd.DataFrame":
        """So many records, as a data frame. seed: for the same ones again; None draws from the operating system."""
        return frame_of(self.coded(count, seed))

    def coded(self, count: int, seed: int | None = None) -> Coded:
        """So many records, as codes and numbers, all of which obey the codebook's rules. Raises UsageError on a number
        that is none, and on a model of whose records too few obey: less than 1 %, or 80 % of folded ones."""
        if not 1 <= count <= MOST_RECORDS:
            raise UsageError(f"count: got {count}; want 1 to {MOST_RECORDS:,} records")
        module, codebook = load_synthesis(self.fitted.method), self.fitted.codebook
        rng = np.random.default_rng(seed)

        def generate(size: int) -> Coded:
            return Coded(codebook, dict(module.generate(self.fitted.model, codebook, size, rng)))

        units = codebook.folded is not None and module.PRIVATE != "no data"
        return edits.drawn(generate, codebook, count, edits.LEAST_OF_UNITS if units else edits.LEAST_SHARE)

    def to_dict(self) -> dict[str, Any]:
        """The file's document."""
        fitted = self.fitted
        return {
            "format": FORMAT,
            "version": VERSION,
            "method": fitted.method,
            "origin": dict(fitted.origin),
            "codebook": fitted.codebook.model_dump(mode="json", exclude_defaults=True),
            "model": fitted.model,
        }

    @property
    def digest(self) -> str:
        """SHA-256 of the document, in a form that its layout does not change."""
        plain = json.dumps(self.to_dict() | {"version": ""}, sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(plain.encode()).hexdigest()

    def write_parquet(self, frame: "pd.DataFrame", path: Path | str) -> None:
        """Drawn records as a Parquet file that says what they are: method, origin, records and the model's digest."""
        import pyarrow as pa
        from pyarrow import parquet

        origin = {
            key: self.fitted.origin[key] for key in ("kind", "epsilon", "delta", "unit") if key in self.fitted.origin
        }
        label = {"method": self.fitted.method, "records": len(frame), "model": self.digest, "origin": origin}
        told = json.dumps({"synthetic": True, "version": VERSION} | label, allow_nan=False)
        table = pa.Table.from_pandas(frame, preserve_index=False)
        parquet.write_table(
            table.replace_schema_metadata({**(table.schema.metadata or {}), METADATA: told.encode()}), path
        )

    def save(self, path: Path | str) -> None:
        """As one JSON file."""
        Path(path).write_text(json.dumps(self.to_dict(), indent=1, allow_nan=False) + "\n", encoding="utf-8")

    def summary(self) -> str:
        """One line: method, columns, and what it cost."""
        origin = self.fitted.origin
        cost = f"epsilon {origin['epsilon']:.4g}" if origin.get("epsilon") is not None else str(origin.get("kind", ""))
        columns, left = origin.get("columns", self.fitted.codebook.columns), origin.get("left_out", ())
        without = f", without {', '.join(left)}" if left else ""
        return f"{self.fitted.method}: {len(columns)} columns{without}; {cost}"


def load_synthesizer(path: Path | str) -> Synthesizer:
    """A saved model. Raises UsageError on what is none."""
    try:
        told = json.loads(Path(path).read_text(encoding="utf-8"))
        if told["format"] != FORMAT:
            raise UsageError(f"{path}: got format {told['format']!r}; want {FORMAT}")
        codebook = make_codebook(told["codebook"], str(path))
        load_synthesis(str(told["method"]))
        return Synthesizer(Fitted(str(told["method"]), codebook, dict(told["model"]), dict(told["origin"])))
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: got a file that cannot be read ({type(error).__name__}); want a model") from None
    except (ValueError, KeyError, TypeError, RecursionError):
        raise UsageError(f"{path}: got no model of synthetic data; want a file of `statfed synth fit`") from None


def fit(
    federation: "Federation",
    method: str,
    options: Mapping[str, Any],
    privacy: Any = None,
) -> Synthesizer:
    """Fit a model by asking the holders of a federation. privacy: as of any question; None: none.

    Raises UsageError where the method and the privacy that is asked for do not go together.
    """
    module, read = read_synthesis(method, options)
    if module.PRIVATE == "always" and privacy is None:
        raise UsageError(f"{method}: got no epsilon; want one (--epsilon): its model is safe by its noise alone")
    if module.PRIVATE in ("never", "no data") and privacy is not None:
        why = "looks at no data" if module.PRIVATE == "no data" else "has no differentially private form"
        raise UsageError(f"{method}: got an epsilon; want none: it {why}")
    if federation.codebook is None:
        if privacy is not None or module.PRIVATE == "no data":
            raise UsageError("codebook: got none; want one (--codebook): bounds and categories are public facts")
        federation.count()
    answers: list[Answer] = []

    def ask(analysis: str, *, share: float = 1.0, where: str | Sequence[str] = (), **more: Any) -> Result:
        if privacy is not None and (share != 1.0 or answers):
            raise UsageError(f"{method}: got a second private question; want one that the whole budget is spent on")
        result = federation.ask(analysis, where=where, privacy=privacy, **more)
        if federation.last is not None:
            answers.append(federation.last)
        return result

    codebook = federation.codebook
    if codebook is None:
        raise UsageError("codebook: got none; want one")
    learn = module.fit if privacy is None else getattr(module, "fit_private", module.fit)
    model = learn(ask, codebook, read)
    told = _origin(module.PRIVATE, answers, read)
    with suppress(UsageError):  # a model that cannot be drawn from was paid for: it is kept, and drawing says why
        drawn = list(module.generate(model, codebook, 1, np.random.default_rng(0)))
        told |= {"columns": drawn, "left_out": [name for name in codebook.columns if name not in drawn]}
    if survey := survey_notes(codebook):
        told |= {"survey": list(survey)}
    return Synthesizer(Fitted(method, codebook, json.loads(json.dumps(model)), told))


def _origin(private: str, answers: list[Answer], options: Any) -> dict[str, Any]:
    found: dict[str, Any] = {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "options": options.model_dump(mode="json"),
        "questions": [answer.result.title for answer in answers],
        "runs": [answer.run for answer in answers],
    }
    if private == "no data":  # `fit` refuses one without a codebook that was given
        found["codebook_drafted"] = False
        return found | {"kind": "the codebook alone; no data were looked at"}
    spent = [one.study_epsilon for answer in answers for one in answer.spending if one.study_epsilon is not None]
    terms = answers[-1].terms
    found |= {"holders": list(terms.holders), "protection": terms.protection.name}
    found["codebook_drafted"] = any(answer.drafted for answer in answers)
    if terms.privacy is None:
        return found | {"kind": "exact answers: the model is as confidential as they are, until it was evaluated"}
    return found | {
        "kind": "differentially private",
        "epsilon": max(spent),
        "delta": terms.privacy.delta,
        "unit": terms.privacy.unit,
        "noise": terms.privacy.noise,
    }


def frame_of(table: Coded) -> "pd.DataFrame":
    """A coded table as a data frame: codes as text, whole numbers as such, dates, truth values; missing is null."""
    import pandas as pd

    made: dict[str, Any] = {}
    for name, values in table.columns.items():
        column, gone = table.codebook.columns[name], table.missing(name)
        if column.type == "boolean":
            made[name] = pd.array(values == 1, dtype="boolean")
        elif column.levels:
            made[name] = pd.array(np.asarray(column.levels, object)[np.maximum(values, 0)], dtype="string")
        elif column.type == "integer":
            made[name] = pd.array(np.where(gone, 0, values).astype(np.int64), dtype="Int64")
        elif column.type == "date":
            made[name] = [
                None if lost else _EPOCH + timedelta(days=int(day)) for day, lost in zip(values, gone, strict=True)
            ]
        else:
            made[name] = values
        if column.levels or column.type == "integer":
            made[name][gone] = pd.NA
    return pd.DataFrame(made)


def _called(data: Any, what: str) -> str:
    name = f" ({Path(data).name})" if isinstance(data, str | Path) else ""
    return f"{what}{name}: records"


def own_table(data: Any, codebook: Codebook, what: str = "data") -> Coded:
    """A user's own records as codes and numbers. data: a path, a data frame or an Arrow table."""
    return coded(own_records(data, codebook, described(codebook), "the codebook", _called(data, what)), codebook, what)
