"""One file, one thing: modules of a package are found by looking, never by a registry to edit."""

import importlib
import pkgutil
from functools import cache
from typing import Any

from statfed.core.errors import UsageError


@cache
def modules(package: str) -> dict[str, str]:
    """Id (`time-use`) to module name (`statfed.scenarios.time_use`) for every public module of `package`.

    A module takes part by its place; names that begin with an underscore do not.
    """
    root = importlib.import_module(package)
    return {
        info.name.replace("_", "-"): f"{package}.{info.name}"
        for info in pkgutil.iter_modules(root.__path__)
        if not info.name.startswith("_")
    }


def load(package: str, name: str, what: str) -> Any:
    """The module that implements `name`; the caller states which contract it follows.

    Raises UsageError naming what is allowed.
    """
    found = modules(package)
    if name not in found:
        raise UsageError(f"unknown {what}: got {name!r}; want one of {', '.join(sorted(found))}")
    return importlib.import_module(found[name])
