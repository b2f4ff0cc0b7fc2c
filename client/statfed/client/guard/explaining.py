"""A policy in words: what it allows, what it leaves open, and what stands against a study. Reads no data."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel

from statfed.client.guard.admission import Rule, refusing
from statfed.client.guard.approvals import covering
from statfed.client.guard.policy import ANY, Parties, Policy
from statfed.client.pilot.joining import KIT
from statfed.core.codebook import load_codebook
from statfed.core.errors import StatfedError, UsageError
from statfed.core.pilot.documents import read_document
from statfed.core.pilot.papers import Roster, read_kit
from statfed.core.pilot.proposals import read_proposal
from statfed.core.protection import load_protection
from statfed.core.resolve import resolve
from statfed.core.section import read_toml
from statfed.core.study import load_study
from statfed.core.terms import Terms


@dataclass(frozen=True)
class Verdict:
    """What a policy says of a study. refusing: every rule that it does not satisfy; approval: see `approval_by`."""

    refusing: tuple[Rule, ...]
    approval: str | None = None

    @property
    def admitted(self) -> bool:
        return not self.refusing

    def lines(self) -> list[str]:
        """For people: all that stands against it, each with what to change in the study or in the policy."""
        if not self.refusing:
            return [f"would be admitted{self._approval()}; rules on its cells are tried on the data"]
        found = ["would be refused:"]
        for rule in self.refusing:
            found += [f"- {rule.text}", f"  in the policy: {rule.key or 'nothing admits it; the study has to change'}"]
        return found

    def _approval(self) -> str:
        if self.approval:
            return f", by a standing approval ({self.approval})"
        return "" if self.approval is None else ", in a pilot once people here have approved it"


def approval_by(policy: Policy, terms: Terms) -> str:
    """Who approves a study that the rules admit, in a pilot: the name of the standing approval that covers it, nothing
    for a person here."""
    rule = covering(policy.approval, terms, datetime.now(UTC))
    return rule.name if rule else ""


def verdict(policy: Policy, terms: Terms, approval: str | None = None) -> Verdict:
    """What `policy` says of a study, without data and ledger. approval: of this study, see `approval_by`; none goes
    beyond the policy.

    A study that cannot be read at this end is one that is refused, with that reason.
    """
    try:
        study = resolve(terms, policy.holder.name)
    except StatfedError as error:  # a name or option that nothing here has: nothing more can be said
        return Verdict((Rule(str(error)),))
    rules = tuple(dict.fromkeys(refusing(policy, study)))
    return Verdict(rules, None if rules else approval)


def terms_in(path: Path) -> Terms:
    """The terms in a study file, with the codebooks beside it, or in a proposal that has arrived.

    Raises UsageError.
    """
    if path.suffix == ".json":
        return read_proposal(read_document(path), str(path)).proposal.agreed
    named = isinstance(read_toml(path, "study").get("holders"), list)  # as a pilot's are: without sources
    study = load_study(path, ['engine="pilot"'] if named else [])
    if study.codebook is None:
        raise UsageError(f"{path}: codebook: got none; want the one that holders have pinned")
    others = {name: load_codebook(path.parent / file) for name, file in study.codebooks.items()}
    return study.terms(load_codebook(path.parent / study.codebook), others)


def findings(policy: Policy, home: Path) -> list[str]:
    """What a policy leaves open, or closes so far that nothing is answered, in words."""
    allow, found = policy.allow, list[str]()
    if policy.rehearsal:
        found.append("refusals.explain: a rehearsal: refusals tell of the data; only where one person owns them all")
    elif not policy.dataset.codebooks:
        found.append("dataset.codebooks: none is pinned, so nothing is answered; want statfed codebook pin")
    if allow.public_seed:
        found.append("allow.public_seed: whoever has the study can subtract its noise; only in a simulation")
    if ANY in allow.protections or "plain" in allow.protections:
        found.append("allow.protections: plain shows the coordinator this holder's own sums")
    if allow.without_privacy and policy.disclosure.silent:
        found.append(
            "allow.without_privacy with every rule under [disclosure] off: exact figures of single records leave"
        )
    if allow.without_privacy and (ANY in allow.methods or "local-sgd" in allow.methods):
        found.append("allow.methods: local-sgd without noise: a model can hold single records")
    if ANY in allow.weights and allow.without_privacy:
        found.append("allow.weights: any column may weigh records: one that is 0 for all but one singles it out")
    if ANY in allow.functions and allow.without_privacy:
        found.append("allow.functions: any function may be used: one can be a bump that a single record stands in")
    if ANY in allow.keys and any(one.endswith(":several") for one in allow.linkages):
        found.append("allow.keys: any rule or range may make a key: several linkages may leave out chosen units")
    if "central" in allow.noise:
        found.append("allow.noise: central trusts the coordinator with exact sums")
    if policy.minimum.holders < 3:
        found.append("minimum.holders: a sum of two holders tells each the other's part")
    if not (home / "identity.key").exists():
        found.append("identity.key: none yet; want statfed identity")
    return found + _in_pilot(policy, home)


def _in_pilot(policy: Policy, home: Path) -> list[str]:
    """What a policy does not let this pilot do, by who takes part in it."""
    roster, allow, found = roster_of(home), policy.allow, list[str]()
    if roster is None:
        return found
    holders = sum(one.role == "holder" for one in roster.participants)
    if holders < policy.minimum.holders:
        found.append(
            f"minimum.holders: {roster.pilot} has {holders} data holders at this time and this policy wants "
            f"{policy.minimum.holders} in a sum: nothing is answered before more of them have joined"
        )
    there = {one.name for one in roster.participants if one.role == "third-party"}
    for name in allow.protections:
        module = None if name == ANY or ":" in name else load_protection(name)
        wanted = 0 if module is None else len(module.third_parties(module.Options.model_construct()))
        if module is not None and len(there & set(allow.third_parties)) < wanted:
            have = f"; {roster.pilot} has {', '.join(sorted(there))}" if there else ""
            found.append(
                f"allow.third_parties: {name} wants {module.REQUIRES.third_parties}, and too few of this pilot are "
                f"trusted with that here, so that it is refused{have}"
            )
    return found


def roster_of(home: Path) -> Roster | None:
    """Who takes part in this home's pilot, by its kit; None where it has none."""
    path = home / KIT
    return read_kit(read_document(path), str(path)).kit.roster if path.exists() else None


def summary(policy: Policy) -> list[str]:
    """What a policy allows, in lines."""
    allow, limits, rules = policy.allow, policy.limits, policy.disclosure
    exact = "under the rules of [disclosure]" if not rules.silent else "with every rule off"
    return [
        f"methods: {', '.join(allow.methods) or 'none'}",
        f"without noise: {exact if allow.without_privacy else 'nothing'}",
        f"privacy: epsilon {policy.budget.epsilon:g} per {policy.budget.unit}, noise {', '.join(allow.noise)}",
        f"protections: {', '.join(allow.protections) or 'none'}",
        f"third parties trusted: {', '.join(allow.third_parties) or 'none'}",
        f"columns: {', '.join(allow.columns) or 'none'}; to select records by: {', '.join(allow.filters) or 'none'}",
        f"keys of linkages beside the codebook's: {', '.join(allow.keys) or 'none'}",
        f"weights beside the codebook's: {', '.join(allow.weights) or 'none'}; functions: {', '.join(allow.functions)}",
        f"codebooks pinned: {', '.join(policy.dataset.codebooks) or 'none'}",
        f"exact figures: {_most(limits.figures)}",
        f"refusals that depended on data: {_most(limits.refusals)} in {limits.days:g} days",
        f"what they tell: {'everything (a rehearsal)' if policy.rehearsal else 'one text, no reason'}",
    ]


def _most(number: int | None) -> str:
    return "not counted" if number is None else f"at most {number:,}"


def keys() -> dict[str, str]:
    """Every key of policy.toml, and what it is for."""
    found = {}
    for section, field in Policy.model_fields.items():
        model = field.annotation
        if not (isinstance(model, type) and issubclass(model, BaseModel)) or issubclass(model, Parties):
            found[section] = " ".join((getattr(model, "__doc__", None) or "").split())
            continue
        found |= {f"{section}.{key}": one.description or "" for key, one in model.model_fields.items()}
    return found


def meaning(policy: Policy, wanted: Sequence[str]) -> list[tuple[str, str, str]]:
    """Keys of policy.toml with what stands there and what it is for: those named, or all of a section named.

    Raises UsageError on one that there is not.
    """
    known, found = keys(), list[tuple[str, str, str]]()
    for name in wanted:
        there = [key for key in known if key == name or key.startswith(f"{name}.")]
        if not there:
            raise UsageError(f"key: got {name}; want one of {', '.join(known)}")
        for key in there:
            section, _, entry = key.partition(".")
            value = getattr(getattr(policy, section), entry) if entry else getattr(policy, section).root
            found.append((key, "off" if value is None else f"{value}", known[key]))
    return found
