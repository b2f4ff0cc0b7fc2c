"""Packets on the wire: what goes in comes out, and whatever else arrives is refused and nothing worse."""

import io
import pickle
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from statfed.core.errors import Refused, StatfedError, UsageError
from statfed.core.protection import Packet
from statfed.core.wire import LONGEST_NAME, MOST_AXES, TYPES, Encoded, decode, encode, join, split

NAMES = st.text(st.characters(exclude_categories=("C", "Z")), min_size=1, max_size=LONGEST_NAME)
ARRAYS = hnp.arrays(st.sampled_from(TYPES), hnp.array_shapes(min_dims=0, max_dims=5, min_side=0, max_side=4))
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.tuples(inner, inner),
    max_leaves=4,
)


def npy(descr: object = "<f8", shape: object = (2,), data: bytes = bytes(16), order: bool = False) -> bytes:
    """An .npy file whose header says whatever it is told to."""
    head = f"{{'descr': {descr!r}, 'fortran_order': {order!r}, 'shape': {shape!r}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + (len(head) % 2**16).to_bytes(2, "little") + head + data


@given(st.dictionaries(NAMES, st.binary(max_size=50) | ARRAYS, max_size=5))
def test_a_packet_arrives_as_it_left(packet: dict[str, bytes | NDArray[Any]]) -> None:
    arrived = join(*split(packet))
    assert set(arrived) == set(packet)
    for name, item in packet.items():
        got = arrived[name]
        if isinstance(item, bytes):
            assert got == item
        else:
            assert isinstance(got, np.ndarray)
            assert (got.dtype, got.shape) == (item.dtype, item.shape)
            assert got.tobytes() == item.tobytes()
            assert got.flags.writeable
            assert not np.shares_memory(got, item)


@given(ARRAYS)
def test_what_travels_is_what_numpy_itself_saves_and_loads(array: NDArray[Any]) -> None:
    for laid in (array, np.asfortranarray(array)):
        buffer = io.BytesIO()
        np.save(buffer, laid, allow_pickle=False)
        item = encode(laid, "a")
        assert item.data == buffer.getvalue()
        assert decode(item, "a").tobytes() == np.load(io.BytesIO(item.data), allow_pickle=False).tobytes()


def test_big_endian_numbers_and_plain_scalars_are_made_to_travel() -> None:
    sent: dict[str, Any] = {"big": np.arange(3, dtype=">i8"), "scalar": np.float32(1.5)}
    arrived = join(*split(sent))
    assert np.array_equal(arrived["big"], [0, 1, 2])
    assert np.asarray(arrived["scalar"]).dtype == np.float32


@pytest.mark.parametrize(
    "item",
    [
        np.array([object()]),
        np.array(["a"]),
        np.array([1j]),
        np.zeros(2, "f8,i4"),
        np.zeros(1, "M8[s]"),
        np.zeros((1,) * (MOST_AXES + 1)),
        "text",
        None,
    ],
)
def test_other_types_and_too_many_axes_do_not_leave(item: Any) -> None:
    with pytest.raises(UsageError, match="message: a: got"):
        split({"a": item})


@pytest.mark.parametrize("name", ["", "a\nb", "\ud800", "x" * (LONGEST_NAME + 1), 3, None])
def test_names_that_are_none_neither_leave_nor_arrive(name: Any) -> None:
    with pytest.raises(UsageError, match="message: got the name"):
        split({name: b""})
    with pytest.raises(Refused, match="message: got a name that is none"):
        join({name: b""}, {})
    with pytest.raises(Refused, match="message: got a name that is none"):
        join({}, {name: encode(np.zeros(1), "a")})


def test_one_name_for_bytes_and_an_array_is_refused() -> None:
    with pytest.raises(Refused, match="message: a: got bytes and an array of one name"):
        join({"a": b""}, {"a": encode(np.zeros(1), "a")})
    with pytest.raises(Refused, match="message: a: got str; want bytes"):
        join({"a": "text"}, {})


GOOD = Encoded("float64", (2,), npy())
HOSTILE = {
    "a pickle": Encoded("object", (1,), pickle.dumps([1])),
    "a pickle in an .npy file": Encoded("object", (1,), npy("|O", (1,), pickle.dumps([1]))),
    "a header to evaluate": Encoded("float64", (2,), npy("<f8", ("__import__('os')",))),
    "a structured type": Encoded("void", (1,), npy([("a", "<f8")], (1,), bytes(8))),
    "a length of text": Encoded("str", (1,), npy("<U999999", (1,))),
    "more than the memory": Encoded("float64", (10**17,), npy("<f8", (10**17,))),
    "more than can be counted": Encoded("float64", (0, 10**18, 10**18), npy("<f8", (0, 10**18, 10**18), b"")),
    "more digits than a number has": Encoded("float64", (2,), npy("<f8", (10**400,))),
    "a negative axis": Encoded("float64", (-2,), npy("<f8", (-2,))),
    "too many axes": Encoded("float64", (1,) * 999, npy("<f8", (1,) * 999, bytes(8))),
    "nesting": Encoded("float64", (2,), npy("<f8", ((((((2,),),),),),))),
    "too few bytes": Encoded("float64", (2,), npy(data=bytes(15))),
    "too many bytes": Encoded("float64", (2,), npy(data=bytes(17))),
    "another shape told": Encoded("float64", (2, 1), npy()),
    "another type told": Encoded("int64", (2,), npy()),
    "format 2": Encoded("float64", (2,), npy().replace(b"\x01\x00", b"\x02\x00", 1)),
    "a header beyond the end": Encoded("float64", (2,), npy()[:20]),
    "nothing": Encoded("float64", (2,), b""),
    "no bytes": Encoded("float64", (2,), cast(bytes, "text")),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_arrays_are_refused(what: str) -> None:
    assert decode(GOOD, "a").shape == (2,)
    with pytest.raises(Refused, match="message: a: got"):
        join({}, {"a": HOSTILE[what]})


@settings(max_examples=500)
@given(
    st.dictionaries(st.text(max_size=5) | st.integers(), ANYTHING, max_size=2),
    st.builds(
        Encoded,
        dtype=st.sampled_from(["float64", "object", "O", ""]) | ANYTHING,
        shape=st.lists(st.integers(-1, 2**70), max_size=70).map(tuple) | ANYTHING,
        data=st.binary(max_size=90)
        | st.builds(
            npy,
            st.sampled_from([*TYPES, "|O", "<U4", ">f8", "<c16", "|V8"]) | ANYTHING,
            st.lists(st.integers(-1, 2**70), max_size=70).map(tuple) | ANYTHING,
            st.binary(max_size=20),
            st.booleans(),
        )
        | ANYTHING,
    ),
)
def test_whatever_arrives_only_our_own_errors_come_out(texts: Any, item: Encoded) -> None:
    try:
        arrived: Packet = join(texts, {"a": item})
    except StatfedError:
        return
    assert all(isinstance(name, str) for name in arrived)


@settings(max_examples=300)
@given(ARRAYS, st.data())
def test_a_changed_file_is_refused_or_still_an_array_of_numbers(array: NDArray[Any], data: st.DataObject) -> None:
    item = encode(array, "a")
    place = data.draw(st.integers(0, len(item.data) - 1))
    changed = item.data[:place] + bytes([data.draw(st.integers(0, 255))]) + item.data[place + 1 :]
    try:
        got = decode(Encoded(item.dtype, item.shape, changed), "a")
    except Refused:
        return
    assert (got.dtype, got.shape) == (array.dtype, array.shape)
