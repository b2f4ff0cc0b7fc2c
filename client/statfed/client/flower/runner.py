"""The data holder's side of a deployment: a SuperNode and, beside it, the pinned runner that answers its tasks.

    python -m statfed.client.flower.runner --home DIR --superlink HOST:PORT --root-certificates FILE --node-key FILE \
        --bundle-sha256 HEX

The runner calls the ClientApp installed at the holder (`statfed.client.flower.app:app`) and never what the coordinator
ships: the bundle that accompanies a run is compared with the pinned hash, and is neither unpacked nor imported.
An unexpected exception is written to the holder's own log; the coordinator learns only that there was one.

Exit status: 0 after SIGTERM or SIGINT, 71 if the SuperNode ended, 1 for anything else.
"""

import argparse
import gc
import hashlib
import importlib
import json
import logging
import os
import secrets
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import httpx
from flwr.app import Context, Error, Message

from statfed.client.flower._flwr import APP_RAISED, BUNDLE_REFUSED, Tasks, tasks_of
from statfed.client.flower.node import SECRET_BYTES, Link, pause, supernode
from statfed.core.pilot.proxy import carried, proxy_for
from statfed.core.process import die_with_parent

APP = "statfed.client.flower.app:app"
NODE_ENDED = 71
HEARTBEAT_SECONDS = 10.0
INTERNAL_ERROR = "internal error at the holder; see its log"

log = logging.getLogger("statfed.runner")

App = Callable[[Message, Context], Message]


class PinnedRunner:
    """Takes the tasks of one SuperNode, one at a time, and answers them with `app`.

    home: the holder's folder, which `app` finds in `context.node_config["home"]`.
    bundle: the SHA-256, in hexadecimal, of the only bundle that a run may carry.
    """

    def __init__(self, tasks: Tasks, app: App, home: Path, bundle: str, poll: float) -> None:
        self._tasks = tasks
        self._app = app
        self._home = home
        self._bundle = bundle.lower()
        self._poll = poll

    def serve(self) -> None:
        """Answer tasks until a signal. A task that cannot be taken or delivered ends the runner: the SuperNode waits
        for exactly one reply, and would wait for ever."""
        idle_since = time.monotonic()
        while True:
            try:
                taken = self._tasks.take()
            except httpx.TransportError:  # if the SuperNode has ended, its watcher ends this process
                log.warning("SuperNode: no connection")
                time.sleep(1)
                continue
            if not taken:
                time.sleep(pause(self._poll, time.monotonic() - idle_since))
                continue
            try:
                with self._heartbeats():
                    self._work()
            finally:
                self._tasks.drop()
            idle_since = time.monotonic()

    def _work(self) -> None:
        message, context, bundle = self._tasks.pull(self._poll)
        self._tasks.push(self.answer(message, context, bundle), context)

    def answer(self, message: Message, context: Context, bundle: bytes) -> Message:
        """The reply to one message. Never raises an Exception, and never lets the text of one out."""
        got = hashlib.sha256(bundle).hexdigest()
        if not secrets.compare_digest(got, self._bundle):
            log.error("bundle refused: got sha256 %s; want %s", got, self._bundle)
            refusal = f"bundle refused: got sha256 {got}; want {self._bundle}"
            return Message(Error(BUNDLE_REFUSED, refusal), reply_to=message)
        context.node_config = {"home": str(self._home)}
        try:
            reply = self._app(message, context)
            if not isinstance(reply, Message):
                raise TypeError(f"reply of the ClientApp: got {type(reply).__name__}; want Message")
        except Exception:
            log.exception("the ClientApp raised an exception")
            return Message(Error(APP_RAISED, INTERNAL_ERROR), reply_to=message)
        return reply

    @contextmanager
    def _heartbeats(self) -> Iterator[None]:
        """Keep the task in hand alive."""
        done = threading.Event()

        def beat() -> None:
            while not done.wait(HEARTBEAT_SECONDS):
                try:
                    self._tasks.beat()
                except httpx.HTTPError as error:
                    log.warning("heartbeat: %s", error)

        thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()


class Status:
    """What the runner tells whoever started it, in a small JSON file that is replaced as a whole."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._facts: dict[str, object] = {}

    def tell(self, **facts: object) -> None:
        """Add facts: supernode (its pid), ready (the ClientApp is loaded), ended (how the SuperNode ended)."""
        self._facts |= facts
        if self._path is not None:
            part = self._path.with_suffix(".part")
            part.write_text(json.dumps(self._facts), encoding="utf-8")
            part.replace(self._path)


def installed_app(reference: str) -> App:
    """The ClientApp named by `module:name`, imported from this installation."""
    module, _, name = reference.partition(":")
    app = getattr(importlib.import_module(module), name, None)
    if not callable(app):
        raise TypeError(f"app {reference}: got {type(app).__name__}; want a ClientApp")
    return app  # type: ignore[no-any-return]


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="statfed.client.flower.runner", description="Answer a coordinator as a data holder."
    )
    parser.add_argument("--home", required=True, type=Path, help="folder with policy.toml, ledger.sqlite and data")
    parser.add_argument("--superlink", required=True, metavar="HOST:PORT", help="the coordinator's Fleet API")
    parser.add_argument("--root-certificates", required=True, type=Path, help="PEM file that vouches for the SuperLink")
    parser.add_argument("--node-key", required=True, type=Path, help="this holder's registered private key (OpenSSH)")
    parser.add_argument("--bundle-sha256", required=True, help="hash of the only app bundle that is accepted")
    parser.add_argument("--poll", type=float, default=0.05, help="seconds between the first looks for work")
    parser.add_argument("--app", default=APP, metavar="MODULE:NAME", help="installed ClientApp (for tests)")
    parser.add_argument("--preload", action="append", default=[], metavar="MODULE", help="import this at the start")
    parser.add_argument("--status", type=Path, help="file that tells the SuperNode's pid and readiness")
    parser.add_argument("--parent", type=int, help="end when this process, the parent, has ended")
    return parser.parse_args(arguments)


def on_signal(number: int, frame: FrameType | None) -> None:  # noqa: ARG001  signal's own signature
    """Leave through every `finally`. Later signals are ignored, so that leaving is not disturbed."""
    for each in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
        signal.signal(each, signal.SIG_IGN)
    gc.freeze()  # the interpreter then ends at once, and not after half a second
    raise SystemExit(NODE_ENDED if number == signal.SIGUSR1 else 0)


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    logging.basicConfig(format="%(asctime)s %(name)s %(levelname)s %(message)s", level=logging.INFO, stream=sys.stderr)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
        signal.signal(number, on_signal)
    if options.parent is not None:
        die_with_parent(options.parent)
    status = Status(options.status)

    def ended(text: str) -> None:
        log.error("the SuperNode ended: %s", text)
        status.tell(ended=text)
        os.kill(os.getpid(), signal.SIGUSR1)

    here = carried(proxy_for(options.superlink, None, os.environ), os.environ)  # its own SuperNode is on this machine
    os.environ.clear()
    os.environ.update(here)
    secret = secrets.token_bytes(SECRET_BYTES)
    link = Link(options.superlink, options.root_certificates, options.node_key, options.poll)
    with supernode(link, secret, ended) as (address, pid):
        status.tell(supernode=pid)
        app = installed_app(options.app)
        for module in options.preload:
            importlib.import_module(module)
        with tasks_of(address, secret) as tasks:
            status.tell(ready=True)
            PinnedRunner(tasks, app, options.home, options.bundle_sha256, options.poll).serve()


if __name__ == "__main__":
    main()
