"""A policy as an Offer in ODRL, for catalogues and contracts: what its holder lets be computed, and on what conditions.

The words that ODRL does not have are in a namespace of their own, declared as its profile. Thresholds under [minimum]
and [disclosure] are the holder's secret and are not in it: that rules are applied is told, by which numbers is not. Nor
is where the data lie. What the file says is for reading: policy.toml alone decides.

Source: W3C 2018, ODRL Information Model 2.2 (sections 2.1.2 Offer, 2.5 constraints, 2.6 rules) and its JSON-LD context.
"""

import hashlib
import json
from collections.abc import Iterator
from typing import Any

from statfed.client.guard.policy import ANY, Policy

CONTEXT = "http://www.w3.org/ns/odrl.jsonld"
PROFILE = "urn:x-statfed:odrl:1"
PREFIX, NAMESPACE = "statfed", f"{PROFILE}#"
XSD = "http://www.w3.org/2001/XMLSchema#"


def exported(policy: Policy) -> dict[str, Any]:
    """The policy as JSON-LD, the same for the same policy. In a pilot people approve each study first."""
    name, dataset = policy.holder.name, policy.dataset
    common = list(_common(policy))
    asked = {"action": "obtainConsent", "consentingParty": f"urn:x-statfed:party:{name}"}
    permissions = [_permission([*common, *_private(policy)], [asked])]
    if policy.allow.without_privacy:
        duties = [] if policy.disclosure.silent else [{"action": _own("controlDisclosure")}]
        permissions.append(_permission([*common, *_exact(policy)], [*duties, asked]))
    body = {
        "@context": [CONTEXT, {PREFIX: NAMESPACE, "xsd": XSD}],
        "@type": "Offer",
        "profile": PROFILE,
        "conflict": "prohibit",
        "assigner": f"urn:x-statfed:party:{name}",
        "target": {
            "@type": "Asset",
            "uid": _asset(policy),
            _own("records"): _typed(dataset.records, "integer"),
            _own("persons"): _typed(dataset.persons, "integer"),
        },
        "permission": permissions,
    }
    digest = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
    return {**body, "uid": f"urn:x-statfed:policy:{name}:{digest[:32]}"}


def _asset(policy: Policy) -> str:
    named = hashlib.sha256(policy.dataset.id.encode()).hexdigest()[:16]
    return f"urn:x-statfed:data:{policy.holder.name}:{named}"


def _permission(constraints: list[dict[str, Any]], duties: list[dict[str, Any]]) -> dict[str, Any]:
    made: dict[str, Any] = {"action": _own("compute"), "constraint": constraints}
    return made | ({"duty": duties} if duties else {})


def _common(policy: Policy) -> Iterator[dict[str, Any]]:
    """What holds for every study."""
    allow, limits = policy.allow, policy.limits
    for word, names in (
        ("method", allow.methods),
        ("protection", allow.protections),
        ("column", allow.columns),
        ("selection", allow.filters),
        ("codebook", policy.dataset.codebooks),
    ):
        if ANY not in names and not (word == "codebook" and policy.rehearsal and not names):
            yield _constraint(word, "isAnyOf", list(names))
    if ANY not in allow.protections:  # who may see everything is not limited in whom else it trusts
        yield _constraint("thirdParty", "isAnyOf", list(allow.third_parties))
    if allow.linkages and ANY not in allow.keys:
        yield _constraint("linkageKey", "isAnyOf", ["codebook", *allow.keys])
    if allow.strategies is not None:
        yield _constraint("strategy", "isAnyOf", list(allow.strategies))
    for word, most in (("sums", limits.asks), ("numbers", limits.entries), ("cells", limits.cells)):
        yield _constraint(word, "lteq", _typed(most, "integer"))


def _private(policy: Policy) -> Iterator[dict[str, Any]]:
    """What holds for studies with noise: the budget of the data's whole life."""
    budget = policy.budget
    yield _constraint("privacyUnit", "eq", budget.unit)
    yield _constraint("lifetimeEpsilon", "lteq", _typed(budget.epsilon, "decimal"))
    yield _constraint("lifetimeDelta", "lteq", _typed(budget.delta, "double"))
    yield _constraint("noise", "isAnyOf", list(policy.allow.noise))


def _exact(policy: Policy) -> Iterator[dict[str, Any]]:
    """What holds for studies without noise."""
    allow, limits = policy.allow, policy.limits
    for word, names in (("formulaFunction", allow.functions), ("weight", allow.weights)):
        if ANY not in names:
            yield _constraint(word, "isAnyOf", list(names))
    if limits.figures is not None:
        yield _constraint("lifetimeFigures", "lteq", _typed(limits.figures, "integer"))


def _constraint(word: str, operator: str, right: Any) -> dict[str, Any]:
    return {"leftOperand": _own(word), "operator": operator, "rightOperand": right}


def _own(word: str) -> str:
    return f"{PREFIX}:{word}"


def _typed(value: float, kind: str) -> dict[str, str]:
    text = f"{value:f}".rstrip("0").rstrip(".") if kind == "decimal" else f"{value}"
    return {"@value": text, "@type": f"xsd:{kind}"}
