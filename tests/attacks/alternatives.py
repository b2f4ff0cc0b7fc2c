"""Attacks of an analyst whose conditions are alternatives: `or` and `not` select other sets than `and`."""

from tests.attacks.analyst import _income, _minus, _only, _sum
from tests.attacks.finding import NOTHING, Finding, attack
from tests.attacks.population import PERSON
from tests.attacks.world import World

OTHERS = ("south", "east")
NEAR = f"region in north,{','.join(OTHERS)}"
TARGET = " and ".join(f"{name} = {value}" for name, value in PERSON.known.items())


@attack("or", "analyst", "total", "differencing guard")
def everybody_less_all_who_differ_in_something(world: World) -> Finding:
    return _income(_minus(_sum(world, [NEAR]), _sum(world, [NEAR, f"not ({TARGET})"])))


@attack("or", "analyst", "total", "differencing guard, alternatives on the columns of cells")
def the_target_or_other_regions_less_the_cells_of_those(world: World) -> Finding:
    """Each figure is about many, and no condition was asked before: the cells lie within the alternatives."""
    table = world.asked("total", {"columns": ["income"], "by": ["region"]}, [NEAR])
    either = _sum(world, [NEAR, f"region in {','.join(OTHERS)} or ({TARGET})"])
    cells = [_only(table, "estimate", region=region) for region in OTHERS]
    if either is None or None in cells:
        return NOTHING
    return _income(either - sum(cell for cell in cells if cell is not None))


@attack("or", "analyst", "total", "differencing guard, joint rule")
def the_young_or_the_target_less_the_young(world: World) -> Finding:
    return _income(_minus(_sum(world, [NEAR, "age < 40 or list = short"]), _sum(world, [NEAR, "age < 40"])))


@attack("or", "analyst", "total", "minimum frequency of what conditions select")
def alternatives_that_only_the_target_fulfils(world: World) -> Finding:
    return _income(_sum(world, [f"({TARGET}) or (age = 47 and age = 48 and list = short)"]))


@attack("or", "analyst", "total", "differencing guard, joint rule")
def two_halves_that_both_have_the_target(world: World) -> Finding:
    """A or C, and B or C, where A and B are all others: the target counts twice."""
    first = _sum(world, ["list = long and sex = m or list = short"])
    second = _sum(world, ["list = long and sex = f or list = short"])
    return _income(_minus(_added(first, second), _sum(world, [])))


def _added(first: float | None, second: float | None) -> float | None:
    return None if first is None or second is None else first + second
