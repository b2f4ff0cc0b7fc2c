"""Identities of simulated parties, and the home folders of third parties that a protection needs.

In a pilot each organisation makes its own key and pins the others' by hand; a simulation does both at once.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from statfed.client.third_party import FILE
from statfed.core.identity import create_identity
from statfed.core.protection import named_protection
from statfed.core.study import Protection


def home_of(root: Path, name: str) -> Path:
    """A party's home folder under `root`, made when there is none."""
    home = (root / name).resolve()
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    return home


def third_parties(protection: Protection, root: Path) -> dict[str, Path]:
    """The home folders of the third parties that `protection` needs; `admit_third_parties` completes them."""
    module, options = named_protection(protection.name, protection.options)
    return {name: home_of(root, f"party-{name}") for name in module.third_parties(options)}


def identities(homes: Mapping[str, Path]) -> dict[str, str]:
    """Every party's public key; keys are made where there are none."""
    return {name: create_identity(home) for name, home in homes.items()}


def admit_third_parties(homes: Mapping[str, Path], protection: str, pins: Mapping[str, str]) -> None:
    """Write the third parties' party.toml: they take part in `protection`, with the parties of `pins`."""
    for name, home in homes.items():
        lines = ["[party]", f"name = {json.dumps(name)}", "", "[allow]", f"protections = [{json.dumps(protection)}]"]
        lines += ["minimum_holders = 1", "", "[parties]", *_pins(pins)]
        (home / FILE).write_text("\n".join(lines) + "\n", encoding="utf-8")


def _pins(pins: Mapping[str, str]) -> Iterable[str]:
    return (f"{name} = {json.dumps(key)}" for name, key in sorted(pins.items()))
