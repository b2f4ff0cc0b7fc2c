"""`multi-party`: holders split their contributions between three compute nodes, which add up and compute on shares.

*Sums* (`total`). Each holder splits its whole numbers modulo 2^bits into three additive shares (`_mpc_shares`), seals
one to each node and uploads all through the coordinator. The nodes add up what they can open, sign the list of whose
shares those are, and give their share of the sum away only for a list that all three have signed. The coordinator
adds up three shares.

*Functions* (`evaluate`): maximum, two largest, median, comparison, ratio, dominance rules (`_mpc_functions`). Holders'
shares are Shamir's with one node of three tolerated; the nodes compute by MPyC over gRPC with mutual TLS
(`_mpc_node`, `_mpc_channel`) and return fresh shares of the results, so that they do not learn even those.

Why it holds.

1. *Sums against the coordinator with two nodes*, whatever they do. Any two of a holder's three shares are
   computationally independent of its contribution, so what two nodes hold tells nothing. The third, honest node opens
   only what a holder has sealed to its pinned key and signed for this very task. It takes one list of at least
   `minimum_holders` such holders a task, and gives away one figure: its shares added up over that list. Together with
   the other shares that is the sum over the list, and nothing else: the others' view can be made from their own shares
   and that sum. Lists that differ between two honest nodes open only noise, since somebody's share is missing from it;
   signed lists make that an error instead. Nodes that deviate can make a sum wrong, not learn more.
2. *Functions against the coordinator with one node*, both following the protocol: a Shamir share is uniform (Shamir
   1979), products are reshared (Ben-Or, Goldwasser and Wigderson 1988, theorem 1, for an honest majority that follows
   the protocol), a comparison opens a value under a mask that is 2^42 times wider (statistical distance below 2^-40
   each), and results are reshared before they leave. Two nodes together know everything.
   Signatures and seals are bound to what each holder was asked for, so that contributions to different requests never
   add up (Pasquini, Francati and Ateniese 2022).
3. *Use.* A holder shares for the function that its own copy of the analysis names for an ask, whatever the coordinator
   asks the nodes for (`packet["function"]`, see `statfed.client.protecting.bound`): what is meant to be compared is not
   added up and opened.
4. *Channels.* Keys and certificates count only with the signature of a pinned identity, bound to the run.

Not claimed: that a result tells nothing about a contribution. A maximum is some holder's figure. Limits of the rules
are part of the study, so nobody can bisect with them.
"""

from collections.abc import Generator, Mapping, Sequence
from dataclasses import replace
from math import prod
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from statfed.core.card import read_card, read_trust
from statfed.core.errors import EngineError, UsageError, harmless
from statfed.core.fixed_point import Layout
from statfed.core.identity import Identity
from statfed.core.protection import (
    Aggregate,
    Agreement,
    Disclosure,
    Packet,
    Replies,
    Requirements,
    Rounds,
    Stage,
    one_request,
    reading,
    text,
    whole_numbers,
)
from statfed.core.section import NAME, Section
from statfed.core.terms import Terms
from statfed.strategies.protections import _mpc_functions as calculations
from statfed.strategies.protections import _mpc_shares as sharing
from statfed.strategies.protections._mpc_messages import Offer, Task
from statfed.strategies.protections._mpc_party import SUM, Holder, Node, seats
from statfed.strategies.protections._words import to_all, words_of

TITLE = "Multi-party computation: shares at three compute nodes, which also compare, sort and divide"
TRUST = read_trust(__file__)
CARD = read_card(__file__)
REQUIRES = Requirements(
    minimum_holders=3,
    fixed_point=True,
    survives_dropout=True,
    identities=True,
    third_parties="three compute nodes, of which no two collude",
    cost="10",
    functions=tuple(calculations.FUNCTIONS),
)
Name = Literal["maximum", "top-two", "median", "compare", "dominance", "dominance-spanning", "ratio"]


class Options(Section):
    """Options of multi-party."""

    nodes: tuple[str, str, str] = Field(
        default=("node-1", "node-2", "node-3"), description="names of the compute nodes, none of them a holder"
    )
    functions: tuple[Name, ...] = Field(default=(), description="functions that may be formed beside sums; need MPyC")
    addresses: dict[str, str] = Field(
        default_factory=dict,
        description="HOST:PORT at which each node's channel can be reached; default: loopback and a free port",
    )
    n: int = Field(
        default=2,
        ge=1,
        le=calculations.MOST,
        json_schema_extra={"secret": True, "rule": "dominance_n"},
        description="contributors of the (n,k) rule, exact to 2",
    )
    k: float | None = Field(
        default=None,
        gt=0,
        le=100,
        json_schema_extra={"secret": True, "rule": "dominance_k"},
        description="per cent of the (n,k) rule, two decimals at most",
    )
    p: float | None = Field(
        default=None,
        gt=0,
        le=100,
        json_schema_extra={"secret": True, "rule": "p_percent"},
        description="per cent of the p% rule, two decimals at most",
    )
    whole: int = Field(default=16, ge=1, le=16, description="quotients are below 2^whole ranges of a per range of b")
    fraction: int = Field(default=20, ge=0, le=40, description="binary places of a quotient")
    patience: float = Field(default=600.0, gt=0, le=86400, description="seconds that nodes give one function")

    @model_validator(mode="after")
    def _checked(self) -> "Options":
        for name in self.nodes:
            if not NAME.fullmatch(name):
                raise ValueError(f"nodes: got {name!r}; want lower-case letters, digits and hyphens, 40 at most")
        if len(set(self.nodes)) < len(self.nodes):
            raise ValueError("nodes: got one name twice; want three")
        for name, percent in (("k", self.k), ("p", self.p)):
            if percent is not None and abs(percent * 100 - round(percent * 100)) > 1e-9:
                raise ValueError(f"{name}: got {percent}; want two decimals at most")
        if any(name.startswith("dominance") for name in self.functions) and self.k is None and self.p is None:
            raise ValueError("k, p: got neither for dominance; want one rule or both")
        if self.addresses and set(self.addresses) != set(self.nodes):
            raise ValueError(f"addresses: got {', '.join(sorted(self.addresses))}; want one of every node, or none")
        for name in self.addresses:
            self.address(name)
        return self

    def address(self, node: str) -> tuple[str, int]:
        """Host and port of a node's channel."""
        host, _, port = self.addresses.get(node, "127.0.0.1:0").rpartition(":")
        if not host or not port.isdigit():
            raise ValueError(f"addresses: got {self.addresses[node]!r}; want HOST:PORT")
        return host, int(port)

    def limits(self) -> calculations.Limits:
        """What functions need of it."""
        return calculations.Limits(self.n, self.k, self.p, self.whole, self.fraction)


def third_parties(options: Options) -> tuple[str, ...]:
    """The compute nodes."""
    return options.nodes


def party(agreement: Agreement, identity: Identity) -> Holder | Node:
    """A holder's or a node's half."""
    return Node(agreement, identity) if identity.name in seats(agreement) else Holder(agreement, identity)


class Coordinator:
    """The coordinator's half: it relays what it cannot open, and puts three shares together."""

    def __init__(self, agreement: Agreement) -> None:
        seats(agreement)
        self._agreement = agreement
        self._nodes = agreement.third_parties
        self._offers: dict[str, bytes] = {}
        self._number = 0

    def total(self, layout: Layout) -> Rounds:
        """The sum over the holders that answered. Raises EngineError when too few did."""
        task, holders, replies = yield from self._shared(SUM, layout)
        total = sharing.zeros(layout.entries, task.bits)
        for node in self._nodes:
            with reading(node):
                share = np.ascontiguousarray(whole_numbers(replies[node], "share"))
                sharing.add(total, sharing.from_bytes(share, layout.entries, task.bits), task.bits)
        return Aggregate(layout.decode(sharing.whole(total, task.bits)), holders)

    def evaluate(self, function: str, layout: Layout) -> Rounds:
        """A function's figures, as `opened` names them. Raises UsageError on a function or layout that does not fit,
        EngineError when too few holders answered or a node failed."""
        options: Any = self._agreement.options
        kind = calculations.check(function, layout)
        if function not in options.functions:
            raise UsageError(f"functions: got {function}; want it among the study's protection.options.functions")
        _, holders, _ = yield from self._shared(function, layout)
        replies = yield from self._all("collect", {node: {} for node in self._nodes})
        shares = [sharing.unpacked(_text(replies, node, "share")) for node in self._nodes]
        cells = prod(layout.slots[kind.slots[0]].shape)
        if any(len(share) != kind.rows * cells for share in shares):
            raise EngineError(f"{function}: got shares of another length; want {kind.rows * cells} figures")
        rows = sharing.reconstructed(shares).reshape(kind.rows, cells)
        return Aggregate(opened(function, rows, layout, len(holders), options.limits()), holders)

    def _shared(
        self, function: str, layout: Layout
    ) -> Generator[Stage, Replies, tuple[Task, tuple[str, ...], Replies]]:
        """Have the holders share what `function` needs and the nodes agree on whose shares they have."""
        yield from self._prepared()
        self._number += 1
        task = Task.of(self._number, function, layout)
        request: Packet = {**self._offers, "task": task.text(), "function": function.encode()}
        given = yield Stage("share", dict.fromkeys(self._agreement.holders, request), carries=True)
        holders = tuple(sorted(given))
        if len(holders) < self._agreement.minimum_holders:
            missing = ", ".join(sorted(set(self._agreement.holders) - set(holders)))
            least = self._agreement.minimum_holders
            raise EngineError(f"share: got {len(holders)} holders without {missing}; want at least {least}")
        asked = one_request("share", {holder: _text(given, holder, "asked") for holder in holders})
        task = replace(task, asked=asked.decode(errors="replace"))
        lists: dict[str, dict[str, Any]] = {node: {"task": task.text()} for node in self._nodes}
        for holder in holders:
            for node in self._nodes:
                lists[node][f"{holder}:key"] = _text(given, holder, "key")
                lists[node][f"{holder}:signature"] = _text(given, holder, "signature")
                with reading(holder):
                    lists[node][f"{holder}:share"] = whole_numbers(given[holder], node)
        signed = yield from self._all("gather", lists)
        signatures = {node: _text(signed, node, "signature") for node in self._nodes}
        replies = yield from self._all("open", dict.fromkeys(self._nodes, signatures))
        return task, holders, replies

    def _prepared(self) -> Generator[Stage, Replies, None]:
        """Once a run: the nodes' keys and, where functions are agreed, their channel."""
        if self._offers:
            return
        options: Any = self._agreement.options
        replies = yield from self._all("offer", {node: {} for node in self._nodes})
        offers: dict[str, bytes] = {}
        for node in self._nodes:
            with reading(node):
                offers |= Offer.read(replies[node]).packet(f"{node}:")
        if options.functions:
            replies = yield from self._all("listen", dict.fromkeys(self._nodes, offers))
            addresses = {node: _text(replies, node, "address") for node in self._nodes}
            yield from self._all("join", dict.fromkeys(self._nodes, addresses))
        self._offers = offers

    def _all(self, name: str, packets: Mapping[str, Packet]) -> Generator[Stage, Replies, Replies]:
        """One stage with all three nodes. Raises EngineError naming those that failed or did not answer."""
        replies = yield Stage(name, packets)
        missing = sorted(set(packets) - set(replies))
        if missing:
            raise EngineError(f"{name}: no answer from {', '.join(missing)}; want all three compute nodes")
        said = {node: _text(replies, node, "failure") for node, reply in replies.items() if "failure" in reply}
        if said:
            told = {node: harmless(what.decode(errors="replace")) for node, what in said.items()}
            raise EngineError("\n".join(f"{name}: {node}: {what}" for node, what in told.items()))
        return replies


def _text(replies: Replies, name: str, item: str) -> bytes:
    with reading(name):
        return text(replies[name], item)


def coordinator(agreement: Agreement) -> Coordinator:
    """The coordinator's half."""
    return Coordinator(agreement)


def opened(
    function: str, rows: NDArray[Any], layout: Layout, holders: int, limits: calculations.Limits
) -> dict[str, NDArray[Any]]:
    """What a function's whole numbers mean, by name: figures in the layout's unit, booleans, quotients.

    maximum, median, less, ratio: of the cells' shape; largest: (2, cells); unsafe: True where a cell fails a rule.
    A quotient out of range, or by nothing, is infinite.
    """
    shape = layout.slots[calculations.FUNCTIONS[function].slots[0]].shape
    if function in ("maximum", "median", "top-two"):
        figures = np.stack([layout.decode(row)["value"] for row in rows])
        if function == "top-two":
            return {"largest": figures}
        return {function: figures[0] / 2.0 if function == "median" and holders % 2 == 0 else figures[0]}
    if function == "ratio":
        unit = layout.decode(np.ones(layout.entries, np.int64))
        most = 2 ** (limits.whole + limits.fraction) - 1
        quotient = rows[0].astype(np.float64) / 2.0**limits.fraction
        found = quotient.reshape(shape) * (unit["a"] / unit["b"])
        return {"ratio": np.where(np.abs(rows[0]).reshape(shape) >= most, np.copysign(np.inf, found), found)}
    return {"less" if function == "compare" else "unsafe": rows[0].astype(np.int64).astype(bool).reshape(shape)}


def learns(terms: Terms) -> Sequence[Disclosure]:
    """What each role learns."""
    options, words = Options.model_validate(terms.protection.options), words_of(terms)
    return [
        Disclosure("coordinator", f"{words.total}, and whose contributions are in it", words.seen),
        *_of_functions(options),
        Disclosure("coordinator", f"no holder's {words.one}", "shares sealed to the nodes, one node that is honest"),
        Disclosure(
            "each compute node",
            "who takes part, the layout and the function of every task; no contribution and no result",
            "sharing: two nodes are needed for functions, all three for sums",
        ),
        Disclosure("all three compute nodes together", f"each holder's {words.one} {words.every}", words.alone),
        Disclosure("other holders", words.public, words.noise),
        Disclosure("result party", words.result, words.released),
        Disclosure("all parties", "who took part in each sum and who dropped out", "none"),
        *to_all(),
        Disclosure("anyone on the network", "message sizes and times", "TLS hides the content; mutual between nodes"),
    ]


def _of_functions(options: Options) -> list[Disclosure]:
    """Rows of the functions that a study agrees to, instead of sums of the same figures."""
    found = []
    for name in options.functions:
        what = f"{name}: {calculations.FUNCTIONS[name].opens}, and nothing else of these figures"
        found.append(Disclosure("coordinator", what, "sharing: no two compute nodes collude, all follow the protocol"))
    if any(name.startswith("dominance") for name in options.functions):
        what = "the parameters of the dominance rules"
        found.append(Disclosure("all parties", what, "none: they are secret towards the public alone"))
    return found
