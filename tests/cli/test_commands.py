"""Commands are found by name: one line each in the help, and a module only when its command is typed."""

import os
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from statfed.cli._commands import COMMANDS
from statfed.cli.main import app

HEAVY = ("numpy", "pydantic", "pyarrow", "duckdb", "ibis", "pandas", "torch", "flwr", "cryptography")


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_is_there_and_says_of_itself_what_the_help_says(name: str) -> None:
    command = COMMANDS[name].load(name)
    told = command.short_help or (command.help or "").split("\n\n")[0]
    assert " ".join(told.split()) == COMMANDS[name].help
    assert command.name == name


def test_the_help_has_every_command_under_its_heading_and_a_slip_is_told_the_nearest() -> None:
    told = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "200"}).stdout
    for name, place in COMMANDS.items():
        assert f"│ {name} " in told
        assert place.panel in told
    slip = CliRunner().invoke(app, ["anlyse"], env={"COLUMNS": "200"})
    assert slip.exit_code == 2
    assert "did you mean analyse?" in slip.output


@pytest.mark.parametrize(
    ("words", "env"),
    [
        (["--help"], {}),
        (["--version"], {}),
        (["anlyse"], {}),
        ([], {"_STATFED_COMPLETE": "complete_bash", "COMP_WORDS": "statfed an", "COMP_CWORD": "1"}),
    ],
)
def test_what_needs_names_alone_imports_nothing_heavy(words: list[str], env: dict[str, str]) -> None:
    code = (
        "import sys\nfrom statfed.cli.main import app\nsys.argv = ['statfed', *sys.argv[1:]]\n"
        f"try:\n    app(prog_name='statfed')\nfinally:\n    heavy = {HEAVY!r}\n"
        "    print([one for one in heavy if one in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *words], env={**os.environ, **env}, capture_output=True, text=True, check=False
    )
    assert done.stderr.strip().endswith("[]"), done.stderr
    if env:
        assert done.stdout.split() == ["analyse", "analyses", "annex"]
