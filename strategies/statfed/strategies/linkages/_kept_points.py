"""Points that were made with a holder's scalar, kept on its disk in chunks, so that another attempt need not make them
again: its own list, and the other's list blinded again.

A chunk is a record: a digest of what it was made from, a tag, the points. The tag is keyed BLAKE2b (RFC 7693) under the
scalar, over the number, the digest and the points. A record that was cut short, altered, put in another's place or made
from something else is as none: its points are made again, and come out right. The file has mode 0600.
"""

import hashlib
import hmac
import os
from pathlib import Path

from statfed.strategies.linkages._ristretto import SIZE, Points, points_of

_DIGEST = 32


class KeptPoints:
    """One file of points. key: the scalar; chunk: points of a record, but of the last one."""

    def __init__(self, path: Path, key: bytes, chunk: int) -> None:
        self._path, self._key = path, key
        self._length = 2 * _DIGEST + chunk * SIZE

    def __repr__(self) -> str:
        return "KeptPoints(<private>)"

    def get(self, number: int, source: bytes, count: int) -> Points | None:
        """The `count` points of a chunk that were made from `source`; None where they are not there as they were."""
        try:
            file = os.open(self._path, os.O_RDONLY | os.O_NOFOLLOW)
        except OSError:
            return None
        try:
            record = os.pread(file, 2 * _DIGEST + count * SIZE, number * self._length)
        finally:
            os.close(file)
        digest, tag, content = record[:_DIGEST], record[_DIGEST : 2 * _DIGEST], record[2 * _DIGEST :]
        if len(content) != count * SIZE or digest != hashlib.sha256(source).digest():
            return None
        return points_of(content) if hmac.compare_digest(tag, self._tag(number, digest, content)) else None

    def put(self, number: int, source: bytes, points: Points) -> None:
        """Keep the points of a chunk that were made from `source`. The record's head is written last."""
        content, digest = points.tobytes(), hashlib.sha256(source).digest()
        file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            start = number * self._length
            _written(file, content, start + 2 * _DIGEST)
            _written(file, digest + self._tag(number, digest, content), start)
        finally:
            os.close(file)

    def _tag(self, number: int, digest: bytes, content: bytes) -> bytes:
        made = hashlib.blake2b(digest_size=_DIGEST, key=self._key, person=b"statfed.points")
        made.update(self._path.suffix.encode().ljust(16) + number.to_bytes(8, "big") + digest)
        made.update(content)
        return made.digest()


def _written(file: int, content: bytes, start: int) -> None:
    left = memoryview(content)
    while left:
        done = os.pwrite(file, left, start)
        left, start = left[done:], start + done
