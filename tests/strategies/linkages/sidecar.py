"""A program in SPU's place: it finds what two lists share over the same sockets, and can be made to do it wrongly."""

import sys
from pathlib import Path

from statfed.core.linkage import Lines

ALONE = ("count", "long", "garbage", "lines", "told", "other", "items", "no report", "no json")
"""Ways of going wrong for which it talks to nobody."""
FAKE = """#!{python}
import json, os, signal, socket, sys, time
HOW = {how!r}
ALONE = {alone!r}
if "-c" in sys.argv:
    print({version!r})
    raise SystemExit
given = json.loads(sys.stdin.readline())
lines = open(given["input"]).read().splitlines()[1:]
own, other = (given["sockets"][i][1] for i in (given["rank"], 1 - given["rank"]))
if HOW == "crash":
    print("a bad thing", file=sys.stderr)
    raise SystemExit(3)
if HOW == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
if HOW == "silent":
    time.sleep(60)
receives = given["rank"] == given["receiver"]
found = []
if HOW in ALONE:
    found = sorted(lines)[:5]
elif receives:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(own)
        listener.listen()
        theirs = listener.accept()[0].makefile().read().split()
    found = sorted(set(lines) & set(theirs))
else:
    for _ in range(200):
        try:
            link = socket.socket(socket.AF_UNIX)
            link.connect(other)
            link.sendall("\\n".join(lines).encode())
            link.shutdown(socket.SHUT_WR)
            link.recv(1)
            break
        except OSError:
            time.sleep(0.05)
count = len(found)
if HOW == "stranger":
    found[0] = "00" * 16
if HOW == "padding":
    found, count = lines, len(lines)
if HOW == "twice":
    found[0] = found[1]
if HOW == "count":
    count += 1
if HOW == "long":
    found = lines + lines
if HOW == "garbage":
    found[0] = "x" * 32
if HOW == "lines":
    found[0] = found[0][:-1]
if receives or HOW == "told":
    with open(given["output"], "w") as file:
        file.write("\\n".join(["tag", *found]) + "\\n")
if HOW != "no report":
    report = dict(spu="0.9.4" if HOW == "other" else "0.9.5", items=len(lines) - (HOW == "items"), found=count)
    with open(given["report"], "w") as file:
        file.write("[" if HOW == "no json" else json.dumps(report))
"""


def fake(folder: Path, how: str = "", version: str = "0.9.5") -> str:
    """The path of a program that stands in for the python of SPU's environment."""
    path = folder / "python"
    path.write_text(FAKE.format(python=sys.executable, how=how, alone=ALONE, version=version))
    path.chmod(0o700)
    return str(path)


class Wires:
    """The direct lines of parties that are all in this process: sockets that lead to each other. own: by party."""

    def __init__(self) -> None:
        self.own: dict[str, Path] = {}
        self._other: dict[str, Path] = {}

    def of(self, name: str) -> Lines:
        """One party's."""
        outer = self

        class Own:
            def tunnel(self, peer: str, own: Path, other: Path) -> None:
                outer.own[name], outer._other[name] = own, other
                if peer in outer.own:
                    other.symlink_to(outer.own[peer])
                    outer._other[peer].symlink_to(own)

        return Own()
