"""`Federation`: several holders' tables, and the analyses that can be asked of them together.

    fed = Federation({"north": "north.parquet", "south": frame})
    fit = fed.glm("employed ~ age + C(region)", family="binomial")
    fit.summary(), fit.conf_int(), fit.to_pandas()

In a notebook holders are simulated: same code path, policy, ledger and messages as across organisations.
"""

import re
import shutil
import tempfile
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, get_origin

from statfed.core.codebook import Codebook, load_codebook, make_codebook
from statfed.core.disclosure import OFF, HolderRules, Rules
from statfed.core.errors import UsageError
from statfed.core.linkage import Estimate, Reveal, read_analysis
from statfed.core.method import load_method
from statfed.core.progress import Progress, silent
from statfed.core.result import Result
from statfed.core.study import make_study
from statfed.core.terms import Privacy
from statfed.federation.answers import Answer
from statfed.federation.frames import as_arrow
from statfed.federation.run import Options, run_study

if TYPE_CHECKING:
    import pandas as pd

    from statfed.federation.models import TrainedModel

Names = str | Sequence[str]


class Federation:
    """Tables of several holders.

    holders: name to data file, database URL, or a table in memory: pandas or polars DataFrame, Arrow table, DuckDB
    relation; its index is no column. codebook: a Codebook, a mapping, or
    the path of a *.codebook.toml file; None drafts one from the union of the local drafts, which only a simulation
    may do, and only for studies without privacy: a draft tells of the data, and no epsilon covers that. types, levels:
    of columns of which the draft would guess others, as {"employed": "category"} and {"sex": ["f", "m"]}. workspace:
    folder where ledgers live between sessions; None keeps them while this object lives. disclosure: rules for every
    release. rules: what the simulated holders allow, everything or what that template of `statfed policy init` does.
    protection: its name, or the fields of a `[protection]` table (name, minimum_holders, options); see
    `statfed protections`.
    `last` is the whole answer to the last question: sums, ledger, who learns what.
    """

    def __init__(
        self,
        holders: Mapping[str, Any],
        codebook: Codebook | Mapping[str, Any] | str | Path | None = None,
        *,
        types: Mapping[str, str] | None = None,
        levels: Mapping[str, Sequence[str]] | None = None,
        engine: Literal["inprocess", "processes", "ray"] = "inprocess",
        workspace: Path | str | None = None,
        disclosure: Rules | Literal["none", "standard"] = "none",
        protection: str | Mapping[str, Any] = "plain",
        rules: HolderRules = "none",
        seed: int | None = None,
        progress: Progress = silent,
    ) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="statfed-"))
        self._remove = weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        self._workspace = Path(workspace) if workspace else self._folder
        if not isinstance(holders, Mapping):
            raise UsageError(f"holders: got {type(holders).__name__}; want a mapping of a name to each holder's data")
        self._sources = {str(name): self._source(str(name), data) for name, data in holders.items()}
        if isinstance(codebook, str | Path):
            codebook = load_codebook(Path(codebook))
        elif isinstance(codebook, Mapping):
            codebook = make_codebook(codebook)
        self.codebook: Codebook | None = codebook
        self._stated = {
            "types": dict(types or {}),
            "levels": {name: tuple(own) for name, own in (levels or {}).items()},
        }
        self._engine, self._progress, self._seed = engine, progress, seed
        if not isinstance(protection, str | Mapping):
            raise UsageError(
                f"protection: got {type(protection).__name__}; want a name (statfed protections), or a mapping with "
                "name, minimum_holders and options"
            )
        self._protection = {"name": protection} if isinstance(protection, str) else dict(protection)
        self._rules = {"none": OFF, "standard": Rules()}[disclosure] if isinstance(disclosure, str) else disclosure
        self._policy, self._drafted = rules, False
        self.last: Answer | None = None

    def ask(
        self,
        analysis: str,
        *,
        where: Names = (),
        privacy: Privacy | Mapping[str, Any] | float | None = None,
        exact: bool = False,
        references: bool = False,
        **options: Any,
    ) -> Result:
        """The released result of any analysis, with its own options; None leaves an option at its default.

        where: conditions such as "age >= 18". privacy: epsilon, or the fields of `Privacy`. exact: an official figure,
        for which noise is refused. references: of a training, also what its model is compared with.
        Raises UsageError, Refused or EngineError.
        """
        return self._answered(analysis, options, self._protection, where, privacy, exact=exact, references=references)

    def link(
        self,
        key: str,
        analysis: str = "",
        *,
        by: str = "helper",
        reveal: Reveal | None = None,
        to: Names = (),
        estimate: Estimate = "none",
        block: str = "",
        salt: str = "",
        minimum_frequency: int = 10,
        helper: str = "helper",
        cap: int | None = None,
        direct: bool = False,
        where: Names = (),
        privacy: Privacy | Mapping[str, Any] | float | None = None,
        settings: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Result:
        """What comes of matching the holders' units by a key: how many match, or an analysis of the matched.

        key: columns that every holder has, as "id" or "name,birth_date,postcode[:2]". analysis: its name with its
        options beside, or one line as `statfed link` takes, over columns of which each is one holder's. by: the linkage
        (`statfed linkages`). reveal: size, totals or pairs; by default what the rest asks for. to: holders that learn
        which of their own units match. estimate: total or coverage, for figures that are corrected for missed and false
        links (fuzzy). block, salt: of a fuzzy linkage. minimum_frequency: fewest matched units that a figure is about.
        cap: units that every holder fills its own up to. direct: do sealed packets go from party to party, past the
        coordinator? settings: the linkage's own further options. privacy: as in `ask`; of linkages that add noise, to
        size and totals.
        Raises UsageError, Refused or EngineError.
        """
        method, read = read_analysis(analysis) if analysis else ("count", {})
        linking = {
            "key": key,
            "reveal": reveal or ("pairs" if to else "totals" if method != "count" or read or options else "size"),
            "to": _names(to),
            "block": block,
            "salt": salt,
            "minimum_frequency": minimum_frequency,
            "helper": helper,
            "cap": cap,
            "direct": direct,
            "options": dict(settings or {}),
            **({"estimate": estimate} if estimate != "none" else {}),
        }
        return self._answered(method, {**read, **options}, {"name": by, "options": linking}, where, privacy)

    def _answered(
        self,
        analysis: str,
        options: Mapping[str, Any],
        protection: Mapping[str, Any],
        where: Names = (),
        privacy: Privacy | Mapping[str, Any] | float | None = None,
        *,
        exact: bool = False,
        references: bool = False,
    ) -> Result:
        given = {name: value for name, value in options.items() if value is not None}
        if isinstance(privacy, int | float):
            privacy = {"epsilon": privacy}
        study = make_study(
            {
                "method": analysis,
                "options": {name: _plain(value) for name, value in _listed(analysis, given).items()},
                "holders": self._sources,
                "where": _names(where),
                **(self._stated if self.codebook is None else {}),
                "engine": self._engine,
                "seed": self._seed,
                "privacy": privacy.model_dump() if isinstance(privacy, Privacy) else privacy,
                "protection": dict(protection),
                "exact": exact,
                "disclosure": self._rules,
                "simulation": {"rules": self._policy},
            },
            where=analysis,
        )

        def keep(codebook: Codebook) -> None:
            self.codebook, self._drafted = codebook, True

        how = Options(workspace=self._workspace, codebook=self.codebook, drafted=self._drafted, references=references)
        self.last = run_study(study, how, progress=self._progress, on_codebook=keep)
        return self.last.result

    def describe(self, columns: Names, **more: Any) -> Result:
        """Count, missing, mean, variance and standard error of columns."""
        return self.ask("describe", columns=_names(columns), **more)

    def count(self, by: Names = (), **more: Any) -> Result:
        """Number of records, or estimated population size, by domain."""
        return self.ask("count", by=_names(by), **more)

    def total(self, columns: Names, by: Names = (), **more: Any) -> Result:
        """Totals with their standard errors, by domain."""
        return self.ask("total", columns=_names(columns), by=_names(by), **more)

    def mean(self, columns: Names, by: Names = (), **more: Any) -> Result:
        """Means with their standard errors, by domain."""
        return self.ask("mean", columns=_names(columns), by=_names(by), **more)

    def table(self, rows: Names, columns: Names = (), **more: Any) -> Result:
        """Contingency table or magnitude table, up to four ways."""
        return self.ask("table", rows=_names(rows), columns=_names(columns), **more)

    def quantile(self, columns: Names, probabilities: Sequence[float] | None = None, **more: Any) -> Result:
        """Quantiles, exact to a stated tolerance."""
        return self.ask("quantile", columns=_names(columns), probabilities=probabilities, **more)

    def ols(self, formula: str, **more: Any) -> Result:
        """Ordinary or weighted least squares."""
        return self.ask("ols", formula=formula, **more)

    def glm(self, formula: str, family: str | None = None, **more: Any) -> Result:
        """Generalised linear model; binomial unless another family is named."""
        return self.ask("glm", formula=formula, family=family, **more)

    def train(
        self,
        model: str | Mapping[str, Any] = "mlp",
        *,
        target: str,
        features: Names,
        method: str | None = None,
        epsilon: float | None = None,
        privacy: Privacy | Mapping[str, Any] | None = None,
        where: Names = (),
        holdout: float = 0.2,
        references: bool = False,
        **options: Any,
    ) -> "TrainedModel":
        """Train a model that predicts `target` from `features`.

        model: its name, or name and hidden. method: dp-fedsgd where epsilon is given, else local-sgd. epsilon: short
        for privacy={"epsilon": ...}. holdout: share of the units that each holder keeps apart to score the model on.
        references: also compare with a pooled model and with each holder alone, which only a simulation can. options:
        further ones of the method. Raises UsageError, Refused or EngineError.
        """
        from statfed.federation.models import TrainedModel

        if epsilon is not None and privacy is not None:
            raise UsageError("epsilon, privacy: got both; want one of them")
        self.ask(
            method or ("local-sgd" if epsilon is None and privacy is None else "dp-fedsgd"),
            where=where,
            privacy=privacy if epsilon is None else epsilon,
            references=references,
            target=target,
            features=_names(features),
            model={"name": model} if isinstance(model, str) else dict(model),
            holdout=holdout,
            **options,
        )
        if self.last is None:
            raise ValueError("an answer that was not kept")
        return TrainedModel(self.last)

    def predict(self, model: Any, data: Any) -> "pd.DataFrame":
        """Predictions of a trained model, or of the file of one, for new records; see `Saved.predict`."""
        from statfed.federation.models import load_model

        found: pd.DataFrame = (load_model(model) if isinstance(model, str | Path) else model).predict(data)
        return found

    def close(self) -> None:
        """Remove the copies of data frames and, without a workspace, the ledgers; so does the object's own end."""
        self._remove()

    def __enter__(self) -> "Federation":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _source(self, name: str, data: Any) -> str:
        if isinstance(data, str | Path):
            return str(data)
        from pyarrow import parquet

        table = as_arrow(name, data)
        path = self._folder / f"{re.sub('[^A-Za-z0-9_-]', '-', name)}-{len(list(self._folder.iterdir()))}.parquet"
        parquet.write_table(table, path)
        return str(path)


def _names(value: Names) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value)


def _listed(analysis: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options, a single string as the list of it where a list is wanted. Raises UsageError on unknown analyses."""
    fields = load_method(analysis).Options.model_fields
    lists = {name for name, field in fields.items() if get_origin(field.annotation) is tuple}
    return {name: (x,) if name in lists and isinstance(x, str) else x for name, x in options.items()}


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
