"""Seeded generator of smart-watch records of the schema of the watch data: synthetic persons, no real person in it.

Each exercise is an arm movement: a posture (the direction of gravity in the watch's frame) and two rotations about
given axes, periodic with a second harmonic, one lagging the other. The accelerometer shows the rotated gravity and
the tangential and centripetal acceleration at the end of a lever, the gyroscope the rotation rate. Persons differ in
tempo, extent, orientation of the watch and of the whole movement, posture, lever, sensor noise and tremor; records
of a person differ less. Half of the records are of the left arm, a mirror image.

The spread of persons is set such that a model of many persons does about as well on unseen persons as one of the
real data does, and a model of two persons much worse.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from statfed.core.randomness import stream
from statfed.core.records import Records

Floats = NDArray[np.float32]

SAMPLES = 128
HERTZ = 50.0
GRAVITY = 9.81
ACCELEROMETER_LIMIT = 16.0  # g
GYROSCOPE_LIMIT = 35.0  # rad/s
MIX = 8.0
"""Dirichlet concentration of a person's class mix when none is given: near even."""
_BATCH = 4096


@dataclass(frozen=True)
class Movement:
    """One exercise in the watch's frame: x along the forearm to the hand, z out of the back of the wrist.

    posture: direction of the resting accelerometer (g); axes: of the two rotations; swings: their extent (rad);
    lag: phase of the second behind the first (rad); harmonic: share of the doubled frequency.
    """

    hertz: float
    posture: tuple[float, float, float]
    axes: tuple[tuple[float, float, float], tuple[float, float, float]]
    swings: tuple[float, float]
    lag: float
    harmonic: float


MOVEMENTS = (
    Movement(0.80, (0.95, 0.00, 0.10), ((0, 1, 0), (0, 0, 1)), (0.40, 0.35), 1.57, 0.05),  # PEN
    Movement(0.40, (0.55, 0.45, 0.40), ((0, 0, 1), (1, 0, 0)), (0.75, 0.30), 0.30, 0.15),  # ABD
    Movement(0.42, (0.55, -0.40, 0.45), ((0, 1, 0), (1, 0, 0)), (0.75, 0.25), 0.20, 0.15),  # FEL
    Movement(0.50, (-0.05, 0.90, 0.30), ((0, 1, 0), (1, 0, 0)), (0.60, 0.25), 2.60, 0.10),  # IR
    Movement(0.50, (-0.05, 0.90, 0.00), ((0, 1, 0), (0, 0, 1)), (0.60, 0.25), 0.50, 0.25),  # ER
    Movement(0.45, (0.80, 0.30, -0.25), ((0, 0, 1), (0, 1, 0)), (0.55, 0.35), 0.90, 0.20),  # TRAP
    Movement(0.55, (0.65, 0.30, 0.55), ((0, 1, 0), (0, 0, 1)), (0.55, 0.40), 3.14, 0.30),  # ROW
)


@dataclass(frozen=True)
class Spread:
    """How much persons, and records of one person, differ. Standard deviations of logarithms or of angles (rad)."""

    tempo: float = 0.22
    extent: float = 0.30
    orientation: float = 0.38
    posture: float = 0.26
    record: float = 0.14


def generate(
    persons: int,
    records_per_person: int,
    seed: int,
    mix: NDArray[np.float64] | None = None,
    spread: Spread | None = None,
) -> Records:
    """Records of persons 0 to `persons` - 1, in that order, each with `records_per_person` windows.

    mix: (persons, 7), each row the class probabilities of one person; near-even rows are drawn when it is None.
    Result: windows (persons * records_per_person, 6, 128): accelerometer x, y, z in g, gyroscope x, y, z in rad/s.
    The same arguments give the same records.
    """
    random = np.random.default_rng(stream(seed, "generator").seed())
    spread = spread or Spread()
    classes = len(MOVEMENTS)
    if mix is None:
        mix = random.dirichlet(np.full(classes, MIX), persons)
    who = np.repeat(np.arange(persons, dtype=np.int64), records_per_person)
    thresholds = np.cumsum(mix, 1)[who, :-1]
    labels = (random.random(len(who))[:, None] > thresholds).sum(1, dtype=np.int64)
    habits = _habits(persons, random, spread)
    windows = np.empty((len(who), 6, SAMPLES), np.float32)
    for start in range(0, len(who), _BATCH):
        rows = slice(start, start + _BATCH)
        windows[rows] = _windows(labels[rows], habits, who[rows], random, spread)
    return Records(windows, labels, who)


@dataclass(frozen=True)
class _Habits:
    """What is constant in a person: one row a person. Matrices (persons, 3, 3); by class where so said."""

    tempo: Floats  # (persons, classes)
    extent: Floats  # (persons, classes, 2)
    lag: Floats  # (persons, classes)
    frame: Floats  # (persons, 3, 3): how the watch sits
    stance: Floats  # (persons, classes, 3, 3): how the exercise is done
    lever: Floats  # (persons,), m
    noise: Floats  # (persons,), multiple of the common sensor noise
    tremor: Floats  # (persons, 2): rad/s, Hz


def _habits(persons: int, random: np.random.Generator, spread: Spread) -> _Habits:
    def normal(*shape: int) -> Floats:
        return random.standard_normal((persons, *shape), np.float32)

    classes = len(MOVEMENTS)
    return _Habits(
        tempo=np.exp(spread.tempo * (normal(1) + 0.5 * normal(classes))),
        extent=np.exp(spread.extent * (normal(1, 1) + 0.5 * normal(classes, 2))),
        lag=spread.posture * 2 * normal(classes),
        frame=_rotations(spread.orientation * normal(3)),
        stance=_rotations(spread.posture * normal(classes, 3)),
        lever=0.45 + 0.05 * normal(),
        noise=np.exp(0.4 * normal()),
        tremor=np.stack([0.06 * np.exp(0.7 * normal()), 9.0 + normal()], 1),
    )


def _windows(
    labels: NDArray[np.int64], habits: _Habits, who: NDArray[np.int64], random: np.random.Generator, spread: Spread
) -> Floats:
    """Signals of the records of persons `who` doing `labels`: (records, 6, samples)."""
    count = len(labels)

    def normal(*shape: int) -> Floats:
        return random.standard_normal((count, *shape), np.float32)

    def table(key: str) -> Floats:
        return np.array([getattr(m, key) for m in MOVEMENTS], np.float32)[labels]

    time = np.arange(SAMPLES, dtype=np.float32) / HERTZ
    omega = 2 * np.pi * table("hertz") * habits.tempo[who, labels] * np.exp(spread.record * normal())
    swings = table("swings") * habits.extent[who, labels] * np.exp(spread.record * normal(2))
    start = np.float32(2 * np.pi) * random.random((count, 1), np.float32)
    phase: Floats = (omega[:, None] * time + start).astype(np.float32, copy=False)
    lag = table("lag") + habits.lag[who, labels] + spread.record * normal()
    harmonic = table("harmonic")[:, None]

    jitter = _rotations(spread.record * normal(3))
    turn = jitter @ habits.frame[who] @ habits.stance[who, labels]
    posture = table("posture")
    gravity = np.einsum("nij,nj->ni", turn, posture / np.linalg.norm(posture, axis=1, keepdims=True))
    axes = np.einsum("nij,nkj->nki", turn, table("axes"))

    angle, rate, push = _angles(phase, omega, swings[:, 0], harmonic)
    late: Floats = (phase - lag[:, None]).astype(np.float32, copy=False)
    angle2, rate2, push2 = _angles(late, omega, swings[:, 1], harmonic)
    tremor = habits.tremor[who]
    shake = tremor[:, :1] * np.cos(2 * np.pi * (tremor[:, 1:] * time + random.random((count, 1), np.float32)))
    rate = rate + shake

    acceleration = _rotate(_rotate(gravity[:, :, None], axes[:, 0], -angle), axes[:, 1], -angle2)
    rotation = _rotate(axes[:, 0, :, None] * rate[:, None], axes[:, 1], -angle2) + axes[:, 1, :, None] * rate2[:, None]
    lever = habits.lever[who][:, None] / GRAVITY
    forearm = turn[:, :, 0]
    for axis, quick in ((axes[:, 0], push), (axes[:, 1], push2)):
        acceleration += np.cross(axis, forearm)[:, :, None] * (lever * quick)[:, None]
    acceleration -= forearm[:, :, None] * (lever * (rate**2 + rate2**2))[:, None]

    noise = habits.noise[who][:, None, None]
    acceleration += 0.03 * noise * normal(3, SAMPLES)
    rotation += 0.05 * noise * normal(3, SAMPLES)
    left = np.where(random.random(count) < 0.5, -1.0, 1.0).astype(np.float32)[:, None]
    acceleration[:, 1] *= left
    rotation[:, 0] *= left
    rotation[:, 2] *= left
    return np.concatenate(
        [
            acceleration.clip(-ACCELEROMETER_LIMIT, ACCELEROMETER_LIMIT),
            rotation.clip(-GYROSCOPE_LIMIT, GYROSCOPE_LIMIT),
        ],
        1,
    )


def _angles(phase: Floats, omega: Floats, swing: Floats, harmonic: Floats) -> tuple[Floats, Floats, Floats]:
    """Angle (rad), rate (rad/s) and angular acceleration (rad/s^2) of one rotation, each (records, samples)."""
    speed, extent = omega[:, None], swing[:, None]
    sine, cosine = np.sin(phase), np.cos(phase)
    double_sine, double_cosine = 2 * sine * cosine, cosine**2 - sine**2
    angle = extent * (sine + harmonic * double_sine)
    rate = extent * speed * (cosine + 2 * harmonic * double_cosine)
    push = -extent * speed**2 * (sine + 4 * harmonic * double_sine)
    return angle, rate, push


def _rotate(vectors: Floats, axis: Floats, angle: Floats) -> Floats:
    """Rodrigues' formula: vectors (records, 3, samples or 1) turned about unit `axis` (records, 3) by `angle`."""
    unit = axis[:, :, None]
    along = (unit * vectors).sum(1, keepdims=True)
    cosine, sine = np.cos(angle)[:, None], np.sin(angle)[:, None]
    x, y, z = vectors[:, 0], vectors[:, 1], vectors[:, 2]
    a, b, c = axis[:, :1], axis[:, 1:2], axis[:, 2:]
    across = np.stack([b * z - c * y, c * x - a * z, a * y - b * x], 1)
    out: Floats = vectors * cosine + across * sine + unit * along * (1 - cosine)
    return out


def _rotations(vectors: Floats) -> Floats:
    """Rotation matrices (..., 3, 3) of rotation vectors (..., 3), in radians."""
    angle = np.linalg.norm(vectors, axis=-1)[..., None, None] + np.float32(1e-12)
    x, y, z = np.moveaxis(vectors, -1, 0)
    zero = np.zeros_like(x)
    cross = np.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).reshape(*x.shape, 3, 3) / angle
    out: Floats = np.eye(3, dtype=np.float32) + np.sin(angle) * cross + (1 - np.cos(angle)) * (cross @ cross)
    return out
