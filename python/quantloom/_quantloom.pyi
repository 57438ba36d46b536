"""
The C++ part of quantloom; use the quantloom package.
"""
from __future__ import annotations
import collections.abc
import numpy
import numpy.typing
import os
import typing
import typing_extensions
__all__: list[str] = ['GGUFFile', 'Model', 'OperationMatrix', 'OperationRunner', 'PackedMatrix', 'Session', 'Tensor', 'arm_fault', 'compute_stream', 'cuda_counters', 'cuda_devices', 'cuda_memory', 'cuda_reset_peak', 'cuda_set_memory_cap', 'cuda_status', 'cuda_synchronize', 'cuda_trim', 'default_device', 'dequantize', 'fault_points_passed', 'instruction_set', 'instruction_sets', 'matmul', 'multiply', 'quantize', 'read_once', 'sample', 'set_instruction_set', 'set_thread_count', 'thread_count', 'type_table', 'with_current']
class GGUFFile:
    """
    A mapped and validated GGUF file; keys and tensors go by position.
    """
    @staticmethod
    def open(path: os.PathLike | str | bytes) -> GGUFFile:
        ...
    def check_finite(self, index: typing.SupportsInt | typing.SupportsIndex) -> None:
        """
        Raises GGUFError naming the block where a scale or value is NaN or Inf.
        """
    def keys(self) -> list:
        ...
    def tensor(self, index: typing.SupportsInt | typing.SupportsIndex) -> tuple:
        """
        (name, shape, format name, bytes, offset in its shard, shard).
        """
    def tensor_bytes(self, index: typing.SupportsInt | typing.SupportsIndex) -> numpy.ndarray:
        """
        A read-only uint8 array over the mapped blocks.
        """
    def tensor_names(self) -> list:
        ...
    def value(self, index: typing.SupportsInt | typing.SupportsIndex) -> typing.Any:
        """
        The value of a key: str (bytes where it is not UTF-8), int, float, bool, a list of strings or an array of numbers. Raises FileError where text or an array is to be read from a file that has changed since it was opened.
        """
    def value_type(self, index: typing.SupportsInt | typing.SupportsIndex) -> tuple:
        """
        (type name, None), or (element type name, number of elements) for an array.
        """
    @property
    def alignment(self) -> int:
        ...
    @property
    def data_offset(self) -> int:
        ...
    @property
    def has_data(self) -> bool:
        ...
    @property
    def shard_count(self) -> int:
        ...
    @property
    def total_bytes(self) -> int:
        ...
    @property
    def version(self) -> int:
        ...
class Tensor:
    @staticmethod
    def blocks_of(bytes: Tensor, format: typing.SupportsInt | typing.SupportsIndex, shape: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex]) -> Tensor:
        ...
    @staticmethod
    def empty(dtype: str, shape: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex], device: str) -> Tensor:
        ...
    @staticmethod
    def from_blocks(source: typing.Any, format: typing.SupportsInt | typing.SupportsIndex, shape: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex]) -> Tensor:
        ...
    @staticmethod
    def from_buffer(source: typing.Any, dtype: str) -> Tensor:
        ...
    @staticmethod
    def from_dlpack(capsule: typing_extensions.CapsuleType) -> Tensor:
        ...
    def as_bytes(self) -> Tensor:
        ...
    def clone(self) -> Tensor:
        ...
    def contiguous(self) -> Tensor:
        ...
    def dequantize(self, dtype: str, out: Tensor) -> Tensor:
        ...
    def mark_shared(self) -> None:
        ...
    def reshape(self, shape: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex]) -> Tensor:
        ...
    def row(self, index: typing.SupportsInt | typing.SupportsIndex) -> Tensor:
        ...
    def slice(self, first: typing.SupportsInt | typing.SupportsIndex, count: typing.SupportsInt | typing.SupportsIndex, step: typing.SupportsInt | typing.SupportsIndex) -> Tensor:
        ...
    def to(self, device: str) -> Tensor:
        ...
    def to_dlpack(self, stream: typing.SupportsInt | typing.SupportsIndex, versioned: bool, copied: bool) -> typing_extensions.CapsuleType:
        ...
    @property
    def data(self) -> int:
        ...
    @property
    def device(self) -> str:
        ...
    @property
    def dtype(self) -> str:
        ...
    @property
    def format(self) -> int:
        ...
    @property
    def is_blocks(self) -> bool:
        ...
    @property
    def is_contiguous(self) -> bool:
        ...
    @property
    def is_read_only(self) -> bool:
        ...
    @property
    def nbytes(self) -> int:
        ...
    @property
    def shape(self) -> tuple:
        ...
    @property
    def size(self) -> int:
        ...
    @property
    def stream(self) -> int:
        ...
    @property
    def strides(self) -> tuple:
        ...
class PackedMatrix:
    """
    A quantized matrix in the planes that a GPU multiplies from.
    """
    def __init__(self, blocks: Tensor) -> None:
        ...
    def unpack(self) -> Tensor:
        ...
    @property
    def device(self) -> str:
        ...
    @property
    def format(self) -> int:
        ...
    @property
    def nbytes(self) -> int:
        ...
    @property
    def shape(self) -> tuple[int, int]:
        ...
class OperationMatrix:
    """
    GGUF blocks of [rows, columns] weights, and a bias.
    """
    def __init__(self, blocks: typing.Annotated[numpy.typing.ArrayLike, numpy.uint8], format: typing.SupportsInt | typing.SupportsIndex, columns: typing.SupportsInt | typing.SupportsIndex, bias: typing.Annotated[numpy.typing.ArrayLike, numpy.float32] | None = None) -> None:
        ...
class OperationRunner:
    """
    One operation at a time on NumPy arrays, for tests.
    """
    def __init__(self, device: str, precision: str) -> None:
        ...
    def attend(self, q: typing.Annotated[numpy.typing.ArrayLike, numpy.float32], k: typing.Annotated[numpy.typing.ArrayLike, numpy.float32], v: typing.Annotated[numpy.typing.ArrayLike, numpy.float32], q_norm: typing.Annotated[numpy.typing.ArrayLike, numpy.float32] | None, k_norm: typing.Annotated[numpy.typing.ArrayLike, numpy.float32] | None, epsilon: typing.SupportsFloat | typing.SupportsIndex, table: typing.Annotated[numpy.typing.ArrayLike, numpy.float32], interleaved: bool, cache_type: str, capacity: typing.SupportsInt | typing.SupportsIndex, chunk: typing.SupportsInt | typing.SupportsIndex, scale: typing.SupportsFloat | typing.SupportsIndex, soft_cap: typing.SupportsFloat | typing.SupportsIndex, window: typing.SupportsInt | typing.SupportsIndex, past_k: typing.Annotated[numpy.typing.ArrayLike, numpy.float32], past_v: typing.Annotated[numpy.typing.ArrayLike, numpy.float32]) -> dict:
        ...
    def elementwise(self, name: str, a: typing.Annotated[numpy.typing.ArrayLike, numpy.float32], b: typing.Annotated[numpy.typing.ArrayLike, numpy.float32]) -> numpy.typing.NDArray[numpy.float32]:
        ...
    def embed(self, table: OperationMatrix, tokens: typing.Annotated[numpy.typing.ArrayLike, numpy.int32], scale: typing.SupportsFloat | typing.SupportsIndex, multiplied: bool) -> numpy.typing.NDArray[numpy.float32]:
        ...
    def feed_forward(self, residual: typing.Annotated[numpy.typing.ArrayLike, numpy.float32], norm_weight: typing.Annotated[numpy.typing.ArrayLike, numpy.float32], epsilon: typing.SupportsFloat | typing.SupportsIndex, gate: OperationMatrix, up: OperationMatrix, down: OperationMatrix, activation: str) -> numpy.typing.NDArray[numpy.float32]:
        ...
    def norm(self, x: typing.Annotated[numpy.typing.ArrayLike, numpy.float32], weight: typing.Annotated[numpy.typing.ArrayLike, numpy.float32], epsilon: typing.SupportsFloat | typing.SupportsIndex) -> numpy.typing.NDArray[numpy.float32]:
        ...
    def norm_gate_up(self, x: typing.Annotated[numpy.typing.ArrayLike, numpy.float32], norm_weight: typing.Annotated[numpy.typing.ArrayLike, numpy.float32], epsilon: typing.SupportsFloat | typing.SupportsIndex, gate: OperationMatrix, up: OperationMatrix, activation: str) -> numpy.typing.NDArray[numpy.float32]:
        ...
    def norm_project(self, x: typing.Annotated[numpy.typing.ArrayLike, numpy.float32], norm_weight: typing.Annotated[numpy.typing.ArrayLike, numpy.float32], epsilon: typing.SupportsFloat | typing.SupportsIndex, matrices: collections.abc.Sequence[OperationMatrix]) -> list[numpy.typing.NDArray[numpy.float32]]:
        ...
    def project(self, x: typing.Annotated[numpy.typing.ArrayLike, numpy.float32], matrix: OperationMatrix) -> numpy.typing.NDArray[numpy.float32]:
        ...
    def project_add(self, x: typing.Annotated[numpy.typing.ArrayLike, numpy.float32], matrix: OperationMatrix, residual: typing.Annotated[numpy.typing.ArrayLike, numpy.float32]) -> numpy.typing.NDArray[numpy.float32]:
        ...
    def reserve(self, tokens: typing.SupportsInt | typing.SupportsIndex, width: typing.SupportsInt | typing.SupportsIndex, context: typing.SupportsInt | typing.SupportsIndex, heads: typing.SupportsInt | typing.SupportsIndex, head_size: typing.SupportsInt | typing.SupportsIndex, vocabulary: typing.SupportsInt | typing.SupportsIndex) -> None:
        ...
    def sample(self, logits: typing.Annotated[numpy.typing.ArrayLike, numpy.float32], history: typing.Annotated[numpy.typing.ArrayLike, numpy.int32], position: typing.SupportsInt | typing.SupportsIndex, steps: typing.SupportsInt | typing.SupportsIndex, seed: typing.SupportsInt | typing.SupportsIndex, temperature: typing.SupportsFloat | typing.SupportsIndex, top_k: typing.SupportsInt | typing.SupportsIndex, top_p: typing.SupportsFloat | typing.SupportsIndex, min_p: typing.SupportsFloat | typing.SupportsIndex, typical_p: typing.SupportsFloat | typing.SupportsIndex, repetition: typing.SupportsFloat | typing.SupportsIndex, frequency: typing.SupportsFloat | typing.SupportsIndex, presence: typing.SupportsFloat | typing.SupportsIndex, window: typing.SupportsInt | typing.SupportsIndex, bias_tokens: typing.Annotated[numpy.typing.ArrayLike, numpy.int32], bias_values: typing.Annotated[numpy.typing.ArrayLike, numpy.float32], top_log_probabilities: typing.SupportsInt | typing.SupportsIndex) -> list:
        ...
    def soft_cap(self, x: typing.Annotated[numpy.typing.ArrayLike, numpy.float32], cap: typing.SupportsFloat | typing.SupportsIndex) -> numpy.typing.NDArray[numpy.float32]:
        ...
class Model:
    """
    Weights on a device.
    """
    @staticmethod
    def load(file: GGUFFile, device: str, precision: str, cache_type: str, context_length: typing.SupportsInt | typing.SupportsIndex | None, gpu_layers: typing.SupportsInt | typing.SupportsIndex | None, as_fit: bool, threads: typing.SupportsInt | typing.SupportsIndex | None, check_weights: bool, batch_invariant: bool, progress: typing.Any) -> Model:
        ...
    def tensors(self) -> list:
        """
        (name, type, device, kernel, bytes) of all that was placed
        """
    @property
    def architecture(self) -> str:
        ...
    @property
    def batch_invariant(self) -> bool:
        ...
    @property
    def block_count(self) -> int:
        ...
    @property
    def cache_bytes(self) -> int:
        """
        Bytes of the KV cache of one session.
        """
    @property
    def cache_type(self) -> str:
        ...
    @property
    def context_length(self) -> int:
        ...
    @property
    def device(self) -> str:
        ...
    @property
    def embedding_length(self) -> int:
        ...
    @property
    def full_step_obstacle(self) -> str:
        ...
    @property
    def gpu_layers(self) -> int:
        ...
    @property
    def gpu_obstacle(self) -> str:
        ...
    @property
    def precision(self) -> str:
        ...
    @property
    def step_obstacle(self) -> str:
        ...
    @property
    def trained_context_length(self) -> int:
        ...
    @property
    def vocabulary_size(self) -> int:
        ...
    @property
    def weight_bytes(self) -> int:
        ...
class Session:
    """
    One sequence on a model.
    """
    def __init__(self, model: Model, prefill_chunk: typing.SupportsInt | typing.SupportsIndex | None) -> None:
        ...
    def begin(self, generation: typing.SupportsInt | typing.SupportsIndex, prompt: typing.Annotated[numpy.typing.ArrayLike, numpy.int64], max_new_tokens: typing.SupportsInt | typing.SupportsIndex, stop_tokens: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex], sampler: dict) -> None:
        ...
    @typing.overload
    def cancel(self) -> None:
        ...
    @typing.overload
    def cancel(self, generation: typing.SupportsInt | typing.SupportsIndex) -> None:
        ...
    def close(self) -> None:
        ...
    def end(self, generation: typing.SupportsInt | typing.SupportsIndex) -> tuple:
        """
        (finish reason, timings), or ("", None) where another generation has begun since.
        """
    def logits(self, tokens: typing.Annotated[numpy.typing.ArrayLike, numpy.int64]) -> numpy.typing.NDArray[numpy.float32]:
        ...
    def next(self, generation: typing.SupportsInt | typing.SupportsIndex, top: typing.SupportsInt | typing.SupportsIndex) -> tuple:
        """
        (token, log-probability, candidates), or at the end (finish reason, timings).
        """
    def reset(self) -> None:
        ...
    def tokens(self) -> list[int]:
        ...
    @property
    def closed(self) -> bool:
        ...
def arm_fault(point: str, n: typing.SupportsInt | typing.SupportsIndex) -> None:
    """
    For tests: the n-th passing of a point fails, once.
    """
def compute_stream(device: str) -> int:
    ...
def cuda_counters() -> dict:
    ...
def cuda_devices() -> list:
    ...
def cuda_memory(device: str) -> dict:
    ...
def cuda_reset_peak(device: str) -> None:
    ...
def cuda_set_memory_cap(device: str, bytes: typing.SupportsInt | typing.SupportsIndex) -> None:
    ...
def cuda_status() -> dict:
    ...
def cuda_synchronize(device: str) -> None:
    ...
def cuda_trim(device: str, keep: typing.SupportsInt | typing.SupportsIndex) -> None:
    ...
def default_device() -> tuple[str, str]:
    """
    (what "auto" stands for, why)
    """
def dequantize(blocks: numpy.typing.NDArray[numpy.uint8], format: typing.SupportsInt | typing.SupportsIndex, threads: typing.SupportsInt | typing.SupportsIndex = 0) -> numpy.typing.NDArray[numpy.float32]:
    """
    float32 values of the blocks in a contiguous uint8 array, as a flat array.
    """
def fault_points_passed(point: str) -> int:
    ...
def instruction_set() -> str:
    """
    The instruction set that models loaded from now on use on the CPU.
    """
def instruction_sets() -> list[str]:
    """
    The CPU instruction sets that this machine has kernels for, in ascending order.
    """
def matmul(x: typing.Annotated[numpy.typing.ArrayLike, numpy.float32], blocks: numpy.typing.NDArray[numpy.uint8], format: typing.SupportsInt | typing.SupportsIndex, precision: str = 'exact') -> numpy.typing.NDArray[numpy.float32]:
    """
    x [tokens, columns] times the transpose of the weights [rows, columns] whose blocks are in a contiguous uint8 array, on the CPU: float32 [tokens, rows].
    """
@typing.overload
def multiply(x: Tensor, w: Tensor, precision: str, dtype: str, out: Tensor) -> Tensor:
    """
    x [..., columns] times the transpose of w [rows, columns], on their device.
    """
@typing.overload
def multiply(x: Tensor, w: PackedMatrix, precision: str, dtype: str, out: Tensor) -> Tensor:
    ...
def quantize(values: numpy.typing.NDArray[numpy.float32], format: typing.SupportsInt | typing.SupportsIndex, threads: typing.SupportsInt | typing.SupportsIndex = 0) -> numpy.typing.NDArray[numpy.uint8]:
    """
    Blocks of the values in a contiguous float32 array, as a flat uint8 array.
    """
def read_once(tensor: Tensor, sum: Tensor) -> None:
    """
    Reads a tensor and adds its words to a checksum by exclusive or, to time reading.
    """
def sample(logits: typing.Annotated[numpy.typing.ArrayLike, numpy.float32], history: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex], sampler: dict) -> tuple:
    """
    One choice of the CPU's sampler from raw logits after the tokens of history: (token, log-probability, [(token, log-probability), ...]), for the tests of its definition.
    """
def set_instruction_set(name: str) -> None:
    """
    Choose one of instruction_sets(), or "auto" for the highest.
    """
def set_thread_count(threads: typing.SupportsInt | typing.SupportsIndex) -> None:
    """
    Set the number of CPU threads; 0: one per core.
    """
def thread_count() -> int:
    """
    Threads that the CPU's operations use.
    """
def type_table() -> list:
    """
    Every GGUF tensor type: (id, name, elements per block, bytes per block, state, encodable).
    """
def with_current(device: str, call: collections.abc.Callable) -> typing.Any:
    """
    The call's result, made while the device is current.
    """
__version__: str
