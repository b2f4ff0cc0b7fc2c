"""The laws that `statfed plugin check` puts plugins under: built-ins keep them, and each catches who breaks it."""

import json
from typing import Any

import pytest
from typer.testing import CliRunner

from statfed.cli.main import app
from statfed.core.discovery import load, modules
from statfed.core.errors import UsageError
from statfed.core.method import load_method
from statfed.core.protection import PACKAGE
from statfed.lab.laws import methods, protections
from statfed.lab.laws.check import Check, Law, judge
from statfed.lab.laws.methods import Subject as Asked
from statfed.lab.laws.methods import check_method
from statfed.lab.laws.protections import check_protection
from statfed.lab.laws.sums import Subject as Protected
from statfed.strategies.analyses import _divided
from tests import fakes
from tests.fakes import ANALYSIS, PROTECTION, TRAINING, brought, weighed_by_age

BUILT_IN = [(name, law) for name in sorted(modules(PACKAGE)) for law in protections.LAWS]


def only(laws: tuple[Law[Any], ...], law: str, subject: Any) -> Check:
    """One law's verdict."""
    (check,) = judge([one for one in laws if one.id == law], subject, lambda *_: None)
    return check


@pytest.mark.parametrize(("name", "law"), [pytest.param(n, law, id=f"{n}-{law.id}") for n, law in BUILT_IN])
def test_every_built_in_protection_keeps_every_law(name: str, law: Law[Any]) -> None:
    (check,) = judge([law], Protected(name, load(PACKAGE, name, "protection")), lambda *_: None)
    assert check.passed, check.detail


def test_the_bases_of_the_fakes_keep_every_law() -> None:
    with brought("protections", PROTECTION) as name:
        assert [check for check in check_protection(name) if not check.passed] == []
    with brought("analyses", ANALYSIS) as name:
        assert [check for check in check_method(name) if not check.passed] == []


def changed(base: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    return {name: item for name, item in (base | change).items() if item is not None}


@pytest.mark.parametrize(("law", "found", "change"), fakes.PROTECTIONS)
def test_each_law_of_protections_catches_who_breaks_it(law: str, found: str, change: dict[str, Any]) -> None:
    with brought("protections", changed(PROTECTION, change)) as name:
        subject = Protected(name, load(PACKAGE, name, "protection"))
        check = only(protections.LAWS, law, subject)
        if law == "contract":
            assert check_protection(name) == [check]  # the others would stumble over it
    assert check.passed is (None if law == "card" else False)
    assert found in check.detail


@pytest.mark.parametrize(("law", "found", "change"), fakes.ANALYSES)
def test_each_law_of_methods_catches_who_breaks_it(law: str, found: str, change: dict[str, Any]) -> None:
    with brought("analyses", changed(ANALYSIS, change)) as name:
        check = only(methods.LAWS, law, Asked(name, load_method(name)))
        if law == "contract":
            assert check_method(name) == [check]
    assert check.passed is False
    assert found in check.detail


def test_a_standard_error_without_the_privacy_noise_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    subject = Asked("mean", load_method("mean"), 0)
    assert only((methods.ERRORS,), "errors", subject).passed
    monkeypatch.setattr(_divided.Sums, "variance", lambda self, *_: 0.0 * self.y)
    check = only((methods.ERRORS,), "errors", subject)
    assert check.passed is False
    assert "want" in check.detail


def test_every_law_has_a_fake_that_breaks_it() -> None:
    assert {law for law, *_ in fakes.PROTECTIONS} == {law.id for law in protections.LAWS}
    assert {law for law, *_ in fakes.ANALYSES} == {law.id for law in methods.LAWS}  # tests/lab/test_declared.py: SAID


def test_a_law_that_meets_an_unforeseen_error_is_broken_and_says_by_what() -> None:
    def fails(agreement: Any) -> Any:
        raise KeyError("forgotten")

    with brought("protections", changed(PROTECTION, {"coordinator": fails})) as name:
        check = only(protections.LAWS, "totals", Protected(name, load(PACKAGE, name, "protection")))
    assert (check.passed, check.detail) == (False, "KeyError: 'forgotten'")


def test_an_unknown_name_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="unknown protection: got 'nobody'"):
        check_protection("nobody")
    done = CliRunner().invoke(app, ["plugin", "check", "nobody", "--json"])
    assert done.exit_code == 2
    assert "want a protection or a method" in json.loads(done.stdout)["error"]["message"]


def test_the_command_tells_what_is_broken_and_exits_with_2() -> None:
    with brought("analyses", changed(ANALYSIS, {"PUSHES_DOWN": None})) as name:
        done = CliRunner().invoke(app, ["plugin", "check", name, "--json"])
        shown = CliRunner().invoke(app, ["plugin", "check", name])
        listed = CliRunner().invoke(app, ["plugin", "list"])
    assert (done.exit_code, shown.exit_code, listed.exit_code) == (2, 2, 0)
    document = json.loads(done.stdout)
    assert not document["passed"]
    (checked,) = document["checked"]
    assert (checked["kind"], checked["from"]) == ("analysis", "outsider 1.0")
    (law,) = checked["laws"]
    assert law == {
        "id": "contract",
        "title": "The module has what the contract asks for, and an example",
        "passed": False,
        "detail": "PUSHES_DOWN: missing; want it, as statfed.core.method says",
    }
    assert "FAIL" in shown.stdout
    assert "outsider" in listed.stdout


def test_the_command_checks_built_ins_too() -> None:
    done = CliRunner().invoke(app, ["plugin", "check", "plain"])
    assert done.exit_code == 0
    assert "protection plain, built in" in done.stdout
    assert CliRunner().invoke(app, ["plugin", "list", "--json"]).stdout == '{\n  "plugins": []\n}\n'


def test_a_training_method_from_outside_is_put_under_the_same_laws() -> None:
    with brought("training", TRAINING) as name:
        assert [check for check in check_method(name) if not check.passed] == []
        done = CliRunner().invoke(app, ["plugin", "list", "--json"])
    assert [row["group"] for row in json.loads(done.stdout)["plugins"]] == ["statfed.training"]
    with brought("training", changed(TRAINING, {"contribute": weighed_by_age})) as name:
        check = only(methods.LAWS, "public", Asked(name, load_method(name)))
    assert check.passed is False
    assert "fit: weight: got other figures of other records" in check.detail
