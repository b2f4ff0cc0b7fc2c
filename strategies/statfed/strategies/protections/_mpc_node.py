"""The compute process of one node: MPyC's protocols over this package's channel. Started by `_mpc_process`.

MPyC (Schoenmakers, 0.11) computes on Shamir shares with one of three nodes corrupted and curious: products by
resharing (Ben-Or, Goldwasser and Wigderson 1988, in the form of Gennaro, Rabin and Rabin 1998), comparisons after
Toft (2007) on a value that is opened under a mask `MASK` bits wider than it. Three things are not left as they come:

- *Transport.* MPyC's own connections are never opened; its message exchangers get links of `_mpc_channel`.
- *Unpickling.* MPyC sends arrays as pickles, which would let one node run code at another. Its portable mode sends
  numbers as bytes; the pickle module is taken away from it altogether.
- *Zero tests.* To learn whether a secret is 0, MPyC 0.11 opens the product of its sharing and a random one without
  a fresh sharing of 0 on top. The nodes then see the whole product polynomial, and the two lines that it factors into
  are, up to their order, the secret's and the mask's. `zero_test` adds the sharing of 0 (as MPyC itself does for
  random bits), which makes the opened polynomial uniform but for its value at 0.
"""

import asyncio
import os
import sys
import threading
import traceback
from collections.abc import Mapping
from typing import Any

import numpy as np

from statfed.core.errors import EngineError, StatfedError
from statfed.strategies.protections import _mpc_functions as functions
from statfed.strategies.protections._mpc_channel import Channel, Credentials, Link, certificate
from statfed.strategies.protections._mpc_process import framed, read_frame
from statfed.strategies.protections._mpc_shares import PRIME, packed, unpacked

MASK = 44
"""Statistical security parameter: a comparison tells its nodes apart from nothing by less than 2^-40."""


class _NoPickle:
    """In place of the pickle module."""

    @staticmethod
    def dumps(*_: object) -> bytes:
        raise EngineError("pickling is not allowed between nodes")

    loads = dumps


def runtime(index: int) -> Any:
    """MPyC's runtime of node `index` (0, 1, 2), not connected. One in a process: it is made by the import."""
    sys.argv = ["node", "-M3", f"-I{index}", "-T1", f"-K{MASK}", "--no-log", "--no-uvloop", "--mix32-64bit"]
    import mpyc.runtime  # type: ignore[import-untyped]

    mpyc.runtime.pickle = _NoPickle
    mpc = mpyc.runtime.mpc
    mpc.np_is_zero_public = lambda a: zero_test(mpc, a)
    return mpc


def zero_test(mpc: Any, a: Any) -> Any:
    """A future of which entries of a secret-shared array are 0, which is all that is opened.

    Opened is a r + z with r a random secret and z a random sharing of 0 of degree 2. r is 0 with probability 1 / PRIME,
    and then a is taken for 0.
    """
    import mpyc.asyncoro  # type: ignore[import-untyped]
    import mpyc.thresha  # type: ignore[import-untyped]

    @mpyc.asyncoro.mpc_coro
    async def test():  # type: ignore[no-untyped-def]  # MPyC reads the annotation
        await mpc.returnType(asyncio.Future)
        field, n = type(a).sectype.field, a.size
        r = mpc._np_randoms(field, n)
        z = mpyc.thresha.np_pseudorandom_share_0(field, 3, mpc.pid, mpc.prfs(field.order), mpc._prss_uci(), n)
        shares = await mpc.gather(a)
        opened = await mpc.output(shares.reshape(-1) * r + z, threshold=2)
        return opened.reshape(a.shape) == 0

    return test()


class Node:
    """One node's computations, one after the other."""

    def __init__(self, mpc: Any, own: Credentials, nodes: list[str]) -> None:
        self.mpc, self._own, self._nodes = mpc, own, nodes
        self._lost: asyncio.Future[str] = mpc._loop.create_future()
        self._channel: Channel | None = None
        self._exchangers: dict[str, Any] = {}
        for party in mpc.parties:
            party.protocol = mpc._loop.create_future() if party.pid == mpc.pid else None

    async def listen(self, certificates: Mapping[str, str], host: str, port: int) -> int:
        """Serve the nodes with these certificates."""
        pems = {name: certificates[name].encode() for name in self._nodes}
        self._channel = Channel(self._own, pems, self._accept, self._ended)
        return await self._channel.listen(host, port)

    async def join(self, addresses: Mapping[str, str], patience: float) -> None:
        """Connect to all others."""
        assert self._channel is not None  # noqa: S101
        self._channel.call(addresses)
        await self._unless_lost(self.mpc.parties[self.mpc.pid].protocol, patience, "connecting to the other nodes")
        for peer, exchanger in self._exchangers.items():
            if exchanger.peer_pid != self._nodes.index(peer):
                raise EngineError(f"channel: {peer} says that it is another node")

    async def evaluate(self, request: Mapping[str, Any], payload: bytes, patience: float) -> bytes:
        """This node's fresh share of a function's results. payload: its shares of every holder's slots."""
        share: bytes = await self._unless_lost(self._evaluate(request, payload), patience, str(request["function"]))
        return share

    async def close(self) -> None:
        """End all streams."""
        if self._channel is not None:
            await self._channel.close()

    async def _evaluate(self, request: Mapping[str, Any], payload: bytes) -> bytes:
        mpc = self.mpc
        secint = mpc.SecInt(functions.width(request["bits"]), PRIME)
        shares = np.array(unpacked(payload), object).reshape(request["holders"], -1)
        holders = []
        for row in shares:
            inputs, start = {}, 0
            for name, rows, cells in request["slots"]:
                part = row[start : start + rows * cells].reshape(rows, cells)
                inputs[name] = secint.array(secint.field.array(part, check=False))
                start += rows * cells
            holders.append(inputs)
        limits = functions.Limits(**request["limits"])
        results = functions.FUNCTIONS[request["function"]].compute(holders, limits)
        found = []
        for result in results:
            fresh = await mpc.gather(mpc._reshare(result))  # of a new random line: it tells nothing but its value at 0
            found += [int(x) % PRIME for x in fresh.value.reshape(-1)]
        return packed(found)

    async def _unless_lost(self, work: Any, patience: float, what: str) -> Any:
        task = asyncio.ensure_future(work)
        done, _ = await asyncio.wait({task, self._lost}, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
        if task in done:
            return task.result()
        task.cancel()
        if self._lost in done:
            raise EngineError(f"{what}: its channel to {self._lost.result()} was lost")
        raise EngineError(f"{what}: got no end within {patience:g} s")

    def _accept(self, peer: str, calling: bool) -> Link:
        from mpyc.asyncoro import MessageExchanger

        exchanger: Any = MessageExchanger(self.mpc, self._nodes.index(peer) if calling else None)
        self._exchangers[peer] = exchanger
        link = Link(peer, exchanger.data_received)
        exchanger.connection_made(link)
        return link

    def _ended(self, peer: str) -> None:
        if not self._lost.done():
            self._lost.set_result(peer)


async def serve(requests: "asyncio.Queue[tuple[dict[str, Any], bytes]]", answers: Any) -> None:
    """Answer requests until the queue is cancelled. Any failure is reported and ends the process: a run that has lost
    one computation has lost its nodes' common state."""
    node: Node | None = None
    while True:
        request, payload = await requests.get()
        header: dict[str, Any] = {}
        result = b""
        try:
            match request["do"]:
                case "start":
                    own = certificate(request["name"])
                    node = Node(runtime(request["nodes"].index(own.name)), own, request["nodes"])
                    header = {"certificate": own.certificate.decode()}
                case "listen" if node:
                    header = {"port": await node.listen(request["certificates"], request["host"], request["port"])}
                case "join" if node:
                    await node.join(request["addresses"], request["patience"])
                case "evaluate" if node:
                    result = await node.evaluate(request, payload, request["patience"])
                case _:
                    raise EngineError("request: not understood")
        except Exception as error:  # noqa: BLE001  # said to the node; details go to its own log
            traceback.print_exc()
            public = isinstance(error, StatfedError)
            header = {"failed": str(error) if public else "its computation failed; its own log has the details"}
        answers.write(framed(header, result))
        answers.flush()
        if "failed" in header:
            return


def main() -> None:
    """Serve standard input; anything that a library prints goes to standard error."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    requests: asyncio.Queue[tuple[dict[str, Any], bytes]] = asyncio.Queue()

    def read() -> None:
        while (frame := read_frame(sys.stdin.buffer)) is not None:
            loop.call_soon_threadsafe(requests.put_nowait, frame)
        os._exit(0)  # the node is gone, or has no more use for this process

    threading.Thread(target=read, name="requests", daemon=True).start()
    try:
        loop.run_until_complete(serve(requests, answers))
    except BaseException:  # noqa: BLE001  # MPyC stops the loop when one of its own steps fails
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(1)


if __name__ == "__main__":
    main()
