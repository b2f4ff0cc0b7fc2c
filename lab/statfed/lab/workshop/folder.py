"""A kit as a folder: what teams get, what the judge keeps, and hashes that say whether either is what was written.

The seed of a kit gives two seeds by SHA-256: one of the training records, which stands in `kit.toml`, and one of what
is held back, which stands with the kit's own in the judge's part alone. So the public generator and `kit.toml` do not
give the held-back records to a team; a kit's seed that can be guessed does.
"""

import hashlib
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
from pydantic import Field, ValidationError

from statfed.core import VERSION, toml
from statfed.core.codebook import Codebook, load_codebook
from statfed.core.errors import UsageError
from statfed.core.section import Section, describe, read_toml
from statfed.core.synthetic.coded import Coded
from statfed.core.synthetic.guide import guide
from statfed.federation.synthetic import frame_of, own_table
from statfed.lab.workshop.contract import Kit, draw, load_kit
from statfed.lab.workshop.task import judge_text, task_text

FORMAT = "statfed.workshop/1"
LEAST, MOST = 1000, 100_000
"""Training records of a kit: attacks on fewer say nothing, and a score of more takes hours."""
TEAM = ("codebook.toml", "original.parquet")
JUDGE = ("judge.toml", "fresh.parquet", "members.parquet", "others.parquet")
SCORES = "scores.jsonl"
S = TypeVar("S", bound=Section)


class Manifest(Section):
    """kit.toml. files, judge: SHA-256 of files, by name. digest: of all the rest."""

    format: Literal["statfed.workshop/1"]
    kit: str
    version: int
    statfed: str
    numpy: str
    seed: str = Field(description="of the training records alone, hexadecimal")
    records: int = Field(ge=LEAST, le=MOST)
    use: str
    keys: tuple[str, ...]
    secrets: tuple[str, ...]
    target: str
    models: tuple[str, ...]
    files: dict[str, str]
    judge: dict[str, str]
    digest: str = ""

    @property
    def least(self) -> int:
        """Records of a team's file at least."""
        return self.records // 10

    @property
    def most(self) -> int:
        """Records of a team's file at most."""
        return self.records * 10

    def digested(self) -> str:
        """What `digest` has to be."""
        told = json.dumps(self.model_dump(mode="json", exclude={"digest"}), sort_keys=True)
        return hashlib.sha256(told.encode()).hexdigest()


class _Held(Section):
    """judge.toml. seed: the kit's, which everything follows from; held: that of what is held back."""

    seed: str
    held: str


@dataclass(frozen=True)
class Workshop:
    """A kit that was read, and whose hashes are right. members, others: planted rare records, in the original and not.
    seed: of attacks and of models, from the judge's part, so that nobody else knows which records are attacked."""

    folder: Path
    manifest: Manifest
    codebook: Codebook
    original: Coded
    fresh: Coded
    members: Coded
    others: Coded
    seed: int

    @property
    def title(self) -> str:
        """One line for people."""
        return f"{self.manifest.kit} {self.manifest.version}, {self.manifest.records:,} records"


def write(
    name: str,
    folder: Path,
    use: str = "public-release",
    records: int = 3000,
    seed: int | None = None,
    judge: Path | None = None,
) -> Manifest:
    """Write a kit to a folder, and what is held back to `judge` in it or to another folder.

    seed: everything random follows from it; None draws one of 128 bits. Raises UsageError on names and numbers that are
    none, and where a folder has files.
    """
    kit = load_kit(name)
    guide().use(use)
    if not LEAST <= records <= MOST:
        raise UsageError(f"--records: got {records:,}; want {LEAST:,} to {MOST:,}")
    if seed is not None and seed < 0:
        raise UsageError("--seed: got a negative number; want 0 or more")
    held = judge or folder / "judge"
    for place in (folder, held):
        _empty(place)
    own = secrets.randbits(128) if seed is None else seed
    original_seed, held_seed = _derived(own, "original"), _derived(own, "held back")
    drawn = draw(kit, records, original_seed, held_seed)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        held.mkdir(parents=True, exist_ok=True)
        (folder / "codebook.toml").write_text(toml.dumps(_book(kit)), encoding="utf-8")
        _save(drawn.original, folder / "original.parquet")
        for each, table in (("fresh", drawn.fresh), ("members", drawn.members), ("others", drawn.others)):
            _save(table, held / f"{each}.parquet")
        (held / "judge.toml").write_text(toml.dumps({"seed": str(own), "held": f"{held_seed:x}"}), encoding="utf-8")
        made = Manifest(
            format=FORMAT,
            kit=name,
            version=kit.VERSION,
            statfed=VERSION,
            numpy=np.__version__,
            seed=f"{original_seed:x}",
            records=records,
            use=use,
            keys=kit.KEYS,
            secrets=kit.SECRETS,
            target=kit.TARGET,
            models=kit.MODELS,
            files={each: _hash(folder / each) for each in TEAM},
            judge={each: _hash(held / each) for each in JUDGE},
        )
        made = made.model_copy(update={"digest": made.digested()})
        (folder / "task.md").write_text(task_text(kit, made, judge_inside=judge is None), encoding="utf-8")
        (held / "README.md").write_text(judge_text(kit, made), encoding="utf-8")
        (folder / "kit.toml").write_text(toml.dumps(made.model_dump(mode="json")), encoding="utf-8")
    except OSError as error:
        raise UsageError(f"--out: got a folder that cannot be written ({error.strerror}); want another") from None
    return made


def read(folder: Path, judge: Path | None = None) -> Workshop:
    """A kit, with what is held back. Raises UsageError naming the file that is missing, or is not what was written."""
    manifest = manifest_of(folder)
    held = judge or folder / "judge"
    if not held.is_dir():
        raise UsageError(f"kit: got no folder {held}; want the judge's part, or --judge FOLDER")
    for place, files in ((folder, manifest.files), (held, manifest.judge)):
        for name, wanted in files.items():
            if _hash(place / name) != wanted:
                raise UsageError(f"kit: got {place / name}, which is not the file that was written; want that one")
    codebook = load_codebook(folder / "codebook.toml")
    told = _model(_Held, held / "judge.toml")
    tables = {name: own_table(held / f"{name}.parquet", codebook, name) for name in ("fresh", "members", "others")}
    return Workshop(
        folder,
        manifest,
        codebook,
        own_table(folder / "original.parquet", codebook, "original"),
        seed=int(told.held, 16),
        **tables,
    )


def manifest_of(folder: Path) -> Manifest:
    """kit.toml of a folder. Raises UsageError where it is none, or was changed."""
    path = folder / "kit.toml"
    if not path.is_file():
        raise UsageError(f"kit: got no {path}; want a folder of `statfed workshop new` (--kit FOLDER)")
    found = _model(Manifest, path)
    if set(found.files) != set(TEAM) or set(found.judge) != set(JUDGE) or found.digest != found.digested():
        raise UsageError(f"kit: got {path}, which is not as it was written; want that one")
    guide().use(found.use)
    return found


def _model(kind: type[S], path: Path) -> S:
    try:
        return kind.model_validate(read_toml(path, "kit"))
    except ValidationError as error:
        raise UsageError(describe(error, str(path), f"one of {', '.join(kind.model_fields)}", kind)) from None


def _book(kit: Kit) -> Mapping[str, Any]:
    return kit.CODEBOOK


def _derived(seed: int, what: str) -> int:
    return int.from_bytes(hashlib.sha256(f"statfed workshop, {what}: {seed}".encode()).digest()[:16], "big")


def _save(table: Coded, path: Path) -> None:
    frame_of(table).to_parquet(path, index=False)


def _hash(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise UsageError(f"kit: got {path}, which cannot be read ({error.strerror}); want the whole kit") from None


def _empty(folder: Path) -> None:
    if folder.is_symlink() or (folder.exists() and (not folder.is_dir() or any(folder.iterdir()))):
        raise UsageError(f"--out: got {folder}, which is there and not empty; want a new folder")
