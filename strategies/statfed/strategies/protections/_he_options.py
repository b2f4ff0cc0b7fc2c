"""Options of `homomorphic-encryption`, and what they mean for a run and for the layout of a sum."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator

from statfed.core.errors import UsageError
from statfed.core.fixed_point import Layout
from statfed.core.protection import Agreement
from statfed.core.section import NAME, Section
from statfed.strategies.protections import _he_planes as planes
from statfed.strategies.protections._he_codec import PLANES, Coarse, Residues, coarse
from statfed.strategies.protections._he_planes import Plane

PAILLIER = (
    "got paillier, which takes 660,000 times a packed plain sum; for all layers of a model the UNECE pilot measured "
    "9 minutes and 528,000 times the size; want bfv, in training with last_layer to encrypt less"
)


class Options(Section):
    """Who holds the keys, and what is encrypted how."""

    key_holder: str = Field(default="key-holder", pattern=f"^{NAME.pattern}$", description="party that decrypts sums")
    scheme: Literal["bfv", "ckks"] = Field(
        default="bfv",
        json_schema_extra={"approximate": "ckks", "weaker": True},
        description="bfv: exact; ckks: approximate, weaker",
    )
    last_layer: int = Field(
        default=0,
        ge=0,
        json_schema_extra={"only": "training", "weaker": True},
        description="training only: encrypt this many trailing entries of an update and send the rest in clear; "
        "0 encrypts everything",
    )

    @field_validator("scheme", mode="before")
    @classmethod
    def _scheme(cls, value: object) -> object:
        if value == "paillier":
            raise ValueError(PAILLIER)
        return value


def run_options(agreement: Agreement) -> Options:
    """The run's options. Raises UsageError without TenSEAL, on a key holder that holds data, on too many holders."""
    options = agreement.options
    if not isinstance(options, Options):
        raise UsageError("homomorphic-encryption: got another protection's options; want its own")
    planes.tenseal()
    if options.key_holder in agreement.holders:
        raise UsageError(f"key_holder: got {options.key_holder}, a holder; want a party that holds no data")
    if len(agreement.holders) > planes.MOST_HOLDERS:
        raise UsageError(
            f"homomorphic-encryption: got {len(agreement.holders)} holders; want at most {planes.MOST_HOLDERS}: "
            "the noise of more ciphertexts would spoil the sum"
        )
    return options


def sealed_entries(options: Options, layout: Layout) -> NDArray[np.bool_]:
    """Which entries of a layout are encrypted, (entries,): under `last_layer` all but the leading ones of its update.

    Raises UsageError on partial encryption of a sum that is not of one model update.
    """
    sealed = np.ones(layout.entries, np.bool_)
    if not options.last_layer:
        return sealed
    updates = [sealed[place] for name, place in layout.places.items() if layout.slots[name].update]
    if len(updates) != 1 or layout.bits == 192:
        raise UsageError("last_layer: got a sum that is not a model update; want 0: statistics are encrypted whole")
    entries = len(updates[0])
    if options.last_layer >= entries:
        raise UsageError(f"last_layer: got {options.last_layer} of {entries} entries; want fewer, or 0 for all")
    updates[0][: entries - options.last_layer] = False
    return sealed


def codec_of(options: Options, layout: Layout, sealed: NDArray[np.bool_]) -> Residues | Coarse:
    """How the encrypted entries of a layout travel. Raises UsageError where the scheme does not suit it."""
    return Residues(layout.bits) if options.scheme == "bfv" else Coarse(coarse(layout).shift[sealed])


def planes_of(options: Options, count: int) -> tuple[Plane, ...]:
    """The parameters of `count` planes. Raises UsageError on a count that no layout has."""
    if count not in (PLANES if options.scheme == "bfv" else PLANES[:1]):
        raise UsageError(f"planes: got {count}; want {', '.join(map(str, PLANES))}, and 1 under ckks")
    return Residues(32 * count).planes if options.scheme == "bfv" else (Plane("ckks"),)
