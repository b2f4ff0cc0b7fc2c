"""Every attack in the world that it is tried in, and in one where what holds it is switched off."""

from pathlib import Path

from statfed.core.disclosure import OFF, Rules
from tests.attacks import alternatives, analyst, coordinator, reader
from tests.attacks.finding import ATTACKS, Attack, Finding
from tests.attacks.former import Former
from tests.attacks.population import ENTERPRISES, PERSONS, enterprises, persons
from tests.attacks.world import World

ROOMS = (analyst, alternatives, coordinator, reader)
"""Whose import enters the attacks into the list."""
ALL = tuple(ATTACKS.values())


def world_of(attack: Attack, home: Path, *, ruled: bool, holders: int = 0) -> World:
    """Holders under the template standard, or under none of its rules; of the release a reader's attack has the rules
    on in both, since that is what it reads, but where these are what holds it. holders: instead of its own
    number."""
    everybody = persons() if attack.people == "persons" else enterprises()
    frames = dict(list(everybody.items())[: holders or attack.holders])
    book = PERSONS if attack.people == "persons" else ENTERPRISES
    rules = Rules() if ruled or (attack.actor == "reader" and not attack.unreleased) else OFF
    if ruled:
        return World(home, frames, book, "standard", attack.policies, rules)
    kind = Former if attack.former else World
    return kind(home, frames, book, "rehearsal", attack.policies, rules)


def tried(attack: Attack, home: Path, *, ruled: bool, holders: int = 0) -> tuple[Finding, World]:
    """What an attack found, and the world that it was made in."""
    world = world_of(attack, home, ruled=ruled, holders=holders)
    try:
        return attack.run(world), world
    finally:
        world.close()
