"""Which studies a person at this holder has approved, where the policy wants that: `approvals.json` in its home.

A study is named by its digest, so that approval is of every word of it.
"""

import json
import logging
import os
from pathlib import Path

from statfed.client.guard.policy import Policy
from statfed.core.errors import Refused

FILE = "approvals.json"
log = logging.getLogger("statfed.holder")


def approved(home: Path, policy: Policy, digest: str) -> bool:
    """May a study be answered? Always, where the policy asks for nobody's approval. A damaged file approves nothing."""
    return not policy.allow.after_approval or digest in read_approvals(home)


def read_approvals(home: Path) -> tuple[str, ...]:
    """Digests of the approved studies. Raises Refused where the file cannot be read."""
    path = home / FILE
    if not path.exists():
        return ()
    try:
        found = json.loads(path.read_text(encoding="utf-8"))["approved"]
        if not isinstance(found, list) or not all(isinstance(digest, str) for digest in found):
            raise TypeError("approved: want a list of digests")
        return tuple(found)
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        log.error("approvals: %s: %s", path, error)
        raise Refused("this holder's record of approvals cannot be read; its own log says why") from None


def approve(home: Path, digest: str) -> None:
    """Approve a study; doing so again changes nothing. Mode 0600."""
    known = read_approvals(home)
    if digest in known:
        return
    part = home / f"{FILE}.part"
    part.touch(mode=0o600)
    part.write_text(json.dumps({"approved": [*known, digest]}, indent=2) + "\n", encoding="utf-8")
    os.replace(part, home / FILE)  # noqa: PTH105
