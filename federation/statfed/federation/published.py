"""What of a study is published with its result: all but the parameters of disclosure control.

Thresholds of the release's rules, of simulated holders' rules, and options that a protection marks as secret tell how
closely hidden figures were judged. They stay in the run's own folder, in `parameters.json`, which only its owner reads.
The method of treatment and the base of rounding or of cell-key noise are public: readers need them.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from statfed.core.protection import Protection, load_protection, shown_options

FILE = "parameters.json"
_PUBLIC = ("method", "base")
_DISTURBING = ("round", "random-round", "controlled-round", "cell-key")


def public_study(study: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """A study as it is published, and what was kept back, with the same nesting."""
    shown, kept = dict(study), dict[str, Any]()
    if isinstance(rules := study.get("disclosure"), Mapping):
        public = _PUBLIC if rules.get("method") in _DISTURBING else _PUBLIC[:1]
        shown["disclosure"] = {key: value for key, value in rules.items() if key in public}
        kept["disclosure"] = {key: value for key, value in rules.items() if key not in public}
    if isinstance(simulation := study.get("simulation"), Mapping) and "disclosure" in simulation:
        shown["simulation"] = {key: value for key, value in simulation.items() if key != "disclosure"}
        kept["simulation"] = {"disclosure": simulation["disclosure"]}
    return _without_options(shown, kept)


def public_terms(terms: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Terms as they are published, and what was kept back."""
    return _without_options(dict(terms), {})


def _without_options(shown: dict[str, Any], kept: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    used = shown.get("protection")
    options = used.get("options") if isinstance(used, Mapping) else None
    if not options or not isinstance(used, Mapping):
        return shown, kept
    module = load_protection(str(used.get("name", "plain")))
    public = {key: value for key, value in options.items() if shown_options(module, {key: value})[key] == value}
    if public != options:
        shown["protection"] = {**used, "options": public}
        secret = {key: value for key, value in options.items() if key not in public}
        kept["protection"] = {"options": secret}
    return shown, kept


def has_secrets(module: Protection) -> bool:
    """Has a protection options whose values are kept from the public?"""
    told = shown_options(module, dict.fromkeys(module.Options.model_fields))
    return any(value is not None for value in told.values())


def restored(shown: Mapping[str, Any], kept: Mapping[str, Any]) -> dict[str, Any]:
    """What was kept back, put in again."""
    found = dict(shown)
    for key, value in kept.items():
        below = found.get(key)
        found[key] = restored(below, value) if isinstance(value, Mapping) and isinstance(below, Mapping) else value
    return found


def keep(folder: Path, kept: Mapping[str, Any]) -> None:
    """Write what was kept back into a run's folder, for its owner alone."""
    path = folder / FILE
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(json.dumps(kept, indent=2, sort_keys=True) + "\n")


def kept_in(folder: Path) -> dict[str, Any]:
    """What `keep` wrote; nothing where it did not, or what is there cannot be read."""
    try:
        found = json.loads((folder / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
