"""Hard exclusions: a technique that breaks one does not apply to the case, whatever speaks for it.

Each rule is data and a predicate: it returns a sentence with the case's facts, or nothing. `facts` names the facts that
it looks at; docs/recommend.md lists all rules.
"""

from collections.abc import Callable
from dataclasses import dataclass

from statfed.core.applicability import obstacles
from statfed.core.scenario import Case
from statfed.lab.recommend import cost, noise
from statfed.lab.recommend.answer import Exclusion
from statfed.lab.recommend.linked import refusal
from statfed.lab.recommend.techniques import NOISE, Candidate, representative

FEWEST = 3  # contributors of an exact sum in which nobody can subtract its own part and see another's
YEARLY = {"once": 1, "yearly": 1, "monthly": 12, "continuous": 365}
"""Releases of a year, by recurrence: continuous is taken to be daily."""
SAYS = {"trusted": "trusted", "honest-but-curious": "honest but curious", "malicious": "possibly malicious"}


@dataclass(frozen=True)
class Rule:
    """One hard rule. excludes: a sentence where the technique breaks it, else nothing."""

    id: str
    title: str
    facts: tuple[str, ...]
    source: str
    excludes: Callable[[Case, Candidate], str]


def _alone(case: Case, candidate: Candidate) -> str:
    if case.parties > 1 or candidate.requires.minimum_holders == 1:
        return ""
    return "one organisation has all the data: there are no others to hide it among or to combine it with"


def _partitioning(case: Case, candidate: Candidate) -> str:
    if case.partitioning in candidate.partitionings:
        return ""
    return f"the partitioning is {case.partitioning}, and this is for {_list(candidate.partitionings)}"


def _output(case: Case, candidate: Candidate) -> str:
    if case.output in candidate.outputs:
        return ""
    return f"the output is {case.output}, and this gives {_list(candidate.outputs)}"


def _identifier(case: Case, candidate: Candidate) -> str:
    if case.partitioning == "horizontal" or case.identifier in candidate.identifiers:
        return ""
    has = {"none": "no common identifier", "common": "an exact common identifier", "noisy": "an identifier with errors"}
    wants = _list(tuple(has[name] for name in candidate.identifiers))
    return f"holders have {has[case.identifier]}, and units are matched by {wants}"


def _most_parties(case: Case, candidate: Candidate) -> str:
    if candidate.most is None or case.parties <= candidate.most:
        return ""
    return f"{case.parties} organisations hold data, and this links the units of {candidate.most} at most"


def _two_parties(case: Case, candidate: Candidate) -> str:
    if candidate.linkage:  # a figure over the matched is no sum of the parties' own: nobody has a part to subtract
        return ""
    fewest = max(candidate.requires.minimum_holders, FEWEST if case.sensitivity == "high" else 1)
    if candidate.release != "exact" or case.parties == 1 or case.parties >= fewest:
        return ""
    harm = ", whose disclosure would do much harm" if case.sensitivity == "high" else ""
    return (
        f"with {case.parties} organisations each subtracts its own part from the exact total and has the "
        f"other's{harm}: at least {max(fewest, FEWEST)} contributors, or noise"
    )


def _shown(case: Case, candidate: Candidate) -> str:
    if not candidate.shows_contributions or case.coordinator == "trusted":
        return ""
    if case.sensitivity == "high" or (case.coordinator == "malicious" and case.sensitivity == "moderate"):
        return (
            f"the coordinator is {SAYS[case.coordinator]} and would see each holder's contribution, whose sensitivity "
            f"is {case.sensitivity}"
        )
    return ""


def _central(case: Case, candidate: Candidate) -> str:
    if candidate.release != "central" or case.coordinator == "trusted":
        return ""
    return f"the coordinator would add the noise, to a total that it sees exactly, and is {SAYS[case.coordinator]}"


def _malicious(case: Case, candidate: Candidate) -> str:
    if case.coordinator != "malicious" or not candidate.semi_honest:
        return ""
    return "the coordinator may deviate from the protocol, and this holds only while it follows it"


def _malicious_functions(case: Case, candidate: Candidate) -> str:
    if candidate.linkage and candidate.nodes and case.output == "statistics" and case.coordinator == "malicious":
        return (
            "figures over the matched would be worked out on shares by parties that follow the protocol, at points of "
            "a model that the coordinator tells them, and the coordinator may deviate"
        )
    needs = case.dominance and case.output == "statistics" and candidate.release == "exact"
    if case.coordinator != "malicious" or not needs or not candidate.requires.functions or not candidate.nodes:
        return ""
    return (
        "dominance would be decided by a function of holders' figures, which holds while coordinator and nodes follow "
        "the protocol, and the coordinator may deviate"
    )


def _exact(case: Case, candidate: Candidate) -> str:
    if case.exact and candidate.similar:
        return "results have to be exact, and of links between keys that are alike some are wrong and some are missed"
    if not case.exact or candidate.release in ("exact", "any"):
        return ""
    what = "synthetic records are not" if candidate.release == "synthetic" else "noise is added, which makes them not"
    return f"results have to be exact, and {what}"


def _epsilon(case: Case, candidate: Candidate) -> str:
    if case.epsilon is None or candidate.release in ("any", *NOISE):
        return ""
    return f"epsilon {case.epsilon:g} is required, and without noise there is no epsilon"


def _hides(_: Case, candidate: Candidate) -> str:
    requires = candidate.requires
    if candidate.release != "shared" or (requires.fixed_point and not requires.reveals_updates):
        return ""
    shows = "shows each contribution" if requires.reveals_updates else "does not add whole numbers exactly"
    return f"each holder adds a part of the noise only, and this protection {shows}: a part alone protects nobody"


def _third_party(case: Case, candidate: Candidate) -> str:
    if candidate.nodes != 1 or case.third_party:
        return ""
    return f"needs {candidate.requires.third_parties}, and there is no independent third party"


def _nodes(case: Case, candidate: Candidate) -> str:
    there = case.parties + case.third_party
    if candidate.nodes < 2 or there >= candidate.nodes:
        return ""
    return (
        f"needs {candidate.requires.third_parties}, each run by another organisation; there are {there} "
        f"({case.parties} holders{' and a third party' if case.third_party else ', no third party'})"
    )


def _dominance(case: Case, candidate: Candidate) -> str:
    needed = case.dominance and case.output == "statistics" and (candidate.release == "exact" or candidate.linkage)
    if needed and candidate.linkage:
        return (
            "one or two units may dominate a figure, and nobody sees the joined records to tell: while a holder's "
            "dominance rule is on, sizes and tables of counts leave a linkage, and no other figure"
        )
    if not needed or case.identifier == "none":
        return ""
    return (
        "one or two units may dominate a figure, and a unit may lie with several holders: neither power sums nor the "
        "holders' own largest contributions then tell its part of a pooled cell; linkage has to come first"
    )


def _dropout(case: Case, candidate: Candidate) -> str:
    if not case.dropout or candidate.requires.survives_dropout or case.recurrence not in ("monthly", "continuous"):
        return ""
    return f"a holder may be away, every holder is needed, and a {case.recurrence} release cannot wait"


def _drowns(case: Case, candidate: Candidate) -> str:
    seen = noise.seen(case, linkage=candidate.linkage)
    if case.epsilon is None or not candidate.noisy or noise.ratio(seen, candidate.release) <= noise.limit(case):
        return ""
    said = noise.in_words(seen, candidate.release)
    return f"{said}, above the {100 * noise.limit(case):.0f} % at which a release is of use"


def _budget(case: Case, candidate: Candidate) -> str:
    wanted = YEARLY[case.recurrence]
    if case.epsilon is None or not candidate.noisy or wanted == 1:
        return ""
    bought = noise.affordable(noise.seen(case, linkage=candidate.linkage), candidate.release)
    if bought == 0 or bought >= wanted:  # none at all is the rule before
        return ""
    return (
        f"{case.recurrence} releases are {wanted} a year, and a total epsilon of {case.epsilon:g} buys {bought:.0f} "
        "before noise drowns them"
    )


def _time(case: Case, candidate: Candidate) -> str:
    found, patience = cost.estimate(case, candidate), cost.PATIENCE[case.recurrence]
    if found is None or found.total <= 3600 * patience:
        return ""
    what = f"{case.records:.2g} records a holder are" if candidate.linkage else f"{case.numbers:.2g} numbers are"
    return (
        f"{what} {found.bytes / 1e9:.2g} GB a holder and release: "
        f"{found.total / 3600:.2g} hours over {case.bandwidth:g} Mbit/s (modelled), above {patience:g} for a release "
        f"that is {case.recurrence}"
    )


def _applicable(case: Case, candidate: Candidate) -> str:
    """What stands against a study like the case's by the same rules as refuse it when it is run."""
    if candidate.protection is None:
        return ""
    terms = representative(case, candidate)
    if candidate.linkage and (why := refusal(terms)):
        return why
    found = obstacles(terms)
    return "; ".join(one.reason for one in found if not one.reason.endswith("not installed"))


RULES = (
    Rule(
        "one-party",
        "what combines or hides holders has several of them",
        ("parties",),
        "a sum over one holder is its contribution; `REQUIRES.minimum_holders`",
        _alone,
    ),
    Rule(
        "partitioning",
        "the technique is for the way data are partitioned",
        ("partitioning",),
        "each protocol's own definition; docs/protections.md",
        _partitioning,
    ),
    Rule("output", "the technique gives the output", ("output",), "each protocol's own definition", _output),
    Rule(
        "identifier",
        "units can be matched across holders",
        ("partitioning", "identifier"),
        "UNECE/Input-Privacy-Preserving-Project: recall with typing errors",
        _identifier,
    ),
    Rule(
        "most-parties",
        "a linkage is between no more holders than its protocol is for",
        ("parties",),
        "`PARTIES` of the linkage",
        _most_parties,
    ),
    Rule(
        "two-parties",
        "nobody can subtract its own part from an exact total and have another's",
        ("parties", "sensitivity"),
        "docs/protections.md; `REQUIRES.minimum_holders`",
        _two_parties,
    ),
    Rule(
        "contributions-shown",
        "a coordinator that is not trusted does not see sensitive contributions",
        ("coordinator", "sensitivity"),
        "Zhu et al. 2019, Deep leakage from gradients; `REQUIRES.reveals_updates`",
        _shown,
    ),
    Rule(
        "central-noise-trust",
        "who adds central noise is trusted",
        ("coordinator",),
        "statfed.core.privacy.placement",
        _central,
    ),
    Rule(
        "malicious-coordinator",
        "the protection withstands the coordinator at its worst",
        ("coordinator",),
        "docs/protections.md, keys and pins; `REQUIRES.identities`",
        _malicious,
    ),
    Rule(
        "malicious-functions",
        "functions on shares are computed by parties that follow the protocol",
        ("coordinator", "dominance", "output"),
        "Ben-Or, Goldwasser and Wigderson 1988, theorem 1; `TRUST` of multi-party and of helper",
        _malicious_functions,
    ),
    Rule("exact", "official figures are exact", ("exact",), "Terms.exact; docs/protections.md; `PARTED`", _exact),
    Rule("epsilon", "a required epsilon is kept", ("epsilon",), "Dwork et al. 2006", _epsilon),
    Rule(
        "shared-noise-hidden",
        "shares of noise are hidden",
        (),
        "Kairouz, Liu and Steinke 2021; statfed.core.privacy.placement",
        _hides,
    ),
    Rule(
        "third-party",
        "the independent party that it stands on exists",
        ("third_party",),
        "`REQUIRES.third_parties`: a key holder that colludes opens everything",
        _third_party,
    ),
    Rule(
        "independent-nodes",
        "compute nodes are run by as many different organisations",
        ("parties", "third_party"),
        "Ben-Or, Goldwasser and Wigderson 1988: honest majority; `REQUIRES.third_parties`",
        _nodes,
    ),
    Rule(
        "dominance",
        "dominance rules need each unit at one holder only",
        ("dominance", "identifier", "output"),
        "Hundepool et al. 2012, chapters 4 and 5; docs/multi-party.md; `REQUIRES.functions`",
        _dominance,
    ),
    Rule(
        "dropout",
        "frequent releases do not wait for one holder",
        ("dropout", "recurrence"),
        "`REQUIRES.survives_dropout`",
        _dropout,
    ),
    Rule(
        "noise-drowns",
        "noise leaves something of the signal",
        ("epsilon", "records", "numbers", "parties"),
        "Statistics Canada: coefficients of variation above 33.3 % are not released; Balle and Wang 2018 for the noise",
        _drowns,
    ),
    Rule(
        "budget",
        "the privacy budget lasts a year of releases",
        ("epsilon", "recurrence", "records", "numbers"),
        "composition of Gaussian mechanisms: Dong, Roth and Su 2022, corollary 3.3",
        _budget,
    ),
    Rule(
        "time",
        "a release is done in time",
        ("numbers", "records", "bandwidth", "latency", "recurrence"),
        "modelled from counted bytes and `REQUIRES.cost`; of linkages from measured ones",
        _time,
    ),
    Rule(
        "applicability",
        "a study like the case is not refused",
        ("parties", "output", "partitioning"),
        "statfed.core.applicability, asked where no other rule excludes",
        _applicable,
    ),
)


def excluded(case: Case, candidate: Candidate) -> tuple[Exclusion, ...]:
    """Every rule that a technique breaks in a case; none where it applies."""
    found: list[Exclusion] = []
    for rule in RULES:
        if rule.excludes is _applicable and found:
            continue
        text = rule.excludes(case, candidate)
        if text:
            found.append(Exclusion(rule=rule.id, text=text, source=rule.source))
    return tuple(found)


def excludes(case: Case, candidate: Candidate) -> bool:
    """Does a rule exclude the technique? As `excluded`, but it stops at the first."""
    return any(rule.excludes(case, candidate) for rule in RULES)


def _list(words: tuple[str, ...]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"
