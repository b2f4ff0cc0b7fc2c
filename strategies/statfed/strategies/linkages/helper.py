"""`helper`: units matched by keyed tags at a helper that sees nothing else, and figures over the matched on shares.

1. *Key.* One holder draws 32 bytes and seals them to the other holders.
2. *Tags.* Each holder tags its units (`_tags`), shuffles them, pads them to the agreed cap, and seals them to the
   helper; for figures also what it shares of each unit (`_join`).
3. *Join.* The helper matches equal tags. Then, as agreed,
   - `size`: it tells the coordinator how many match, or that they are fewer than the minimum frequency;
   - `pairs`: it also tells the named holders which of their own places match, in one random order for all of them: the
     i-th of each belong together;
   - `totals`, and `size` with noise: it deals the hidden join, after which the first two holders have shares of the
     joined records and nobody knows which they are, and sums are worked out on shares (`_shares`; `_cells`, `_models`),
     of which the coordinator gets those that the horizontal method would have got. The number of matches is told as far
     as these tell it. With [privacy] each of the two adds noise to its share before anything is opened (`_noise`, with
     the proof).

Against whom: parties that follow the protocol and try to learn more, the helper colluding with nobody, the first two
holders not with each other, and the coordinator with any one holder. The argument is in the modules named. Holders that
lie about their sets find out, as in every matching, whether a unit that they invented is there; the number of runs is
for policies to limit. Nothing here is checked against parties that deviate: a holder that shares 10 in place of 1 as
its indicator lifts a cell over the minimum frequency, and the first holder can turn its share of a decided bit, or
add to what is opened, unseen. The coordinator of a logistic model names the coefficients of each step: with some of
them the weights leave one record alone, the one with the highest age say, and its values follow from the information;
how records weigh is not looked at on shares. What falls with the key: see `_tags`.
"""

from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError, model_validator

from statfed.core.card import read_card
from statfed.core.codebook import Codebook
from statfed.core.errors import EngineError, Refused, UsageError
from statfed.core.identity import Identity
from statfed.core.linkage import Asked, Estimate, Outcome, Pairs, Reveal, Rounds, Units
from statfed.core.method import Ask, Question, Total, read_question
from statfed.core.privacy.noise import Noise
from statfed.core.protection import Agreement, Disclosure, Replies, Stage
from statfed.core.result import Result
from statfed.core.section import NAME, Section, describe
from statfed.core.terms import Privacy, Terms
from statfed.strategies.linkages import _cells, _join, _model_sums, _models, _noise, _tags
from statfed.strategies.linkages._channels import met
from statfed.strategies.linkages._join import SEED, Cast
from statfed.strategies.linkages._rounds import MOST as MOST_BYTES
from statfed.strategies.linkages._rounds import Arrays, Correspondent, Later, Letter, Mail, Out, Program, Relay
from statfed.strategies.linkages._shares import Computer, Dealer, Value, opened

TITLE = "A helper that matches keyed tags and sees nothing else; figures over the matched on shares"
TRUST: tuple[str, ...] = (
    "every party follows the protocol: minimum frequency and figures hold only then, as a holder may share 10 for 1, "
    "and the first holder may turn its share of what is decided or opened",
    "of a logistic model the coordinator too: it chooses the coefficients of each step, and can choose ones at which "
    "one record weighs most; with a coordinator that may not, ask for tables, or for noise",
    "the helper works with no other party",
    "the first two holders do not work with each other",
    "holders keep the key of the tags from the helper and the coordinator",
)
CARD = read_card(__file__)
QUALITY = ("Keys are compared by equal tags: two units whose normal forms are the same are linked, right or wrong.",)
REVEALS: tuple[Reveal, ...] = ("size", "totals", "pairs")
PARTIES = (2, 3)
EXTRA = ""
METHODS = (*_cells.KINDS, *_models.KINDS)
PARTED = False
PRIVATE: tuple[Reveal, ...] = ("size", "totals")
PRIVATELY = _noise.KINDS
ESTIMATES: tuple[Estimate, ...] = ()
MOST = 20_000_000
_WITHHELD = -1  # in the place of a number of matches below the minimum frequency
_SIZE, _FEW, _OPENED = "size", "few", "opened"


class Options(Section):
    """Options of helper."""

    reveal: Reveal = Field(default="size", description="what comes out: size, totals or pairs")
    helper: str = Field(default="helper", description="name of the helper, no holder's")
    cap: int | None = Field(
        default=None, ge=1, le=MOST, description="units that every holder pads its own to; default: the largest size"
    )
    to: tuple[str, ...] = Field(default=(), description="holders that learn which of their own units match, of pairs")
    minimum_frequency: int = Field(default=1, ge=1, le=1000, description="fewest matches of a cell that is opened")
    method: Literal["", "table", "total", "mean", "survival", "covariance", "ols", "glm"] = Field(
        default="", description="the analysis over the matched, of totals"
    )
    options: dict[str, Any] = Field(default_factory=dict, description="that analysis's own options")
    codebook: Codebook | None = Field(default=None, description="of the joined table, of totals")
    columns: dict[str, tuple[str, ...]] = Field(
        default_factory=dict, description="by holder, which columns of that codebook it has"
    )
    privacy: Privacy | None = Field(default=None, description="of the study: noise of both computing parties")

    @property
    def least(self) -> int:
        """Fewest matches whose number is told: any, also none, where there is no minimum frequency."""
        return self.minimum_frequency if self.minimum_frequency > 1 else 0

    @model_validator(mode="after")
    def _fits(self) -> "Options":
        if not NAME.fullmatch(self.helper):
            raise ValueError(f"helper: got {self.helper!r}; want lower-case letters, digits and hyphens, 40 at most")
        if (self.reveal == "pairs") != bool(self.to):
            raise ValueError("to: got holders without pairs, or pairs without them; want both or neither")
        given = [bool(self.method), self.codebook is not None, bool(self.columns)]
        if given != [self.reveal == "totals"] * 3:
            raise ValueError("method, codebook, columns: want all three with totals, and none of them otherwise")
        if self.privacy is not None and self.reveal not in PRIVATE:
            raise ValueError(f"privacy: got noise for {self.reveal}; want it for {' or '.join(PRIVATE)}")
        had = [name for names in self.columns.values() for name in names]
        if twice := sorted({name for name in had if had.count(name) > 1}):
            raise ValueError(f"columns: got {', '.join(twice)} at several holders; want each at one")
        return self


def options_of(agreement: Agreement) -> Options:
    """Raises UsageError on an agreement to another linkage."""
    if not isinstance(agreement.options, Options):
        raise UsageError(f"linkage: got options of {agreement.protection}; want those of helper")
    return agreement.options


def agreed(asked: Asked) -> Options:
    """What the parties agree on, of a study. Raises UsageError on options that helper does not have."""
    linking, terms = asked.linking, asked.terms
    if linking.options:
        raise UsageError(f"options: got {', '.join(sorted(linking.options))}; want none: helper has no others")
    given: dict[str, Any] = {key: getattr(linking, key) for key in ("reveal", "helper", "cap", "to")}
    given |= {"minimum_frequency": linking.minimum_frequency, "privacy": terms.privacy}
    if linking.reveal == "totals":
        given |= {"method": terms.method, "options": terms.options, "codebook": terms.codebook}
        given["columns"] = asked.columns
    try:
        return Options.model_validate(given)
    except ValidationError as error:
        raise UsageError(describe(error, "linkage helper", "its options", Options)) from None


def figures(agreement: Agreement) -> int:
    """Most exact figures that come out of it."""
    setting = Setting.of(agreement)
    if setting.plan is None:
        return setting.cap if setting.options.to else 1
    return setting.plan.figures


def stepwise(agreement: Agreement, holder: str) -> tuple[int, int]:
    """Of a logistic model score, information and deviance come out at each step, which the first two holders answer."""
    setting, most = Setting.of(agreement), figures(agreement)
    if not isinstance(setting.plan, _models.Products) or holder not in (setting.cast.first, setting.cast.second):
        return most, 0
    return most - setting.plan.steps * setting.plan.each, setting.plan.each


def lists(agreement: Agreement) -> Mapping[str, int]:
    """Places of each holder's list."""
    return dict.fromkeys(agreement.holders, Setting.of(agreement).cap)


def noise(options: Options) -> Noise | None:
    """What each computing party adds to its share of what is opened."""
    return _noise.planned(_question(options), options.privacy)[0] if options.privacy else None


def seen(options: Options, holders: Sequence[str]) -> Mapping[str, Reveal]:  # noqa: ARG001
    """The helper matches, and so counts."""
    return {options.helper: "size"} if options.privacy else {}


def third_parties(options: Options) -> tuple[str, ...]:
    """The helper."""
    return (options.helper,)


Plan = _cells.Cells | _models.Products | _noise.Noisy


def _question(options: Options, holders: tuple[str, ...] = ("holder",)) -> Question[Any] | None:
    """What is asked of the matched; None where only their number is."""
    if options.codebook is None:
        return None
    terms = Terms(
        method=options.method,
        options=options.options,
        codebook=options.codebook,
        holders=holders,
        seed=None,
        privacy=options.privacy,
    )
    return read_question(terms)[1]


@dataclass(frozen=True)
class Setting:
    """What follows from an agreement. Raises UsageError on one that does not fit."""

    cast: Cast
    cap: int
    options: Options
    plan: Plan | None = None
    question: Question[Any] | None = None

    @classmethod
    def of(cls, agreement: Agreement) -> "Setting":
        options = options_of(agreement)
        holders = agreement.holders
        if not PARTIES[0] <= len(holders) <= PARTIES[1]:
            raise UsageError(f"holders: got {len(holders)}; want {PARTIES[0]} or {PARTIES[1]}")
        if agreement.third_parties != (options.helper,) or options.helper in holders:
            raise UsageError(f"helper: got {', '.join(agreement.third_parties)}; want {options.helper}, no holder")
        if astray := sorted({*options.to, *options.columns} - set(holders)):
            raise UsageError(f"to, columns: got {', '.join(astray)}; want holders of the linkage")
        cap = options.cap or max(agreement.sizes.values())
        found, question = cls(Cast(holders, options.helper), cap, options), _question(options, holders)
        of = {name: holder for holder, names in options.columns.items() for name in names}
        if options.privacy is not None:
            if cap < max(agreement.sizes.values()):
                raise UsageError(
                    f"cap: got {cap} with [privacy]; want at least every holder's public size: one that its units do "
                    "not fit into would tell of them"
                )
            plan = _noise.read(question, options.privacy, of, holders, cap)
            return replace(found, plan=plan, question=question)
        if question is None:
            return found
        read = _cells.read if options.method in _cells.KINDS else _models.read
        return replace(found, plan=read(question, of, holders, cap, options.minimum_frequency), question=question)

    def read_by(self, holder: str) -> list[str]:
        """Columns of a holder that the analysis reads."""
        own = self.options.columns.get(holder, ())
        if self.question is None:
            return []
        return [name for name in self.asked.method.columns(self.asked) if name in own]

    @property
    def most(self) -> int:
        """Bytes of a letter: of matches alone a list of tags, and always a key; else what any letter may have."""
        return MOST_BYTES if self.plan else max(_tags.SIZE * self.cap, _tags.KEY)

    @property
    def asked(self) -> Question[Any]:
        """The question of totals. Raises UsageError where only matches are asked for."""
        if self.question is None:
            raise UsageError(f"reveal: got {self.options.reveal}; want totals")
        return self.question


def _shuffled(
    columns: Iterable[NDArray[np.uint64]], places: NDArray[np.int64], shuffle: NDArray[np.int64]
) -> Iterator[NDArray[np.uint64]]:
    """Columns of the units in the order of the list, 0 where it is filled up."""
    for column in columns:
        whole = np.zeros(len(shuffle), np.uint64)
        whole[: len(places)] = column[places]
        yield whole[shuffle]


class Holder(Correspondent):
    """A holder's half. pairs: once told, the places of its own matched units, in the order common to all that are told;
    private."""

    def __init__(self, agreement: Agreement, identity: Identity, units: Units) -> None:
        self._setting, self._name, self._units = Setting.of(agreement), identity.name, units
        self.pairs: Pairs | None = None
        self._machine: Computer | None = None
        super().__init__(agreement, identity, self._program_of, self._setting.most)

    def __repr__(self) -> str:
        return f"Holder({self._name}, <private>)"

    @property
    def steps(self) -> int:
        """Steps of a model that were answered."""
        return 0 if self._machine is None else self._machine.steps

    def _program_of(self) -> Program:
        setting, cast, own, cap = self._setting, self._setting.cast, self._name, self._setting.cap
        plan = setting.plan
        payload = iter(()) if plan is None else plan.payload(own, self._units, setting.read_by(own))
        if own == cast.first:
            key = np.frombuffer(_tags.fresh().words(_tags.KEY // 8).tobytes(), np.uint8)
            yield Out({other: (key,) for other in cast.holders if other != own})
        else:
            mail = yield Out()
            key = mail.of(cast.first).take((_tags.KEY,), "<u1")
        stream = _tags.fresh()
        found, places = _tags.tags(key.tobytes(), self._units)
        self._units = Units({})  # all that is needed of them from here on is in the payload
        shuffle = _tags.permutation(stream, cap)
        sent: dict[str, list[NDArray[Any] | Later]] = {
            cast.helper: [_tags.padded(found, cap, stream)[shuffle].view(np.uint64)]
        }
        del found
        if plan is None:
            yield Out(sent)
            if own in setting.options.to:
                yield from self._paired(places, shuffle)
            return
        mask, width = _join.seed(), plan.width(own)
        columns = _join.masked(_shuffled(payload, places, shuffle), mask)
        sent[cast.helper].append(Later(cap * width * 8, columns))
        sent[cast.keeper(own)] = [mask]
        del columns, payload, places, shuffle
        mail = yield Out(sent)
        if own in (cast.first, cast.second):
            yield from self._computing(mail, plan)

    def _paired(self, places: NDArray[np.int64], shuffle: NDArray[np.int64]) -> Program:
        mail = yield Out()
        letter = mail.of(self._setting.cast.helper)
        found = letter.take((letter.left // 8,), "<i8")
        letter.end()
        if len(found) and not (found.min() >= 0 and found.max() < self._setting.cap):
            raise Refused("pairs: got places that are none; want those of this holder")
        at = shuffle[found]
        if (at >= len(places)).any() or len(np.unique(at)) != len(at):
            raise Refused("pairs: got places of no unit, or one twice; want those of this holder's units, each once")
        self.pairs = Pairs(places[at], np.arange(len(found)))

    def _computing(self, mail: Mail, plan: Plan) -> Program:
        """As one of the two computing parties."""
        cast, own, cap = self._setting.cast, self._name, self._setting.cap
        masks = {name: mail.of(name).take((SEED,), "<u1") for name in cast.holders if cast.keeper(name) == own}
        mail = yield Out()
        letter = mail.of(cast.helper)
        stream = _join.stream_of(letter.take((SEED,), "<u1"))
        first = own == cast.first
        peer = cast.second if first else cast.first
        machine = self._machine = Computer(peer, cast.helper, first, stream)
        shared = {}
        for name in cast.holders:
            shape = (cap, plan.width(name))
            if name in masks:
                rows, again = letter.take((cap,), "<i8"), letter.take((SEED,), "<u1")
                if len(rows) and not (rows.min() >= 0 and rows.max() < cap):
                    raise Refused("join: got rows that are none; want those of the list")
                shared[name] = _join.kept(shape, rows, masks[name], again)
                del rows
            else:
                shared[name] = Value(shape, _join.read(letter, shape))
        indicator = Value((cap, 1), machine.words((cap, 1)) if first else letter.take((cap, 1)))
        letter.end()
        del letter, mail
        yield from plan.program(machine, indicator, shared)


class Helper(Correspondent):
    """The helper's half."""

    def __init__(self, agreement: Agreement, identity: Identity) -> None:
        self._setting = Setting.of(agreement)
        super().__init__(agreement, identity, self._program_of, self._setting.most)

    def _program_of(self) -> Program:
        setting, cast, cap, plan = self._setting, self._setting.cast, self._setting.cap, self._setting.plan
        yield Out()
        mail = yield Out()
        letters = [mail.of(name) for name in cast.holders]
        found = _tags.matched([letter.take((2 * cap,)).view(_tags.TAG) for letter in letters])
        if plan is None:
            stream = _tags.fresh()
            enough = len(found) >= setting.options.least
            order = _tags.permutation(stream, len(found))[: len(found) if enough else 0]
            to = setting.options.to
            told = {name: (found[order, i],) for i, name in enumerate(cast.holders) if name in to}
            yield Out(told, {_SIZE: np.array(len(found) if enough else _WITHHELD, np.int64)})
            return
        seeds = {name: _join.seed() for name in (cast.first, cast.second)}
        dealer = Dealer(cast.second, (_join.stream_of(seeds[cast.first]), _join.stream_of(seeds[cast.second])))
        sent = self._joined(letters, found, seeds, dealer, plan)
        del mail, letters, found
        yield Out(sent)
        shared = {name: Value((cap, plan.width(name))) for name in cast.holders}
        yield from plan.program(dealer, Value((cap, 1)), shared)

    def _joined(
        self,
        letters: Sequence[Letter],
        found: NDArray[np.int64],
        seeds: Mapping[str, NDArray[np.uint8]],
        dealer: Dealer,
        plan: Plan,
    ) -> dict[str, list[NDArray[Any] | Later]]:
        """The hidden join: what each computing party gets of it. Columns are taken from the letters as they leave."""
        cast, cap = self._setting.cast, self._setting.cap
        rows, is_match = _tags.aligned(found, cap, _tags.fresh())
        sent: dict[str, list[NDArray[Any] | Later]] = {name: [key] for name, key in seeds.items()}
        for i, (name, letter) in enumerate(zip(cast.holders, letters, strict=True)):
            again, width = _join.seed(), plan.width(name)
            if letter.left != cap * width * 8:
                raise Refused(f"mail of {name}: got {letter.left} bytes after its tags; want {cap * width * 8}")
            columns = _columns(letter, cap, width)
            sent[cast.keeper(name)] += [rows[i], again]
            sent[cast.other(name)].append(Later(cap * width * 8, _join.remasked(columns, rows[i], again)))
        sent[cast.second].append(dealer.corrected(is_match.astype(np.uint64)[:, None]))
        return sent


def _columns(letter: Letter, cap: int, width: int) -> Iterator[NDArray[np.uint64]]:
    for _ in range(width):
        yield letter.take((cap,))


def party(
    agreement: Agreement,
    identity: Identity,
    units: Units | None,
    keep: Path | None = None,  # noqa: ARG001
) -> Holder | Helper:
    """A party's half. keep: left alone; tags have a fresh key each time, and are made in seconds.

    Raises UsageError where a holder has no units, or the helper some.
    """
    if (identity.name in agreement.holders) != (units is not None):
        raise UsageError(f"{identity.name}: got units for the helper, or none for a holder; want them of holders alone")
    return Helper(agreement, identity) if units is None else Holder(agreement, identity, units)


def coordinator(agreement: Agreement) -> Rounds:
    """The coordinator's half: what is worked out stands in the options that all have agreed to.

    Raises EngineError where a party does not answer or answers in another form, Refused where too few match.
    """
    return _coordinated(agreement)


def _coordinated(agreement: Agreement) -> Rounds:
    setting = Setting.of(agreement)
    yield from met(agreement)
    relay = Relay(agreement)
    yield from relay.round(doing="key of the tags")
    yield from relay.round(doing="tags, pieces")
    said = yield from relay.round(doing="join, pieces")
    if setting.plan is None:
        size = said[setting.cast.helper].get(_SIZE)
        if size is not None and size.shape == () and int(size) == _WITHHELD:
            return Outcome()
        if size is None or size.shape != () or not setting.options.least <= int(size) <= setting.cap:
            raise EngineError(f"{setting.cast.helper}: got no number of matches from 0 to {setting.cap}")
        if setting.options.to:
            yield from relay.round(doing="pairs, pieces")
        return Outcome(size=int(size))
    if isinstance(setting.plan, _noise.Noisy):
        return (yield from _of_noisy(setting, setting.plan, relay))
    if isinstance(setting.plan, _cells.Cells):
        return (yield from _of_cells(setting, setting.plan, relay))
    return (yield from _of_products(setting, setting.plan, relay))


Opened = tuple[dict[str, NDArray[np.int64]], NDArray[np.bool_]]


def _until(
    setting: Setting, plan: Plan, relay: Relay, shapes: Mapping[str, tuple[int, ...]]
) -> Generator[Stage, Replies, Opened]:
    """Rounds until both computing parties open what has these shapes; and the bits that they have decided.

    Raises EngineError on anything of another form, Refused where nothing of a model is opened.
    """
    few = np.zeros(plan.groups, bool)
    enough = False
    while True:
        said = yield from relay.round(doing="sums on shares, pieces")
        shares = [said[name] for name in (setting.cast.first, setting.cast.second)]
        if not enough and any(_FEW in each for each in shares):
            bits = [_formed(each, _FEW, (1,)) for each in shares]
            enough = not (bits[0] ^ bits[1]).any()
            if not enough:
                raise Refused(
                    f"{setting.options.method}: got fewer matches than {setting.options.minimum_frequency}, or none; "
                    "want a larger set, or other units: nothing of this one was opened"
                )
        elif any(_FEW in each for each in shares):
            bits = [_formed(each, _FEW, few.shape) for each in shares]
            few = (bits[0] ^ bits[1]).astype(bool)
            if few.any() and isinstance(plan, _models.Products):
                raise Refused(
                    f"{setting.options.method}: got fewer matches than {setting.options.minimum_frequency} "
                    "at a level, in a cell that a term crosses, at one of few values or with another value than most; "
                    "want another model: nothing of this one was opened"
                )
        if any(name in each for name in shapes for each in shares):
            found = {name: [_formed(each, name, shape) for each in shares] for name, shape in shapes.items()}
            return {name: opened(each) for name, each in found.items()}, few


def _formed(said: Arrays, name: str, shape: tuple[int, ...]) -> NDArray[Any]:
    found = said.get(name)
    if found is None or found.shape != shape:
        raise EngineError(f"{name}: got {'none' if found is None else found.shape} of a computing party; want {shape}")
    return found


def _of_cells(setting: Setting, plan: _cells.Cells, relay: Relay) -> Rounds:
    found, few = yield from _until(setting, plan, relay, {_OPENED: plan.shape})
    sums = plan.total(found[_OPENED], few)
    result = _driven(setting, lambda ask: _cells.answer(plan, sums, ask))
    size = None if few.any() else int(sums.count.sum())
    return Outcome(size=size, result=_of_complete(_cells.released(plan, result, few)))


def _of_noisy(setting: Setting, plan: _noise.Noisy, relay: Relay) -> Rounds:
    found, _ = yield from _until(setting, plan, relay, {_OPENED: plan.shape})
    outcome = plan.outcome(found[_OPENED], lambda answer: _driven(setting, answer))
    return outcome if outcome.result is None else replace(outcome, result=_of_complete(outcome.result))


def _of_products(setting: Setting, plan: _models.Products, relay: Relay) -> Rounds:
    found, _ = yield from _until(setting, plan, relay, {_OPENED: (1 + len(plan.features),) * 2})
    known = _model_sums.Opened(plan, found[_OPENED])
    rounds = setting.asked.method.coordinate(setting.asked)
    try:
        ask = next(rounds)
        while True:
            if ask.name == "separation":  # counts of records on both sides of a plane: never told
                ask = rounds.throw(Refused("separation: got an ask for numbers on both sides of a plane; want none"))
                continue
            if ask.name == "step":
                total = yield from _stepped(setting, known, ask, relay)
            else:
                total = _model_sums.answer(known, ask)
            ask = rounds.send(total)
    except StopIteration as end:
        result: Result = end.value
    if plan.logistic:
        facts = {**result.facts, "pearson_chi2": None}
        result = replace(result, facts=facts, notes=(*result.notes, "no Pearson chi-square: it has no form on shares"))
    return Outcome(size=known.count, result=_of_complete(result))


def _of_complete(result: Result) -> Result:
    """The result without numbers of records that lack a value: those are no units, and nobody knows how many match."""
    facts = {name: None if name in ("missing", "left_out") else value for name, value in result.facts.items()}
    note = "records without a value of a column that is looked at are no units: how many of them match is not known"
    return replace(result, facts=facts, notes=(*result.notes, note))


def _stepped(setting: Setting, known: _model_sums.Opened, ask: Ask, relay: Relay) -> Generator[Stage, Replies, Total]:
    at = _model_sums.point(known.products, ask)
    told: Arrays = {"coefficients": at.told, "period": np.array(at.series.period)}
    yield from relay.round(told, "sums on shares, pieces")
    size = 1 + len(known.products.terms)
    shapes = {"score": (size,), "deviance": (1,), "information": (size, size)}
    sums, _ = yield from _until(setting, known.products, relay, shapes)
    return _model_sums.stepped(known, ask, at, sums)


def _driven(setting: Setting, answer: Any) -> Result:
    """The coordinator's half of the method on these answers."""
    rounds = setting.asked.method.coordinate(setting.asked)
    try:
        ask = next(rounds)
        while True:
            ask = rounds.send(answer(ask))
    except StopIteration as end:
        result: Result = end.value
        return result


def learns(agreement: Agreement, reveal: Reveal) -> Sequence[Disclosure]:
    """What each role learns."""
    options = options_of(agreement)
    keyed, shuffled = "HMAC-SHA256 under a key that it lacks", "every holder's secret shuffle"
    rows = [
        Disclosure("helper", "which places of the shuffled lists match, so how many; no unit, key or value", shuffled),
        Disclosure("helper", "no key of any unit", keyed),
        Disclosure("helper", "no number of units: lists are padded to the cap", "random tags as padding"),
        Disclosure("each holder", "no other holder's keys", "they leave as tags, for the helper alone"),
    ]
    if options.privacy:
        what = "the number of matches" if reveal == "size" else f"the sums of {options.method} over the matches"
        rows += [
            Disclosure("coordinator", f"{what}, with noise", _noise.told(options.privacy)),
            Disclosure("helper", "the number of matches, exactly", "none: against the helper epsilon does not hold"),
        ]
    if reveal == "size":
        rows += [] if options.privacy else [Disclosure("coordinator", "the number of matches", "none")]
        rows.append(_nobody("which units match"))
    if reveal == "pairs":
        rows.append(Disclosure("coordinator", "the number of matches", "none"))
        rows += [
            Disclosure(name, "which of its own units match, in an order common to all told", "none")
            for name in options.to
        ]
    if reveal == "totals":
        what = (
            f"the sums of {options.method} over the matches that the horizontal method gets, and what follows from them"
        )
        least = options.minimum_frequency
        rule = (
            f"cells of fewer than {least} matches, empty ones too, are never opened, nor is anything where fewer than "
            f"{least} match in all; numbers of exits by interval are, in groups of at least so many"
        )
        exact = [
            Disclosure("coordinator", what, rule if options.minimum_frequency > 1 else "none"),
            Disclosure("the first two holders", "one bit a cell, or of a whole model: is it withheld; steps", "none"),
        ]
        rows += [
            *([] if options.privacy else exact),
            Disclosure(
                "the first two holders together", "all values of matches, and which match", "they do not collude"
            ),
            _nobody("which units match, of others or of its own"),
        ]
    rows += [
        Disclosure("helper and any holder together", "which of that holder's units match", "they do not collude"),
        Disclosure(
            "anyone on the network", "message sizes and times, which follow from the agreement", "sealed channels"
        ),
    ]
    return rows


def _nobody(what: str) -> Disclosure:
    return Disclosure("each holder", f"not {what}", "shuffles, masks and shares: see the module")
