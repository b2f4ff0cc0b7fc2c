"""Kinds of sources that other packages bring; their contract is in `statfed.client.data.sources`. Private.

A plugin is imported when a source is of no built-in kind, and never takes the place of one.
"""

from collections.abc import Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from statfed.client.data.reading import split
from statfed.core.discovery import Plugin, load, plugins
from statfed.core.errors import UsageError

PACKAGE = "statfed.client.data.sources"


@dataclass(frozen=True)
class Kind:
    """A kind of source from outside. module: follows the contract. Errors name the plugin and hold no word of its own,
    as that may quote the data."""

    plugin: Plugin
    module: Any

    def open_source(self, source: str, home: Path, shown: str) -> Any:
        """The data. shown: the source without secrets, for errors."""
        return self._asked("open_source", source, home, shown)

    def state(self, source: str, home: Path, shown: str) -> str:
        """Text that changes when the data change."""
        return str(self._asked("state", source, home, shown))

    def claims(self, name: str) -> tuple[str, ...]:
        """Its SCHEMES or SUFFIXES."""
        found = getattr(self.module, name, ())
        if not isinstance(found, tuple) or not all(isinstance(one, str) and one for one in found):
            raise UsageError(f"plugin {self.plugin}: {name}: got {type(found).__name__}; want a tuple of texts")
        return tuple(one.lower() for one in found)

    def _asked(self, function: str, source: str, home: Path, shown: str) -> Any:
        try:
            return getattr(self.module, function)(source, home)
        except Exception as error:  # noqa: BLE001  # whatever it raises may hold data
            name = type(error).__name__
        raise UsageError(f"{shown}: {function} of {self.plugin} raised {name}; want its author to say why")


def find(source: str, home: Path, shown: str, schemes: Set[str], suffixes: tuple[str, ...]) -> Kind | None:
    """What reads `source`, if it is neither of the built-in `schemes` and `suffixes` nor a missing file.

    Raises UsageError where plugins are at odds with each other or with a built-in, and where none reads it but one
    cannot be imported.
    """
    scheme, sign, _ = source.partition("://")
    scheme, written = scheme.lower(), source if sign else split(source, home)[0]
    name, path = Path(written).name.lower(), home / Path(written).expanduser()
    if sign:
        built_in = scheme in schemes
    else:
        pattern = any(mark in written for mark in "*?[")
        built_in = name.endswith(suffixes) or "." not in name or not (pattern or path.exists())
    if built_in or not plugins(PACKAGE):
        return None
    kinds, broken = _kinds(schemes, suffixes)
    found = [
        kind for kind in kinds if (scheme in kind.claims("SCHEMES") if sign else name.endswith(kind.claims("SUFFIXES")))
    ]
    if len(found) > 1:
        rivals = " and ".join(str(kind.plugin) for kind in found)
        raise UsageError(f"{shown}: {rivals} both read it; want one of them uninstalled")
    if broken and not found and (sign or not path.is_dir()):
        raise broken[0]
    return found[0] if found else None


def _kinds(schemes: Set[str], suffixes: tuple[str, ...]) -> tuple[list[Kind], list[UsageError]]:
    """What plugins bring, and why some cannot be imported. Raises UsageError where one takes a built-in's place."""
    kinds, broken = [], []
    for name, plugin in plugins(PACKAGE).items():
        try:
            kind = Kind(plugin, load(PACKAGE, name, "source"))
        except UsageError as error:
            broken.append(error)
            continue
        taken = sorted(schemes & {*kind.claims("SCHEMES")} | {*suffixes} & {*kind.claims("SUFFIXES")})
        if taken:
            raise UsageError(
                f"plugin {plugin}: reads {', '.join(taken)}, which statfed itself does; want another scheme or suffix "
                f"there, or `pip uninstall {plugin.distribution}`"
            )
        kinds.append(kind)
    return kinds, broken
