"""`statfed link` and `statfed linkages`: units of several holders matched by a key, and what comes of the matched."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, get_args

import typer
from typer.core import TyperCommand

from statfed.cli._answers import carry_out
from statfed.cli._names import Choice
from statfed.cli._output import Json, emit_json, out, table
from statfed.cli._study import Common, Outputs, common_options, output_options, panel
from statfed.cli.protections import show_card
from statfed.core.applicability import missing, pip
from statfed.core.card import card_of
from statfed.core.discovery import LINKAGES, modules
from statfed.core.errors import Refused, UsageError
from statfed.core.linkage import Estimate, Linkage, Reveal, load_linkage, read_analysis
from statfed.core.section import apply_override
from statfed.core.study import make_study

HEADING = "Linkage"
_NOT_HERE = ("exact", "protect", "protect_option", "minimum_holders")
HELP = """Match units that several holders have, without pooling them.

Everything is about units that all holders have, whose keys are equal, or alike in a fuzzy linkage. Who matches is told
to nobody, but for --reveal pairs.

statfed link --key id --holder office=a.parquet --holder bank=b.parquet

statfed link --key id --holder office=a.parquet --holder bank=b.parquet --analysis 'table rows=region columns=sector'

statfed link --key id --holder office=a.parquet --holder bank=b.parquet --analysis 'ols income ~ age + C(region)'

statfed link --key id --holder office=a.parquet --holder bank=b.parquet --codebook keys.toml --privacy epsilon=1

statfed link --key name:name,birth_date --block 'postcode[:2],birth_date[:4]' --fuzzy --holder a=a.csv --holder b=b.csv

statfed link --key name:name,birth_date --block 'postcode[:2],birth_date[:4]' --fuzzy --estimate coverage
 --analysis 'count by=region' --holder a=a.csv --holder b=b.csv
"""


def _run(
    *,
    key: str,
    analysis: str | None,
    by: str | None,
    fuzzy: bool,
    reveal: str | None,
    to: tuple[str, ...],
    estimate: str,
    block: str | None,
    salt: str | None,
    minimum_frequency: int,
    helper: str,
    cap: int | None,
    direct: bool,
    set_: tuple[str, ...],
    as_json: bool,
    csv: str | None,
    parquet: str | None,
    html: str | None,
    **values: Any,
) -> None:
    if fuzzy and by not in (None, "fuzzy"):
        raise UsageError(f"--by: got {by} with --fuzzy; want one of them")
    name = by or ("fuzzy" if fuzzy or block else "helper")
    settings: dict[str, Any] = {}
    for text in set_:
        if not text.partition("=")[2]:
            raise UsageError(f"--set: got {text!r}; want key=value (statfed linkages {name})")
        apply_override(settings, text, "--set")
    method, options = read_analysis(analysis) if analysis else ("count", {})
    linking = {
        "key": key,
        "reveal": reveal or ("pairs" if to else "totals" if method != "count" or options else "size"),
        "to": list(to),
        "block": block or "",
        "salt": salt or "",
        "minimum_frequency": minimum_frequency,
        "helper": helper,
        "cap": cap,
        "direct": bool(direct),
        "options": settings,
    }
    if estimate != "none":
        linking["estimate"] = estimate
    outputs = Outputs(as_json, csv, parquet, html, values.pop("overwrite"), values.pop("runs"))
    missing_here: dict[str, Any] = {"exact": False, "protect": name, "protect_option": ()}
    common = Common(**values, **missing_here, minimum_holders=None)
    given = common.study(method, options) | {"protection": {"name": name, "options": linking}}
    carry_out(make_study(given, where="statfed link"), common, outputs, Path.cwd())


def _options() -> list[Any]:
    option = panel(HEADING)
    return [
        option("key", "--key", required=True, metavar="COLUMNS", help="What units match by: id, or name,birth_date."),
        option(
            "analysis",
            "--analysis",
            metavar="TEXT",
            help="An analysis of the matched in one line; none: how many match. Each column is one holder's.",
        ),
        option("by", "--by", type=Choice(sorted(modules(LINKAGES))), help="How units are matched (statfed linkages)."),
        option("fuzzy", "--fuzzy", is_flag=True, help="Keys may have typing errors: --by fuzzy."),
        option(
            "reveal",
            "--reveal",
            type=Choice(list(get_args(Reveal))),
            help="What comes out; by default what the other options ask for.",
        ),
        option("to", "--to", multiple=True, metavar="NAME", help="Holder that learns which of its units match."),
        option(
            "estimate",
            "--estimate",
            type=Choice(list(get_args(Estimate))),
            default="none",
            show_default=True,
            help="Fuzzy: figures corrected for missed and false links; coverage: the population's size too.",
        ),
        option("block", "--block", metavar="COLUMNS", help="Fuzzy: parts of which one is equal in every pair."),
        option("salt", "--salt", metavar="COLUMN", help="Fuzzy: a part that is right in nearly all records."),
        option(
            "minimum_frequency",
            "--minimum-frequency",
            type=int,
            default=10,
            show_default=True,
            metavar="NUMBER",
            help="Fewest matched units that a figure is about.",
        ),
        option("helper", "--helper", default="helper", metavar="NAME", help="Name of the helper, where there is one."),
        option("cap", "--cap", type=int, metavar="NUMBER", help="Units that every holder fills its own up to."),
        option("direct", "--direct", is_flag=True, help="Sealed packets go from party to party."),
        option("set_", "--set", multiple=True, metavar="KEY=VALUE", help="One further option of the linkage. Repeat."),
    ]


def command() -> TyperCommand:
    """The command `link`."""
    common = [one for one in common_options() if one.name not in _NOT_HERE]
    return TyperCommand(
        "link",
        callback=_run,
        params=[*_options(), *common, *output_options()],
        help=HELP,
        short_help="Match units that several holders have, and analyse the matched.",
        rich_markup_mode="rich",
    )


def _lacking(linkage: Linkage) -> str:
    """What a linkage that needs something of this machine says where it is not there."""
    try:
        getattr(linkage, "ready", lambda: None)()
    except Refused as error:
        return f"\nnot on this machine: {error}"
    return ""


def linkages(
    name: Annotated[str | None, typer.Argument(help="Show one linkage: what it trusts, and its options.")] = None,
    as_json: Json = False,
) -> None:
    """List the linkages: ways of matching units, whom each trusts, and what may come out of it."""
    found = {key: load_linkage(key) for key in ([name] if name else sorted(modules(LINKAGES)))}
    if as_json:
        documents = [
            {
                "name": key,
                "title": one.TITLE,
                "trust": list(one.TRUST),
                "reveals": list(one.REVEALS),
                "holders": list(one.PARTIES),
                "methods": list(one.METHODS),
                "missing": missing(one.EXTRA),
                "options": one.Options.model_json_schema(),
                "card": [asdict(question) for question in card_of(one).questions],
            }
            for key, one in found.items()
        ]
        emit_json({"linkages": documents})
        return
    rows = table("Linkages (statfed link --by NAME)", "linkage", "holders", "reveals", "analyses", "trusts")
    rows.show_lines = True
    for key, one in found.items():
        least, most = one.PARTIES
        needs = (f"\nneeds {pip(one.EXTRA)}" if missing(one.EXTRA) else "") + (_lacking(one) if name else "")
        many = str(least) if least == most else f"{least} to {most}"
        trusts = "\n".join((one.TITLE, *(f"- {text}" for text in one.TRUST))) + needs
        rows.add_row(key, many, ", ".join(one.REVEALS), ", ".join(one.METHODS) or "none", trusts)
    out.print(rows, markup=False)
    if name:
        fields = table(f"Options of {name} (--set)", "option", "default", "what it is")
        for key, field in found[name].Options.model_fields.items():
            default = "" if field.is_required() else str(field.get_default(call_default_factory=True))
            fields.add_row(key, default, field.description or "")
        out.print(fields, markup=False)
        show_card(card_of(found[name]))
