"""DLPack capsules of another producer, made here by hand: what is taken, and when it is let go."""

from __future__ import annotations

import ctypes
import gc
import math
from typing import Any

import numpy as np
import pytest

from quantloom import Tensor
from quantloom.errors import DeviceError, InvalidArgument


class Device(ctypes.Structure):
    _fields_ = [("type", ctypes.c_int32), ("index", ctypes.c_int32)]


class DataType(ctypes.Structure):
    _fields_ = [("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16)]


class Array(ctypes.Structure):
    _fields_ = [
        ("data", ctypes.c_void_p),
        ("device", Device),
        ("dimensions", ctypes.c_int32),
        ("dtype", DataType),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    ]


Deleter = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


class Managed(ctypes.Structure):
    _fields_ = [("array", Array), ("context", ctypes.c_void_p), ("deleter", Deleter)]


class Versioned(ctypes.Structure):
    _fields_ = [
        ("major", ctypes.c_uint32),
        ("minor", ctypes.c_uint32),
        ("context", ctypes.c_void_p),
        ("deleter", Deleter),
        ("flags", ctypes.c_uint64),
        ("array", Array),
    ]


new_capsule = ctypes.pythonapi.PyCapsule_New
new_capsule.restype = ctypes.py_object
new_capsule.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]


class Producer:
    """Twelve float32 from 0, or what `changes` says of them; counts the calls of its deleter."""

    def __init__(
        self,
        *,
        shape: tuple[int, ...] | None = (12,),
        strides: tuple[int, ...] | None = None,
        version: tuple[int, int] | None = None,
        flags: int = 0,
        name: bytes | None = None,
        place: Any = None,
        capsule: Any = None,
        **changes: Any,
    ) -> None:
        self.base = np.arange(12, dtype=np.float32)
        self.deleted = 0
        self.record = Managed() if version is None else Versioned()
        array = self.record.array
        array.data = self.base.ctypes.data
        array.device = Device(*changes.pop("device", (1, 0)))
        array.dtype = DataType(*changes.pop("dtype", (2, 32, 1)))
        array.dimensions = 1 if shape is None else len(shape)
        if shape is not None:
            array.shape = (ctypes.c_int64 * max(1, len(shape)))(*shape)
        if strides is not None:
            array.strides = (ctypes.c_int64 * max(1, len(strides)))(*strides)
        for field, value in changes.items():
            setattr(array, field, value)
        self.record.deleter = Deleter(self._delete)
        if isinstance(self.record, Versioned):
            (self.record.major, self.record.minor), self.record.flags = version, flags
        usual = b"dltensor" if version is None else b"dltensor_versioned"
        self.name = name or usual  # the capsule keeps a pointer to it
        self.place = (array.device.type, array.device.index) if place is None else place
        self.capsule = capsule or new_capsule(ctypes.addressof(self.record), self.name, None)

    def _delete(self, record: int) -> None:
        assert record == ctypes.addressof(self.record)
        self.deleted += 1

    def __dlpack_device__(self) -> Any:
        return self.place

    def __dlpack__(self, *, stream: Any = None, max_version: Any = None) -> Any:
        return self.capsule


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, np.arange(12)),
        ({"shape": (3, 2), "strides": (4, 2)}, [[0, 2], [4, 6], [8, 10]]),
        ({"shape": (3,), "strides": (-4,), "byte_offset": 44}, [11, 7, 3]),
        ({"shape": (2, 3), "strides": (0, 1)}, [[0, 1, 2], [0, 1, 2]]),
        ({"shape": (2,), "byte_offset": 8}, [2, 3]),
        ({"shape": ()}, 0),
        ({"shape": (), "dimensions": 0, "strides": ()}, 0),
        ({"shape": (0, 5)}, np.zeros((0, 5))),
        ({"shape": (0, 5), "data": None}, np.zeros((0, 5))),
        ({"shape": (4, 1), "strides": (3, 2**40)}, [[0], [3], [6], [9]]),
        ({"device": (3, 0)}, np.arange(12)),
        ({"version": (1, 0)}, np.arange(12)),
        ({"version": (1, 9), "flags": 1}, np.arange(12)),
    ],
)
def test_what_is_taken(changes: dict[str, Any], expected: object) -> None:
    producer = Producer(**changes)
    tensor = Tensor.from_dlpack(producer)
    found = tensor.numpy()
    np.testing.assert_array_equal(found, expected)
    assert tensor.is_read_only == (changes.get("flags") == 1)
    assert found.size == 0 or np.shares_memory(found, producer.base)
    rows = tensor[1:] if tensor.ndim > 0 else tensor
    del tensor, found
    gc.collect()
    assert producer.deleted == 0
    del rows
    gc.collect()
    assert producer.deleted == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"byte_offset": 2, "shape": (10,)}, "not aligned to its elements"),
        ({"dtype": (2, 32, 2)}, "2 lanes has no quantloom type"),
        ({"dtype": (1, 4, 1)}, "type code 1 with 4 bits"),
        ({"dtype": (5, 64, 1)}, "type code 5 with 64 bits"),
        ({"dimensions": -1}, "negative dimensions"),
        ({"shape": (-1,)}, "negative dimension"),
        ({"shape": None}, "dimensions without a shape"),
        ({"shape": (2**62,)}, "larger than any memory"),
        ({"shape": (2**40, 2**40)}, "larger than any memory"),
        ({"shape": (2, 2), "strides": (2**62, 1)}, "larger than any memory"),
        ({"shape": (2, 2), "strides": (-(2**62), 1)}, "larger than any memory"),
        ({"data": None}, "a DLPack array of no memory"),
        ({"data": None, "shape": ()}, "a DLPack array of no memory"),
        ({"version": (2, 0)}, "DLPack 2.0 is not a version"),
        ({"device": (10, 0), "place": (1, 0)}, "device type 10 is neither"),
    ],
)
def test_what_is_refused_is_let_go_at_once(changes: dict[str, Any], message: str) -> None:
    producer = Producer(**changes)
    with pytest.raises(InvalidArgument, match=message):
        Tensor.from_dlpack(producer)
    gc.collect()
    assert producer.deleted == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": b"used_dltensor"}, "used before"),
        ({"name": b"tensor"}, "named 'tensor' is not a DLPack capsule"),
        ({"capsule": 3}, "gave a int, no capsule"),
        ({"capsule": "dltensor"}, "gave a str, no capsule"),
        ({"place": (10, 0)}, "device type 10 is neither on the CPU nor on a CUDA GPU"),
        ({"place": 1}, "1 is no DLPack device"),
        ({"place": (1,)}, "is no DLPack device"),
        ({"place": ("cpu", 0)}, "is no DLPack device"),
        ({"place": (2, -1)}, "cuda:-1"),
        ({"place": (2, 2**40)}, "cuda:1099511627776"),
    ],
)
def test_what_is_refused_stays_the_producers(changes: dict[str, Any], message: str) -> None:
    producer = Producer(**changes)
    with pytest.raises(InvalidArgument, match=message):
        Tensor.from_dlpack(producer)
    gc.collect()
    assert producer.deleted == 0


def test_a_gpu_that_is_not_there() -> None:
    producer = Producer(device=(2, 1023))
    with pytest.raises(DeviceError):
        Tensor.from_dlpack(producer)
    gc.collect()
    assert producer.deleted == 0


@pytest.mark.parametrize("dtype", ["bool", "int8", "uint16", "uint64", "float16", "float64"])
def test_numpy_takes_every_layout(dtype: str) -> None:
    base = np.arange(24).reshape(2, 3, 4).astype(dtype)
    for view in (base, base.T, base[::-1, ::2, ::-3], base[:, :0], base[0, 0, 0, ...]):
        again = np.from_dlpack(Tensor(view))
        np.testing.assert_array_equal(again, view)
        assert again.dtype == view.dtype
        assert view.size == 0 or (again.strides == view.strides and np.shares_memory(again, base))


def test_a_view_outlives_its_tensor_and_its_array() -> None:
    array = np.arange(1000.0)
    view = np.from_dlpack(Tensor(array)[::3])
    del array
    gc.collect()
    assert view.sum() == math.fsum(range(0, 1000, 3))
