"""Targets: whole commands, with files and words that are nearly right. An outcome is an exit code that is documented,
one JSON document where that was asked for, and nothing of a record's values on either stream."""

import json
from collections.abc import Sequence
from contextlib import chdir
from functools import partial
from pathlib import Path

import click
from hypothesis import strategies as st
from typer.testing import CliRunner

from statfed.cli.main import app
from statfed.core.errors import BY_NAME, StatfedError, UsageError
from tests.fuzz.mutations import blobs, words
from tests.fuzz.records import csv
from tests.fuzz.texts import CONDITIONS
from tests.fuzz.trial import CANARIES, Target

CODES: dict[int, type[StatfedError]] = {
    error.exit_code: error for error in BY_NAME.values() if error is not StatfedError
}
BOOK = """[columns.region]
type = "category"
categories = ["A", "B"]
[columns.income]
type = "number"
low = 0
high = 1000
[columns.start]
type = "date"
low = 2000-01-01
high = 2030-01-01
"""
GOOD = "region,income,start\n" + "".join(f"{'AB'[i % 2]},{i + 1},2020-01-{i + 1:02}\n" for i in range(30))
_HOLDERS = ("--holder", "a=a.csv", "--holder", "b=b.csv", "--holder", "c=c.csv", "--codebook", "people.codebook.toml")
_MEAN = ("analyse", "mean", "--columns", "income")


class Undocumented(AssertionError):
    """An outcome that no page tells of."""


def call(words: Sequence[str], folder: Path) -> None:
    """Run a command in a folder. Raises the error of its exit code, and Undocumented where the outcome is none."""
    with chdir(folder):
        try:
            result = CliRunner().invoke(app, list(words), env={"STATFED_RUNS": str(folder / "runs"), "COLUMNS": "200"})
        except ValueError as error:  # click itself, of text that no terminal can give
            raise UsageError(type(error).__name__) from None
    if result.exception is not None and not isinstance(result.exception, SystemExit | click.ClickException):
        raise result.exception
    said = result.stdout + result.stderr
    if result.exit_code not in (0, *CODES) or "Traceback" in said or "internal error" in said:
        raise Undocumented(f"exit code {result.exit_code}: {said[-600:]}")
    if any(canary in said for canary in CANARIES):
        raise Undocumented(f"a value of a record: {said[-600:]}")
    if "--json" in words and result.stdout:
        found = json.loads(result.stdout)
        if result.exit_code and found["error"]["exit_code"] != result.exit_code:
            raise Undocumented(f"another exit code in the document: {found}")
    if result.exit_code:
        raise CODES[result.exit_code](said[-2000:])


def prepared(folder: Path) -> None:
    """The files of three holders, and their codebook."""
    for name in ("a", "b", "c"):
        (folder / f"{name}.csv").write_text(GOOD, encoding="utf-8")
    (folder / "people.codebook.toml").write_text(BOOK, encoding="utf-8")


def _with(first: Sequence[str], last: Sequence[str], text: str, folder: Path) -> None:
    if not (folder / "a.csv").exists():
        prepared(folder)
    call([*first, text, *last, "--fresh", "--json"], folder)


def _records(raw: bytes, folder: Path) -> None:
    prepared(folder)
    (folder / "b.csv").write_bytes(raw)
    call([*_MEAN, *_HOLDERS, "--fresh", "--json"], folder)


def _words(given: Sequence[str], folder: Path) -> None:
    prepared(folder)
    call(given, folder)


_COMMANDS = (
    ("runs", "show", "last"),
    ("scenarios", "show", "wages", "--json"),
    ("protections", "plain", "--json"),
    ("codebook", "show", "people.codebook.toml", "--json"),
    ("codebook", "pin", "people.codebook.toml"),
    ("ledger", "show", "--holder", "a"),
    ("recommend", "--scenario", "wages", "--set", "parties=3"),
    ("holder", "why", "abc"),
    ("annex", "last"),
    ("data", "fetch", "nothing"),
    ("policy", "check", "--home", "."),
    ("analyse", "count", "--holder", "a=a.csv", "--json"),
)


def _spoilt(given: tuple[tuple[str, ...], int, str]) -> tuple[str, ...]:
    command, place, text = given
    at = place % len(command)
    return (*command[:at], text, *command[at + 1 :])


TARGETS = (
    Target("command: records", blobs(csv(), GOOD.encode()), _records, share=0.3, counted=False),
    Target(
        "command: --where", words("income >= 18", *CONDITIONS), partial(_with, (*_MEAN, *_HOLDERS, "--where"), ()),
        share=0.3, counted=False,
    ),
    Target(
        "command: --formula",
        words("income ~ C(region)", "income ~ I(income**2)", "income ~ regoin", "start ~ region"),
        partial(_with, ("analyse", "ols", *_HOLDERS, "--formula"), ()),
        share=0.2, counted=False,
    ),
    Target("command: words", st.tuples(st.sampled_from(_COMMANDS), st.integers(0, 9), words("--json", "-x", "..")).map(
        _spoilt
    ), _words, share=0.3, counted=False),
)  # fmt: skip
