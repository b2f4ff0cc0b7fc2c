"""Studies of the command line: options that all methods share, as the keys of a study."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from typer.core import TyperOption

from statfed.cli._names import Choice
from statfed.cli._output import remember_json
from statfed.core.errors import UsageError
from statfed.core.outputs import Destinations
from statfed.core.section import apply_override
from statfed.core.study import Study
from statfed.core.terms import Placement

COMMON = "Holders and privacy"
OUTPUT = "Output"
TYPE = "What a column is, where a draft would guess another type: category, integer, date, ... Repeat."
LEVELS = "A column's categories, where a draft would list others. Repeat."


@dataclass(frozen=True)
class Common:
    """What the shared options say."""

    holder: tuple[str, ...]
    codebook: str | None
    where: tuple[str, ...]
    type: tuple[str, ...]
    levels: tuple[str, ...]
    privacy: str | None
    exact: bool
    protect: str
    protect_option: tuple[str, ...]
    minimum_holders: int | None
    disclosure: str
    rule: tuple[str, ...]
    engine: str | None
    seed: int | None
    budget: float | None
    rules: str
    fresh: bool
    workspace: str
    dry_run: bool

    def study(self, method: str, options: dict[str, Any]) -> dict[str, Any]:
        """The study as a mapping."""
        rules: dict[str, Any] = {}
        for text in self.rule:
            if "=" not in text:
                raise UsageError(f"--rule: got {text!r}; want key=value, for example minimum_frequency=3")
            apply_override(rules, text, "--rule")
        return {
            "method": method,
            "options": options,
            "holders": read_holders(self.holder),
            "codebook": self.codebook,
            "where": self.where,
            "types": read_types(self.type),
            "levels": read_levels(self.levels),
            "privacy": read_privacy(self.privacy) if self.privacy else None,
            "protection": read_protection(self.protect, self.protect_option, self.minimum_holders),
            "exact": bool(self.exact),
            "disclosure": rules or self.disclosure,
            "engine": self.engine or "inprocess",
            "seed": self.seed,
            "simulation": {"rules": self.rules} | ({} if self.budget is None else {"lifetime_epsilon": self.budget}),
        }


@dataclass(frozen=True)
class Outputs:
    """Where the answer goes beside the screen. runs: folder of runs, one of which it becomes; model: of a training."""

    as_json: bool
    csv: str | None
    parquet: str | None
    html: str | None
    overwrite: bool
    runs: str | None
    model: str | None = None

    def to(self, study: Study, base: Path) -> Destinations:
        """How they are written: onto nothing that the study reads. Raises UsageError where they may not be."""
        books = [*filter(None, [study.codebook]), *study.codebooks.values()]
        data = [str(study.data["path"])] if "path" in study.data else []
        sources = () if study.scenario else study.holders.values()
        return self.checked(Destinations((*sources, *books, *data), self.overwrite, base))

    def checked(self, to: Destinations) -> Destinations:
        """`to`, where all of these files may be written. Raises UsageError."""
        to.check(self.csv, self.parquet, self.html, self.model)
        for path in (self.csv, self.parquet):
            to.check(path, beside=True)
        return to


def panel(title: str) -> Any:
    """Makes options under a heading of the help."""

    def option(*names: str, help: str, **more: Any) -> TyperOption:
        return TyperOption(param_decls=list(names), help=help, rich_help_panel=title, **more)

    return option


def common_options() -> list[TyperOption]:
    """Options of `Common`."""
    return [*_holders(), *_privacy(), *_protection(), *_simulation()]


def _holders() -> list[TyperOption]:
    option = panel(COMMON)
    return [
        option(
            "holder",
            "--holder",
            multiple=True,
            required=True,
            metavar="NAME=SOURCE",
            help="One holder's data: csv, parquet, arrow, or a URL such as duckdb:///c.db?table=people. Repeat.",
        ),
        option("codebook", "--codebook", metavar="FILE", help="Codebook; drafted from the data when left out."),
        option(
            "where",
            "--where",
            multiple=True,
            metavar="TEXT",
            help="Only records with e.g. 'age between 18 and 64 and (sex = f or region in north,south)'. Repeat.",
        ),
        option("type", "--type", multiple=True, metavar="COLUMN=TYPE", help=TYPE),
        option("levels", "--levels", multiple=True, metavar="COLUMN=A,B", help=LEVELS),
    ]


def _privacy() -> list[TyperOption]:
    option = panel(COMMON)
    return [
        option(
            "privacy",
            "--privacy",
            metavar="TEXT",
            help="Differential privacy: epsilon=1[,delta=1e-6][,unit=person,max-records=3][,mechanism=...]; "
            "or margin=50[,part=count], the margin of error that the noise may add to a total. In front local: (each "
            "holder adds noise), central: (a trusted coordinator does) or shared: (holders together, [,colluders=1]).",
        ),
        option(
            "exact",
            "--exact",
            is_flag=True,
            help="The result has to be exact, an official figure: noise is refused, and what does instead is named.",
        ),
        option(
            "disclosure",
            "--disclosure",
            type=Choice(["none", "standard"]),
            default="none",
            help="Rules of the release. A simulation on your own files needs none; a release does.",
        ),
        option(
            "rule",
            "--rule",
            multiple=True,
            metavar="KEY=VALUE",
            help="Set one rule, e.g. minimum_frequency=3 or method=controlled-round; switches the standard ones on.",
        ),
    ]


def _protection() -> list[TyperOption]:
    option = panel(COMMON)
    return [
        option("protect", "--protect", default="plain", metavar="NAME", help="Protection (statfed protections)."),
        option(
            "protect_option",
            "--protect-option",
            multiple=True,
            metavar="KEY=VALUE",
            help="Set one option of the protection (statfed protections NAME). Repeat.",
        ),
        option(
            "minimum_holders",
            "--minimum-holders",
            type=int,
            metavar="NUMBER",
            help="Fewest holders of a sum, where the protection survives dropout (all; in training more than 2/3).",
        ),
    ]


def _simulation() -> list[TyperOption]:
    option = panel(COMMON)
    return [
        option("engine", "--engine", type=Choice(["inprocess", "processes", "ray"]), help="Where holders run."),
        option("seed", "--seed", type=int, metavar="NUMBER", help="Simulation: everything random follows from it."),
        option(
            "budget", "--budget", type=float, metavar="NUMBER", help="Lifetime epsilon of every simulated holder [20]."
        ),
        option(
            "rules",
            "--rules",
            type=Choice(["none", "standard", "strict"]),
            default="none",
            help="What simulated holders allow: everything, or what that template of statfed policy init does.",
        ),
        option("fresh", "--fresh", is_flag=True, help="New holders with unspent budgets, for this run only."),
        option(
            "workspace",
            "--workspace",
            metavar="DIR",
            default=".statfed",
            envvar="STATFED_WORKSPACE",
            help="Where simulated holders keep their ledgers between runs.",
        ),
        option("dry_run", "--dry-run", is_flag=True, help="Show what it would cost and how exact it would be; stop."),
    ]


def output_options(runs: str | None = None) -> list[TyperOption]:
    """Options of `Outputs`. runs: where run folders go when the user does not say it; None: nowhere."""
    option = panel(OUTPUT)
    return [
        option(
            "as_json",
            "--json",
            is_flag=True,
            callback=remember_json,
            help="One JSON document on stdout (docs/json.md); messages on stderr.",
        ),
        option("csv", "--csv", metavar="FILE", help="Write the main table (others beside it) as CSV."),
        option("parquet", "--parquet", metavar="FILE", help="The same as Parquet."),
        option("html", "--html", metavar="FILE", help="Write a self-contained report."),
        option("overwrite", "--overwrite", is_flag=True, help="Replace files that are there; never an input."),
        option(
            "runs",
            "--runs",
            metavar="DIR",
            default=runs,
            envvar="STATFED_RUNS" if runs else None,
            help="Keep the run in a folder of its own there, for statfed runs and statfed annex.",
        ),
    ]


def read_holders(texts: Sequence[str]) -> dict[str, str]:
    """`name=source`, or a source alone, which is then named after its file."""
    holders: dict[str, str] = {}
    for text in texts:
        name, sign, source = text.partition("=")
        if not sign or "/" in name or "?" in name:
            name, source = Path(text.partition("?")[0]).stem.lower().replace("_", "-"), text
        if name in holders:
            raise UsageError(f"--holder: got {name} twice; want NAME=SOURCE with a name of its own for each")
        holders[name] = source
    return holders


def read_types(texts: Sequence[str]) -> dict[str, str]:
    """`employed=category` as column to type. Raises UsageError."""
    return {column: kind.strip() for column, kind in _pairs("--type", "employed=category", texts)}


def read_levels(texts: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """`sex=f,m` as column to levels; one with a comma in it stands in double quotes. Raises UsageError."""
    found = {}
    for column, listed in _pairs("--levels", "sex=f,m", texts):
        try:
            levels = tuple(level.strip() for level in next(csv.reader([listed], skipinitialspace=True)))
        except csv.Error:
            raise UsageError(f"--levels: {column}: got a line end or too much; want for example sex=f,m") from None
        if not all(levels):
            raise UsageError(f"--levels: {column}: got an empty level; want for example sex=f,m")
        found[column] = levels
    return found


def _pairs(option: str, example: str, texts: Sequence[str]) -> list[tuple[str, str]]:
    pairs = []
    for text in texts:
        column, sign, value = text.partition("=")
        if not sign or not column.strip() or not value.strip():
            raise UsageError(f"{option}: got {text!r}; want a column, = and what it is, for example {example}")
        pairs.append((column.strip().strip("`"), value))
    return pairs


def read_protection(name: str, options: Sequence[str], minimum_holders: int | None) -> dict[str, Any]:
    """The `[protection]` table of command-line options."""
    read: dict[str, Any] = {}
    for text in options:
        if not text.partition("=")[2]:
            raise UsageError(f"--protect-option: got {text!r}; want key=value (statfed protections {name})")
        apply_override(read, text, "--protect-option")
    return {"name": name, "minimum_holders": minimum_holders, "options": read}


_PRIVACY_KEYS = {"max_records": "max_records_per_unit", "margin": "margin_of_error"}


def read_privacy(text: str) -> dict[str, Any]:
    """`epsilon=1,delta=1e-6,unit=person,max-records=3`, or `margin=50,part=count`, as the fields of a section.

    Who adds the noise stands in front: `central:epsilon=1`, `shared:epsilon=1,colluders=2`.
    """
    fields = {}
    where, sign, rest = text.partition(":")
    if sign:
        if where.strip() not in get_args(Placement):
            raise UsageError(f"--privacy: got {where!r} before the colon; want {', '.join(get_args(Placement))}")
        fields["noise"], text = where.strip(), rest
    for part in text.split(","):
        key, sign, value = part.partition("=")
        if not sign:
            raise UsageError(f"--privacy: got {part!r}; want key=value, for example epsilon=1,delta=1e-6")
        name = key.strip().replace("-", "_")
        name = _PRIVACY_KEYS.get(name, name)
        if name in fields:
            raise UsageError(f"--privacy: got {key.strip()} twice; want it once")
        fields[name] = value.strip()
    return fields
