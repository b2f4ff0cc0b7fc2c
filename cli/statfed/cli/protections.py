"""`statfed protections`: what there is, what each protection trusts, needs and costs, and who learns what."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Annotated, Any

import typer
from rich.markup import escape

from statfed.cli._output import Json, emit_json, out, show_learns, table
from statfed.core.applicability import missing, obstacles, pip
from statfed.core.card import Card, card_of
from statfed.core.discovery import load, modules
from statfed.core.protection import PACKAGE, Requirements
from statfed.core.protection import Protection as Module
from statfed.core.terms import Privacy, Protection, Terms


def protections(
    name: Annotated[
        str | None, typer.Argument(help="Show one protection: its options, who learns what, questions to answer.")
    ] = None,
    as_json: Json = False,
) -> None:
    """List the protections: what each trusts, needs and costs; and where noise can be added."""
    found = {key: load(PACKAGE, key, "protection") for key in ([name] if name else sorted(modules(PACKAGE)))}
    if as_json:
        noise = [asdict(row) for row in PLACEMENTS]
        emit_json({"protections": [_document(key, m) for key, m in found.items()], "noise": noise})
    elif name:
        _show_one(name, found[name])
    else:
        _list(found)
        noise_rows = table(
            "Where noise is added (--privacy NOISE:epsilon=1)", "noise", "who adds it", "trusts", "accuracy"
        )
        for place in PLACEMENTS:
            noise_rows.add_row(place.noise, place.adds, place.trusts, place.accuracy)
        out.print(noise_rows, markup=False)
        out.print("statfed protections NAME shows options, who learns what and questions to answer", highlight=False)


def _list(found: Mapping[str, Module]) -> None:
    """Two tables: to choose by, and what each trusts."""
    columns = ("protection", "coordinator sees", "needs", "dropout", "cost")
    rows = table("Protections (--protect NAME)", *columns, numbers=("cost",))
    trusts = table("What they do, and whom that trusts", "protection", "trusts")
    rows.show_lines = trusts.show_lines = True
    for key, m in found.items():
        sees = "each contribution" if m.REQUIRES.reveals_updates else "the sum"
        survives = "survived" if m.REQUIRES.survives_dropout else "ends the run"
        rows.add_row(key, sees, _needs(m.REQUIRES), survives, f"x {m.REQUIRES.cost}")
        trusts.add_row(key, "\n".join((m.TITLE, *(f"- {one}" for one in m.TRUST))))
    out.print(rows, markup=False)
    out.print("cost: processor time of a sum of a million numbers against plain, order of magnitude")
    out.print(trusts, markup=False)


@dataclass(frozen=True)
class Place:
    """One row of the table of noise. accuracy: standard deviation of the noise in a total over h holders."""

    noise: str
    adds: str
    trusts: str
    accuracy: str


PLACEMENTS = (
    Place(
        "local",
        "each holder, all of it",
        "nobody: holds under every protection",
        "sqrt(h) times that of one holder's noise",
    ),
    Place(
        "central",
        "the coordinator, to the total",
        "the coordinator, with the exact total, or under plain with every holder's; not for training",
        "that of one holder's noise: the same as on pooled data",
    ),
    Place(
        "shared",
        "each holder a part, under a protection that shows exact sums only",
        "the protection, and that no more than the stated number of holders collude (1 by default)",
        "sqrt(h / (fewest holders of a sum - colluders)) times that of one holder's noise",
    ),
)


def _needs(requires: Requirements) -> str:
    """What a protection needs beyond the study, in a few words."""
    needs = [f"{requires.minimum_holders} holders, or noise"] if requires.minimum_holders > 1 else []
    needs += [requires.third_parties] if requires.third_parties else []
    needs += ["identity keys, pinned"] if requires.identities else []
    if requires.extra:
        needs.append(f"statfed[{requires.extra}]{', not installed' if missing(requires.extra) else ''}")
    return "; ".join(needs) or "nothing"


def _document(key: str, module: Module) -> dict[str, Any]:
    """All that is known of a protection, JSON-ready. learns: by kind of study, with and without noise."""
    requires = module.REQUIRES
    return {
        "id": key,
        "title": module.TITLE,
        "trust": list(module.TRUST),
        **asdict(requires),
        "installed": not missing(requires.extra),
        "install": pip(requires.extra) if requires.extra else None,
        "parties": list(module.third_parties(module.Options())),
        "options": module.Options.model_json_schema(),
        "learns": {kind: [asdict(row) for row in module.learns(sample)] for kind, sample in _samples(key).items()},
        "card": [asdict(question) for question in card_of(module).questions],
    }


def _samples(protection: str) -> dict[str, Terms]:
    """A table and a training over four holders, each exact, under differential privacy, and with the noise shared where
    the protection allows that."""
    from statfed.lab.samples import sample

    chosen = Protection(name=protection)
    shared = Privacy.model_validate({"epsilon": 1, "noise": "shared"})
    always = {
        "table": sample("a statistic", 4, chosen),
        "table, epsilon 1": sample("a statistic", 4, chosen, Privacy(epsilon=1)),
        "training": sample("training", 4, chosen),
        "training, epsilon 1": sample("training", 4, chosen, Privacy(epsilon=1)),
    }
    maybe = {
        "table, shared epsilon 1": sample("a statistic", 4, chosen, shared),
        "dp-fedsgd, shared epsilon 1": sample("training", 4, chosen, shared),
    }
    return always | {kind: terms for kind, terms in maybe.items() if not obstacles(terms)}


def _show_one(name: str, module: Module) -> None:
    requires = module.REQUIRES
    out.print(f"[bold]{escape(name)}[/bold]: {escape(module.TITLE)}\n", highlight=False)
    facts = {
        "trusts": "; ".join(module.TRUST),
        "needs": _needs(requires),
        "parties beside the holders": ", ".join(module.third_parties(module.Options())) or "none",
        "the coordinator sees": "each holder's contribution" if requires.reveals_updates else "the sum",
        "totals are": "exact, of whole numbers" if requires.fixed_point else "of floating-point numbers",
        "survives dropout": "yes" if requires.survives_dropout else "no: every holder is needed",
        "cost": f"about {requires.cost} times a plain sum",
    }
    for label, text in facts.items():
        out.print(f"[bold]{label}[/bold]: {escape(text)}", highlight=False)
    if missing(requires.extra):
        out.print(f"[bold yellow]not installed[/bold yellow]: {escape(pip(requires.extra))}", highlight=False)
    out.print()
    fields = module.Options.model_fields
    if fields:
        rows = table("Options (--protect-option KEY=VALUE)", "option", "default", "meaning")
        for key, field in fields.items():
            default = field.get_default(call_default_factory=True)
            rows.add_row(key, "" if default is None else str(default), field.description or "")
        out.print(rows, markup=False)
    for kind, sample in _samples(name).items():
        show_learns(f"Who learns what: {kind}", module.learns(sample))
    show_card(card_of(module))


def show_card(card: Card) -> None:
    """The questions that a technique raises, with what would show the answers."""
    if not card.questions:
        out.print("questions to answer: this technique brings no card", highlight=False)
        return
    rows = table("Questions to answer, and evidence to attach", "topic", "question", "evidence", "known of it")
    rows.show_lines = True
    for one in card.questions:
        rows.add_row(one.topic, one.question, one.evidence, one.note)
    out.print(rows, markup=False)
