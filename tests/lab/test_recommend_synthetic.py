"""Recommendations of synthetic records: the guide's words, the case's facts, commands that exist, and no clearance."""

import json
import re
import shlex

import pytest
from typer.testing import CliRunner

from statfed.cli._commands import COMMANDS
from statfed.cli.main import app
from statfed.core.discovery import SYNTHESIS, modules
from statfed.core.errors import UsageError
from statfed.core.scenario import Case
from statfed.core.synthetic.guide import guide
from statfed.lab.recommend import recommend
from statfed.lab.recommend.markdown import markdown
from statfed.lab.recommend.synthetic import Synthetic, first, of_case

RECORDS = Case(output="synthetic-data")
USES = [use.id for use in guide().uses]
CASES = [
    RECORDS,
    Case(output="synthetic-data", parties=1, epsilon=1.0),
    Case(output="synthetic-data", partitioning="vertical", parties=2),
    Case(output="synthetic-data", parties=5, epsilon=0.5, coordinator="trusted"),
    Case(),
    Case(sensitivity="high"),
    Case(output="model", partitioning="vertical", identifier="common"),
]


def test_every_built_method_is_suited_to_some_use_and_stands_first_where_the_guide_has_it() -> None:
    told = of_case(RECORDS)
    assert [one.use for one in told] == USES
    built = {one.method for use in told for one in use.methods if one.built}
    assert built == set(modules(SYNTHESIS))
    for one in told:
        use = guide().use(one.use)
        assert tuple(method.method for method in one.methods) == use.methods
        assert {shown.measure for shown in one.measures} == {*use.measures, *(limit.measure for limit in use.limits)}
        assert sum(len(shown.limits) for shown in one.measures) == len(use.limits)


@pytest.mark.parametrize("case", CASES)
def test_nothing_is_called_cleared_and_the_challenge_is_told(case: Case) -> None:
    answer = recommend(case, known={})
    for told in answer.synthetic:
        assert guide().challenge in told.caution
        assert told.caution.startswith("No file is cleared by this.")
    said = json.dumps([answer.headline, [one.model_dump() for one in answer.synthetic]]) + markdown(answer)
    for word in re.finditer(r"clear(ed|s|ance)?\b", said):
        before = said[max(0, word.start() - 20) : word.start()].lower()
        assert re.search(r"no file is |none is |no |in $", before), said[word.start() - 60 : word.end() + 20]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("use", USES)
def test_commands_are_of_this_program_and_say_what_the_case_asks(case: Case, use: str) -> None:
    (told,) = of_case(case, use)
    chosen = first(told)
    assert told.commands[0] == f"statfed synth guide --use {use}"
    assert len(told.commands) == (4 if chosen else 1)
    for line in told.commands:
        words = shlex.split(line)
        command = COMMANDS[words[1]].load(words[1]).commands[words[2]]  # type: ignore[attr-defined]
        options = {name for parameter in command.params for name in parameter.opts}
        assert {word for word in words if word.startswith("-")} <= options, line
    if chosen and case.epsilon is not None:
        assert chosen.method == "dummy" or f"epsilon={case.epsilon:g}" in told.commands[1]


def test_an_epsilon_rules_out_what_has_none_and_vertical_data_all_that_look_at_them() -> None:
    def against(case: Case) -> set[str]:
        return {one.method for told in of_case(case) for one in told.methods if one.built and one.stands_against}

    assert against(RECORDS) == set()
    assert against(CASES[1]) == {"cart", "fcs"}
    assert against(CASES[2]) == set(modules(SYNTHESIS)) - {"dummy"}


def test_figures_have_a_twin_where_it_suits() -> None:
    def uses(case: Case) -> list[tuple[str, str]]:
        return [(one.use, one.role) for one in of_case(case)]

    assert uses(Case()) == [("testing-analysis", "rehearsal")]
    assert uses(Case(sensitivity="high")) == [("testing-technology", "rehearsal")]
    assert uses(Case(output="model", partitioning="vertical")) == [("testing-technology", "rehearsal")]
    assert uses(Case(output="linkage", partitioning="linkage")) == []
    assert uses(Case(output="linkage", partitioning="linkage", epsilon=1.0)) == []
    with pytest.raises(UsageError, match="public-release"):
        of_case(Case(), "public-releases")


def test_the_screen_names_the_use_its_methods_and_limits() -> None:
    words = ["recommend", "time-use", "--set", "output=synthetic-data", "--use", "public-release"]
    shown = " ".join(CliRunner().invoke(app, words, env={"COLUMNS": "400"}).output.split())
    (told,) = of_case(RECORDS, "public-release")
    assert isinstance(told, Synthetic)
    for part in (told.why[:60], "singling out", "statfed synth evaluate synthetic.parquet", told.caution[:40]):
        assert part.lower() in shown.lower()
