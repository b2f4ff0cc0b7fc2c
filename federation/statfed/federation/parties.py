"""Identities of simulated parties, and the home folders of third parties that a protection needs.

In a pilot each organisation makes its own key and pins the others' by hand; a simulation does both at once.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from statfed.client.guard.addresses import Direct
from statfed.client.third_party import FILE
from statfed.core import toml
from statfed.core.errors import UsageError
from statfed.core.identity import create_identity
from statfed.core.protection import named_protection
from statfed.core.terms import Protection


def home_of(root: Path, name: str) -> Path:
    """A party's home folder under `root`, made when there is none."""
    home = (root / name).resolve()
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    return home


def third_party_names(protection: Protection, holders: Iterable[str], engine: str) -> tuple[str, ...]:
    """The third parties that `protection` needs.

    Raises UsageError, before anything is made or started, where a holder has the name of one, or `engine` cannot keep
    a party's secrets between messages.
    """
    module, options = named_protection(protection.name, protection.options)
    if module.REQUIRES.identities and engine == "ray":
        raise UsageError(
            f"engine: got ray under protection {protection.name}, whose parties keep secrets between messages; Ray may "
            "answer each message from another process; want engine inprocess or processes, or protection plain"
        )
    names = module.third_parties(options)
    twice = sorted(set(names) & set(holders))
    if twice:
        raise UsageError(
            f"protection {protection.name}: got {', '.join(twice)} both as a holder and as a third party; want a party "
            "that holds no data, under a name of its own"
        )
    return names


def third_parties(protection: Protection, holders: Iterable[str], engine: str, root: Path) -> dict[str, Path]:
    """The home folders of the third parties that `protection` needs; `admit_third_parties` completes them.

    Raises UsageError as `third_party_names` does.
    """
    return {name: home_of(root, f"party-{name}") for name in third_party_names(protection, holders, engine)}


def identities(homes: Mapping[str, Path]) -> dict[str, str]:
    """Every party's public key; keys are made where there are none."""
    return {name: create_identity(home) for name, home in homes.items()}


def admit_third_parties(
    homes: Mapping[str, Path], protection: str, pins: Mapping[str, str], direct: Mapping[str, Direct]
) -> None:
    """Write the third parties' party.toml: they take part in `protection`, with the parties of `pins`, by the lines
    of `direct` where there are some."""
    for name, home in homes.items():
        allow = {"protections": [protection], "minimum_holders": 1, "direct": name in direct}
        party: dict[str, Any] = {"party": {"name": name}, "allow": allow, "parties": dict(sorted(pins.items()))}
        if name in direct:
            party["direct"] = direct[name].model_dump(mode="json", exclude_none=True)
        (home / FILE).write_text(toml.dumps(party), encoding="utf-8")
