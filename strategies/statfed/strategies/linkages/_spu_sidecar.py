"""Runs in SPU's own environment, never in this one: one private set intersection, as standard input says.

Started by `_spu_program` as a file. It talks to the other holder's on Unix sockets, reads and writes files of a private
folder, and ends when its standard input does: whoever started it is gone then.
"""

import json
import os
import shutil
import sys
import threading
from importlib.metadata import version
from typing import Any


def _ends_with_its_parent(folder: str) -> None:
    sys.stdin.read()
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(1)


def _run(given: dict[str, Any]) -> None:
    from spu import libspu, psi  # type: ignore[import-not-found]

    link = libspu.link
    desc = link.Desc()
    desc.id = given["run"]
    for name, path in given["sockets"]:
        desc.add_party(name, f"unix:{path}")
    milliseconds = int(given["seconds"] * 1000)
    desc.connect_retry_interval_ms = 250
    desc.connect_retry_times = max(4, milliseconds // 250)
    desc.recv_timeout_ms = milliseconds
    desc.http_timeout_ms = milliseconds
    context = link.create_brpc(desc, given["rank"])
    protocol = psi.PsiProtocolConfig(
        protocol=getattr(psi.PsiProtocol, f"PROTOCOL_{given['protocol'].upper()}"),
        receiver_rank=given["receiver"],
        broadcast_result=False,
    )
    config = psi.PsiExecuteConfig(
        protocol_conf=protocol,
        input_params=psi.InputParams(path=given["input"], selected_keys=["tag"], keys_unique=True),
        output_params=psi.OutputParams(path=given["output"], disable_alignment=True),
    )
    found = psi.psi_execute(config, context)
    context.stop_link()
    report = {"spu": version("spu"), "items": found.original_count, "found": found.intersection_count}
    with open(given["report"], "w", encoding="ascii") as file:  # noqa: PTH123
        json.dump(report, file)


if __name__ == "__main__":
    _given = json.loads(sys.stdin.readline())
    threading.Thread(target=_ends_with_its_parent, args=(_given["folder"],), daemon=True).start()
    _run(_given)
