"""One file, one thing: modules of a package are found by looking, never by a registry to edit.

Other packages may bring protections, linkages, analyses, training methods, models, methods of synthetic data,
scenarios and sources: an entry point in the group `statfed.protections` (`statfed.linkages`, `statfed.analyses`,
`statfed.training`, `statfed.models`, `statfed.synthesis`, `statfed.scenarios`, `statfed.sources`) names the module that
implements the contract. What comes from outside is found by its metadata, imported only when it is used, and never
takes the name of a built-in. Ids are of one alphabet, and no two are alike in reading: an id that is another's but for
case, width, accents of compatibility, hyphens and underscores is refused, so that a policy that allows `mean` allows
one thing. Analyses and training methods share their ids, and so do protections and linkages.
"""

import importlib
import pkgutil
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from typing import Any

from statfed.core.errors import UsageError
from statfed.core.names import one_of

LINKAGES = "statfed.strategies.linkages"
"""Where linkages are found, which take a protection's place in a study (`statfed.core.linkage`)."""
SYNTHESIS = "statfed.strategies.synthesis"
"""Where methods of synthetic data are found (`statfed.core.synthesis`)."""
GROUPS = {
    "statfed.strategies.protections": "statfed.protections",
    LINKAGES: "statfed.linkages",
    "statfed.strategies.analyses": "statfed.analyses",
    "statfed.strategies.training": "statfed.training",
    "statfed.strategies.models": "statfed.models",
    SYNTHESIS: "statfed.synthesis",
    "statfed.scenarios": "statfed.scenarios",
    "statfed.client.data.sources": "statfed.sources",
}
"""Package to the entry-point group in which others may bring modules like its own. A module instead of a package has
built-ins that are not modules of their own."""

_SHARING = (
    ("statfed.strategies.analyses", "statfed.strategies.training"),
    ("statfed.strategies.protections", LINKAGES),
)
ID = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
"""What an id looks like."""


def normalised(name: str) -> str:
    """What two ids are compared by.

    >>> normalised("Secure_Aggregation")
    'secure-aggregation'
    """
    return unicodedata.normalize("NFKC", name).casefold().replace("_", "-").strip("-")


@dataclass(frozen=True)
class Plugin:
    """A module from outside. distribution, version: of the installed package that brings it."""

    group: str
    name: str
    module: str
    distribution: str
    version: str

    def __str__(self) -> str:
        return f"{self.distribution} {self.version}"


@cache
def plugins(package: str) -> dict[str, Plugin]:
    """Id to plugin, for modules of `package` that other packages bring.

    Raises UsageError where one's id is not of the alphabet, or reads like that of a built-in or of another plugin:
    which one is meant must not depend on what happens to be installed, nor on how it is written.
    """
    found: dict[str, Plugin] = {}
    taken = {normalised(name): "statfed itself" for other in _sharing(package) for name in _built_in(other)}
    for other in _sharing(package):
        for plugin in _brought(other):
            if plugin in found.values():  # the same installation, seen twice on the path
                continue
            wanted = f"want another name there, or `pip uninstall {plugin.distribution}`"
            got = f"plugin {plugin}: brings {plugin.name} in {plugin.group}"
            rival = taken.get(normalised(plugin.name))
            if rival:
                raise UsageError(f"{got}, which {rival} has too; {wanted}")
            if not ID.fullmatch(plugin.name):
                raise UsageError(f"{got}: want lower-case letters, digits and single hyphens, a letter first; {wanted}")
            taken[normalised(plugin.name)] = str(plugin)
            found[f"{other}:{plugin.name}"] = plugin
    return {plugin.name: plugin for plugin in found.values() if plugin.group == GROUPS.get(package)}


def _sharing(package: str) -> tuple[str, ...]:
    """The packages whose ids have to differ from each other's."""
    return next((packages for packages in _SHARING if package in packages), (package,))


def _brought(package: str) -> Iterator[Plugin]:
    group = GROUPS.get(package)
    for point in sorted(entry_points(group=group), key=lambda p: p.name) if group else ():
        owner = point.dist
        yield Plugin(
            group or "",
            point.name,
            point.value,
            owner.name if owner else "unknown",
            owner.version if owner else "unknown",
        )


@cache
def modules(package: str) -> dict[str, str]:
    """Id (`time-use`) to module name (`statfed.scenarios.time_use`) for every public module of `package`.

    A built-in takes part by its place; names that begin with an underscore do not. Plugins take part by entry point.
    """
    return _built_in(package) | {name: plugin.module for name, plugin in plugins(package).items()}


@cache
def _built_in(package: str) -> dict[str, str]:
    root = importlib.import_module(package)
    return {
        info.name.replace("_", "-"): f"{package}.{info.name}"
        for info in pkgutil.iter_modules(getattr(root, "__path__", ()))
        if not info.name.startswith("_")
    }


def load(package: str, name: str, what: str) -> Any:
    """The module that implements `name`; the caller states which contract it follows.

    Raises UsageError naming what is allowed, or what a plugin's import raised.
    """
    found = modules(package)
    if name not in found:
        raise UsageError(f"unknown {what}: got {name!r}; want {one_of(sorted(found), name)}")
    plugin = plugins(package).get(name)
    if plugin is None:
        return importlib.import_module(found[name])
    try:
        return importlib.import_module(plugin.module)
    except Exception as error:  # noqa: BLE001  # whatever it raises, it is the plugin's to mend
        raise UsageError(
            f"{what} {name} of {plugin}: cannot be imported ({type(error).__name__}: {error}); want it mended, or "
            f"`pip uninstall {plugin.distribution}`"
        ) from None


def origin(package: str, name: str) -> str:
    """What brings `name`, as `distribution version`; nothing for a built-in. It has to match across parties."""
    plugin = plugins(package).get(name)
    return str(plugin) if plugin else ""


def is_linkage(name: str) -> bool:
    """Is what a study names as its protection a linkage?"""
    return name in modules(LINKAGES)
