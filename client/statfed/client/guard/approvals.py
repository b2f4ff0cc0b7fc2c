"""Standing approvals of a policy: which studies they are for."""

from datetime import UTC, date, datetime, time, timedelta

from statfed.client.guard.policy import Approval, Standing
from statfed.core.terms import Terms


def covering(rules: Approval, terms: Terms, now: datetime) -> Standing | None:
    """The first standing approval that a study is of the kind of; what was spent under it is looked at elsewhere."""
    return next((rule for rule in rules.standing if covers(rule, terms, now)), None)


def covers(rule: Standing, terms: Terms, now: datetime) -> bool:
    """Is this a study of the kind that a standing approval is for, and does that hold now?"""
    if terms.method not in rule.methods or now >= end_of(rule):
        return False
    return rule.exact if terms.privacy is None else 0 < terms.privacy.epsilon <= rule.epsilon


def end_of(rule: Standing) -> datetime:
    """When a standing approval ends: with its last day, in UTC."""
    return datetime.combine(date.fromisoformat(rule.until) + timedelta(days=1), time(), UTC)
