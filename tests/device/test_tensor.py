"""Tensors on the CPU: memory that is shared, views, DLPack, blocks."""

from __future__ import annotations

import copy
import gc
import pickle
import subprocess
import sys
import weakref
from collections.abc import Callable

import numpy as np
import pytest

from quantloom import Tensor, cuda, reference
from quantloom.errors import DeviceError, InvalidArgument, QuantloomError, Unsupported
from quantloom.formats import FORMATS

TYPES = [
    "bool",
    "int8",
    "int16",
    "int32",
    "int64",
    "uint8",
    "uint16",
    "uint32",
    "uint64",
    "float16",
    "float32",
    "float64",
]
QUANTIZED = sorted(name for name, kind in FORMATS.items() if kind.elements > 1)


def random_blocks(name: str, count: int) -> bytes:
    return np.random.default_rng(FORMATS[name].id).bytes(count * FORMATS[name].bytes)


def same_values(found: np.ndarray, expected: np.ndarray) -> bool:
    both_nan = np.isnan(found) & np.isnan(expected)
    return bool(np.all((found == expected) | both_nan))


@pytest.mark.parametrize("dtype", TYPES)
def test_numpy_round_trip_shares_memory(dtype: str) -> None:
    array = np.arange(24).reshape(2, 3, 4).astype(dtype)
    tensor = Tensor(array)
    assert (tensor.shape, tensor.dtype, tensor.device) == ((2, 3, 4), dtype, "cpu")
    assert tensor.strides == array.strides
    back = tensor.numpy()
    assert back.dtype == array.dtype
    assert np.shares_memory(back, array)
    np.testing.assert_array_equal(back, array)


def test_strided_and_reversed_views() -> None:
    array = np.arange(24.0).reshape(4, 6)
    for view in (array.T, array[::-1], array[::2, 1::2], array[:, ::-3], array[0:0]):
        tensor = Tensor(view)
        np.testing.assert_array_equal(tensor.numpy(), view)
        np.testing.assert_array_equal(tensor.contiguous().numpy(), view)
        assert tensor.contiguous().is_contiguous
        np.testing.assert_array_equal(np.from_dlpack(tensor), view)


def test_a_tensor_that_is_there_and_in_order_is_itself() -> None:
    tensor = Tensor(np.arange(24.0).reshape(4, 6))
    assert tensor.to("cpu") is tensor and tensor.cpu() is tensor and tensor.contiguous() is tensor
    rows = tensor[::2]
    assert rows.cpu() is rows and rows.contiguous() is not rows
    with pytest.raises(InvalidArgument, match="is not one of"):
        tensor.to("cpu:0")


def test_a_tensor_keeps_its_source_alive() -> None:
    class Array(np.ndarray):
        pass

    array = np.arange(5.0).view(Array)
    gone = weakref.ref(array)
    tensor = Tensor(array)
    row = tensor[1:]
    del array, tensor
    gc.collect()
    assert gone() is not None
    np.testing.assert_array_equal(row.numpy(), [1, 2, 3, 4])
    del row
    gc.collect()
    assert gone() is None


def test_rows_slices_and_reshape() -> None:
    array = np.arange(60, dtype=np.int32).reshape(5, 4, 3)
    tensor = Tensor(array)
    np.testing.assert_array_equal(tensor[2].numpy(), array[2])
    np.testing.assert_array_equal(tensor[-1][1:].numpy(), array[-1][1:])
    np.testing.assert_array_equal(tensor[1:4].numpy(), array[1:4])
    np.testing.assert_array_equal(tensor[::-2].numpy(), array[::-2])
    np.testing.assert_array_equal(tensor[3:1].numpy(), array[3:1])
    np.testing.assert_array_equal(tensor[1:3].reshape(-1, 6).numpy(), array[1:3].reshape(-1, 6))
    np.testing.assert_array_equal(tensor[0][0][1].numpy(), array[0, 0, 1])
    assert np.shares_memory(tensor[1:3].reshape(24).numpy(), array)
    assert len(tensor) == 5


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (lambda t: t[7], "index 7 is outside the 5 there are"),
        (lambda t: t[-6], "index -6 is outside the 5 there are"),
        (lambda t: t[2**70], "outside the 5 there are"),
        (lambda t: t[True], "indexed by an integer"),
        (lambda t: t[np.array([0, 1])], "indexed by an integer"),
        (lambda t: t[np.ones(5, bool)], "indexed by an integer"),
        (lambda t: t[np.array(1.5)], "indexed by an integer"),
        (lambda t: t[::0], "step cannot be zero"),
        (lambda t: t["a":], "slice indices must be integers"),
        (lambda t: t[1, 2], "indexed by an integer or a slice"),
        (lambda t: t.reshape(7, -1), "cannot reshape"),
        (lambda t: t.reshape(-1, -1), "only one dimension"),
        (lambda t: t.reshape(2**40, 2**40), "cannot reshape"),
        (lambda t: t[::2].reshape(-1), "without a copy"),
        (lambda t: t.reshape(2.5), "shape must be an integer, not float"),
        (lambda t: t.reshape(2**70), "shape is 1180591620717411303424, outside"),
        (lambda t: t.to(None), "device must be a string, not NoneType"),
        (lambda t: t.to(0), "device must be a string, not int"),
        (lambda t: t.to("\ud800"), "device .* unpaired surrogate"),
        (lambda t: t.dequantize(out=np.zeros((5, 4))), "out must be a quantloom.Tensor"),
        (lambda t: t.dequantize("int8"), "not int8"),
        (lambda t: t.to("tpu"), "is not one of"),
        (lambda t: t.to("cuda:00"), "is not one of"),
        (lambda t: Tensor.empty((2, -1)), "negative dimension"),
        (lambda t: Tensor.empty((2**40, 2**40)), "larger than any memory"),
        (lambda t: Tensor.empty((2**70,)), "shape is 1180591620717411303424, outside"),
        (lambda t: Tensor.empty(2, device=None), "device must be a string"),
        (lambda t: Tensor.from_blocks(None, "Q4_0", 32), "blocks must be bytes"),
        (lambda t: Tensor.from_blocks([1, 2], "Q4_0", 32), "blocks must be bytes"),
        (lambda t: Tensor.from_blocks(bytes(18), "Q4_0", 32, 0), "device must be a string"),
        (lambda t: Tensor.from_blocks(bytes(292), "Q8_K", 256), "there is no decoder for Q8_K"),
        (
            lambda t: Tensor.from_blocks(bytes(144), "Q4_K", (2**40, 2**40)),
            r"shape \(1099511627776, 1099511627776\) is larger than any memory",
        ),
        (lambda t: Tensor.from_numpy([1, 2]), "array must be a numpy.ndarray, not list"),
        (lambda t: Tensor.from_dlpack(3), "source must have __dlpack__"),
        (lambda t: Tensor.from_dlpack(np.zeros(3, ">f4")), "ndarray has no DLPack form: "),
        (lambda t: Tensor.from_dlpack(np.array(["a"])), "ndarray has no DLPack form: "),
        (lambda t: Tensor([[1], [2, 3]]), "data is no array"),
        (lambda t: Tensor(np.ma.masked_array([1.0, 2.0], [0, 1])), "hides values"),
        (lambda t: Tensor.empty(3, "complex64"), "is not one of float32"),
        (lambda t: Tensor.empty(3, None), "None is not a dtype"),
        (lambda t: Tensor.empty(3, np.dtype(">f4")), "not a dtype in the machine's byte order"),
        (lambda t: Tensor(np.zeros(3, "M8[s]")), r"no tensor has the type datetime64\[s\]"),
        (lambda t: Tensor(np.zeros(3, "m8[s]")), r"no tensor has the type timedelta64\[s\]"),
        (lambda t: Tensor(np.zeros(3, np.longdouble)), "is not one of float32"),
        (lambda t: Tensor(np.zeros(9, np.uint8)[1:].view(np.float32)), "not aligned"),
        (lambda t: Tensor.from_blocks(bytes(19)[1:], "Q4_0", 32, "cpu").reshape(-1, 16), "cut"),
        (lambda t: Tensor.from_blocks(memoryview(bytes(19))[1:], "Q4_0", 32), "even address"),
        (lambda t: Tensor.from_blocks(memoryview(bytes(36))[::2], "Q4_0", 32), "contiguous"),
        (lambda t: Tensor.from_numpy(np.zeros(3, ">f4")), "cannot be viewed"),
        (lambda t: t.dequantize(out=Tensor.empty((5, 4), "float16")), "out is float16"),
        (lambda t: t.dequantize(out=t), "shares memory"),
    ],
)
def test_what_cannot_be_is_refused(action: object, message: str) -> None:
    tensor = Tensor(np.zeros((5, 4), np.float32))
    with pytest.raises(InvalidArgument, match=message):
        action(tensor)  # type: ignore[operator]


@pytest.mark.parametrize(("shape", "strides"), [((3,), (2**62,)), ((5, 2), (2**62, 4))])
def test_strides_past_any_memory(shape: tuple[int, ...], strides: tuple[int, ...]) -> None:
    """Their sum wraps: the message told of 9,223,372,036,854,775,812 bytes, or of 8."""
    array = np.lib.stride_tricks.as_strided(np.zeros(64, np.float32), shape, strides)
    with pytest.raises(InvalidArgument, match="an array that is larger than any memory"):
        Tensor(array)


def test_rows_one_after_another() -> None:
    array = np.arange(6.0).reshape(3, 2)
    tensor = Tensor(array)
    rows = list(tensor)
    assert [row.shape for row in rows] == [(2,)] * 3
    assert all(np.shares_memory(row.numpy(), array) for row in rows)
    np.testing.assert_array_equal([row.numpy() for row in rows], array)
    _, second, third = tensor
    np.testing.assert_array_equal(third.numpy(), array[2])
    assert [float(row.numpy()) for row in second] == [2.0, 3.0]
    assert list(Tensor(np.zeros((0, 2)))) == []
    assert tensor[:: 2**70].shape == tensor[:: -(2**70)].shape == (1, 2)
    blocks = Tensor.from_blocks(random_blocks("Q4_0", 2), "Q4_0", (2, 32))
    assert [row.numpy().tobytes() for row in blocks] == [bytes(row) for row in blocks.numpy()]
    with pytest.raises(Unsupported, match="no address"):
        iter(blocks[0])


def test_an_index_outside_is_an_index_error() -> None:
    tensor = Tensor(np.arange(6.0).reshape(3, 2))
    for index in (3, -4, -9, 2**70):
        with pytest.raises(IndexError, match=f"index {index} is outside the 3") as caught:
            tensor[index]
        assert isinstance(caught.value, InvalidArgument)
        assert (caught.value.subject, caught.value.limit) == ("index", 3)


def test_a_number_without_dimensions() -> None:
    tensor = Tensor(np.array(1.0))
    for call in (list, len, lambda t: t[0], lambda t: t[:]):
        with pytest.raises((Unsupported, InvalidArgument), match="0-dimensional"):
            call(tensor)
    with pytest.raises(TypeError):
        iter(tensor)
    with pytest.raises(IndexError):
        tensor[0]


def test_truth_and_membership() -> None:
    assert Tensor(np.array(2.0)) and not Tensor(np.array(0))
    for shape in ((2,), (1,), (0,), (2, 2)):
        with pytest.raises(InvalidArgument, match="ambiguous"):
            bool(Tensor(np.zeros(shape)))
    tensor = Tensor(np.arange(6.0).reshape(3, 2))
    assert 5 in tensor
    assert 7 not in tensor
    blocks = Tensor.from_blocks(random_blocks("Q4_0", 1), "Q4_0", 32)
    with pytest.raises(Unsupported, match="dequantize"):
        assert 5 in blocks


def test_copies_are_asked_for_by_name() -> None:
    array = np.arange(3.0)
    tensor = Tensor(array)
    deep = copy.deepcopy({"t": tensor})["t"]
    np.testing.assert_array_equal(deep.numpy(), array)
    assert not np.shares_memory(deep.numpy(), array)
    for call in (copy.copy, pickle.dumps):
        with pytest.raises(Unsupported, match=r"a Tensor is not copied or pickled; clone\(\)"):
            call(tensor)


def test_a_mask_that_hides_nothing() -> None:
    tensor = Tensor(np.ma.masked_array([1.0, 2.0], [False, False]))
    np.testing.assert_array_equal(tensor.numpy(), [1, 2])


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: cuda.set_memory_cap(-1), "limit"),
        (lambda: cuda.set_memory_cap(0), "limit"),
        (lambda: cuda.set_memory_cap(2**70), "limit"),
        (lambda: cuda.trim(keep=-1), "keep"),
        (lambda: cuda.memory(None), "device"),  # type: ignore[arg-type]
        (lambda: cuda.memory(-1), "device"),
        (lambda: cuda.synchronize(1.5), "device"),  # type: ignore[arg-type]
    ],
)
def test_arguments_of_cuda(call: Callable[[], object], name: str) -> None:
    with pytest.raises(InvalidArgument, match=name) as caught:
        call()
    assert caught.value.subject == name
    assert isinstance(caught.value, QuantloomError)


def test_dlpack_keywords() -> None:
    tensor = Tensor(np.arange(6.0))
    assert tensor.__dlpack_device__() == (1, 0)
    assert "dltensor_versioned" in repr(tensor.__dlpack__(max_version=(1, 0)))
    assert '"dltensor"' in repr(tensor.__dlpack__())
    copied = Tensor.from_dlpack(_Capsule(tensor.__dlpack__(max_version=(1, 3), copy=True)))
    assert not np.shares_memory(copied.numpy(), tensor.numpy())
    with pytest.raises(BufferError, match="no streams"):
        tensor.__dlpack__(stream=1)
    with pytest.raises(BufferError, match="not handed out"):
        tensor.__dlpack__(dl_device=(2, 0))
    for wrong in (
        {"dl_device": (1,)}, {"dl_device": "x"}, {"stream": "a"}, {"stream": 1.0j},
        {"max_version": ()}, {"max_version": "x"},
    ):  # fmt: skip
        with pytest.raises(BufferError, match="no pair of integers"):
            tensor.__dlpack__(**wrong)


class _Capsule:
    """A producer of one capsule that was made before."""

    def __init__(self, capsule: object) -> None:
        self.capsule = capsule

    def __dlpack_device__(self) -> tuple[int, int]:
        return (1, 0)

    def __dlpack__(self, *, stream: object = None) -> object:
        return self.capsule


def test_a_capsule_is_taken_once() -> None:
    source = _Capsule(Tensor(np.arange(6.0)).__dlpack__())
    first = Tensor.from_dlpack(source)
    with pytest.raises(InvalidArgument, match="used before"):
        Tensor.from_dlpack(source)
    np.testing.assert_array_equal(first.numpy(), np.arange(6.0))


def test_read_only_memory_stays_read_only() -> None:
    array = np.arange(4, dtype=np.float32)
    array.flags.writeable = False
    tensor = Tensor(array)
    assert tensor.is_read_only
    assert not tensor.numpy().flags.writeable
    with pytest.raises(BufferError, match="read-only"):
        tensor.__dlpack__()
    again = Tensor.from_dlpack(tensor)
    assert again.is_read_only
    with pytest.raises(InvalidArgument, match="out is read-only"):
        Tensor(np.zeros(4, np.float32)).dequantize(out=tensor)


def test_bfloat16() -> None:
    bits = np.array([0x3F80, 0xC000, 0x7F80, 0x0001], np.uint16)
    tensor = Tensor.from_numpy(bits, dtype="bfloat16")
    assert (tensor.dtype, tensor.format) == ("bfloat16", "BF16")
    expected = (bits.astype(np.uint32) << 16).view(np.float32)
    np.testing.assert_array_equal(tensor.numpy(), expected)
    np.testing.assert_array_equal(tensor.dequantize("float32").numpy(), expected)


@pytest.mark.parametrize("name", QUANTIZED)
def test_blocks_dequantize_as_the_reference(name: str) -> None:
    kind = FORMATS[name]
    data = random_blocks(name, 12)
    tensor = Tensor.from_blocks(data, name, (4, 3 * kind.elements))
    assert (tensor.dtype, tensor.format, tensor.nbytes) == (name, name, 12 * kind.bytes)
    raw = np.frombuffer(data, np.uint8).reshape(4, -1)
    np.testing.assert_array_equal(tensor.numpy(), raw)
    assert np.shares_memory(tensor.numpy(), np.frombuffer(data, np.uint8))
    expected = reference.dequantize(raw, name).reshape(4, -1)
    assert same_values(tensor.dequantize().numpy(), expected)
    assert same_values(tensor[1:3].dequantize().numpy(), expected[1:3])
    assert same_values(tensor[::2].dequantize().numpy(), expected[::2])
    assert same_values(tensor.reshape(-1).dequantize().numpy(), expected.reshape(-1))
    with np.errstate(all="ignore"):
        half = expected.astype(np.float16)
    out = Tensor.empty((4, 3 * kind.elements), "float16")
    assert tensor.dequantize("float16", out=out) is out
    assert same_values(out.numpy().astype(np.float32), half.astype(np.float32))


@pytest.mark.parametrize("name", ["Q4_0", "Q6_K", "MXFP4"])
def test_parts_of_blocks_are_refused(name: str) -> None:
    kind = FORMATS[name]
    data = random_blocks(name, 4)
    with pytest.raises(InvalidArgument, match="not a multiple of the"):
        Tensor.from_blocks(data, name, (4, kind.elements - 1))
    with pytest.raises(InvalidArgument, match="bytes and"):
        Tensor.from_blocks(data[:-1], name, (4, kind.elements))
    tensor = Tensor.from_blocks(data, name, 4 * kind.elements)
    with pytest.raises(InvalidArgument, match="whole blocks"):
        tensor[0 : kind.elements + 1]
    with pytest.raises(InvalidArgument, match="no address"):
        tensor[0]
    with pytest.raises(InvalidArgument, match="would cut"):
        tensor.reshape(-1, kind.elements // 2)
    with pytest.raises(BufferError, match="no type for blocks"):
        tensor.__dlpack__()


@pytest.mark.parametrize(
    "array",
    [
        np.array([None] * 9),
        np.zeros(9, "M8[s]"),
        np.zeros(18, bool),
        np.zeros(9, np.uint16),
        np.zeros(9, np.float16),
        np.zeros(1, [("d", "f2"), ("qs", "u1", 16)]),
    ],
)
def test_blocks_are_bytes(array: np.ndarray) -> None:
    with pytest.raises(InvalidArgument, match="blocks must be bytes") as caught:
        Tensor.from_blocks(array, "Q4_0", 32)
    assert caught.value.subject == "blocks"


def test_blocks_of_the_formats_that_are_numbers() -> None:
    values = np.arange(8.0)
    for name, array in (
        ("F32", values.astype(np.float32)),
        ("F16", values.astype(np.float16)),
        ("BF16", (values.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)),
    ):
        for given in (array, array.view(np.uint8), array.view(np.int8), array.tobytes()):
            tensor = Tensor.from_blocks(given, name, (2, 4))
            np.testing.assert_array_equal(tensor.dequantize().numpy().ravel(), values)
        with pytest.raises(InvalidArgument, match="blocks must be bytes, not a buffer of '>"):
            swapped = array.astype(array.dtype.newbyteorder(">"))
            Tensor.from_blocks(swapped, name, (2, 4))


def test_numpy_is_told_where_there_is_no_view() -> None:
    halves = Tensor.from_numpy(np.array([0x3F80], np.uint16), dtype="bfloat16")
    for tensor, dtype in ((halves, None), (halves, np.float32), (Tensor(np.ones(1)), np.float32)):
        with pytest.raises(ValueError, match="a copy is needed"):
            tensor.__array__(dtype, copy=False)
    array = np.ones(1, np.float32)
    assert np.shares_memory(Tensor(array).__array__(copy=False), array)
    assert not np.shares_memory(Tensor(array).__array__(copy=True), array)
    np.testing.assert_array_equal(np.asarray(halves), [1])


def test_more_dimensions_than_numpy_has() -> None:
    assert Tensor.empty((1,) * 64).numpy().shape == (1,) * 64
    for call in (Tensor.numpy, np.asarray):
        with pytest.raises(Unsupported, match="NumPy has no array of 65 dimensions"):
            call(Tensor.empty((1,) * 65))


def test_numpy_functions_take_cpu_tensors_only() -> None:
    np.testing.assert_array_equal(np.add(Tensor(np.ones(3)), 1), [2, 2, 2])
    blocks = Tensor.from_blocks(random_blocks("Q4_0", 1), "Q4_0", 32)
    with pytest.raises(TypeError, match="dequantize"):
        np.asarray(blocks)


def test_no_gpu_is_an_error_that_says_why() -> None:
    status = cuda.status()
    if status.available:
        pytest.skip("this machine has a GPU")
    assert status.reason
    with pytest.raises(DeviceError) as caught:
        Tensor(np.zeros(3)).to("cuda")
    assert status.reason in str(caught.value)
    with pytest.raises(DeviceError):
        cuda.memory()
    assert cuda.devices() == []


def test_importing_does_not_start_cuda() -> None:
    code = "import sys, quantloom; assert 'quantloom.cuda' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
