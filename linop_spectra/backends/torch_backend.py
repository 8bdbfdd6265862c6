"""Vectors as torch tensors, on the CPU or a CUDA device.

On a CUDA device scalars stay there (`eager_scalars` is False), and nothing but `fetch`, `to_numpy` and `any` waits for it.
torch is imported with this module and nowhere else in the core.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

from .._memory import total_memory
from .probes import ProbeKind, random_vector

BLAS_LIMIT = 2**31 - 1
"""Longest vector that BLAS and cuBLAS count in 32 bits; longer ones go row by row and piece by piece."""
_PIECE = 1 << 22  # numbers that are widened to double precision at a time
_TORCH_TYPES = {
    np.dtype(name): getattr(torch, name)
    for name in ("float16", "float32", "float64", "complex64", "complex128", "int8", "int16", "int32", "int64", "uint8", "bool")
}
_NUMPY_TYPES = {ours: theirs for theirs, ours in _TORCH_TYPES.items()}


class TorchBackend:
    """Torch tensors on one device.

    Parameters
    ----------
    device : str, torch.device or None
        ``"cpu"``, ``"cuda"`` or ``"cuda:1"``; by default the current CUDA device where there is one, else the CPU.
    eager_scalars : bool, optional
        Whether inner products are numbers on the host at once; by default they are on the CPU. False on the CPU runs the
        very lines that a CUDA device runs.

    Raises
    ------
    RuntimeError
        When the device is not there.
    ValueError
        When it is neither a CPU nor a CUDA device.

    Examples
    --------
    >>> import linop_spectra as ls
    >>> A = ls.diagonal_operator([1.0, 10.0], backend="torch:cpu")
    >>> A @ [2.0, 3.0]
    tensor([ 2., 30.], dtype=torch.float64)
    """

    def __init__(self, device: Any = None, *, eager_scalars: bool | None = None) -> None:
        if device is None:
            device = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            resolved = torch.device(device)
        except RuntimeError as error:
            raise ValueError(f"The argument device is {device!r}, which torch does not know; pass 'cpu', 'cuda' or 'cuda:0'.") from error
        if resolved.type not in ("cpu", "cuda"):
            raise ValueError(
                f"The argument device is {str(resolved)!r}, but vectors need double precision, which the backend 'torch' has on "
                "'cpu' and 'cuda' devices."
            )
        if resolved.type == "cuda":
            if not torch.cuda.is_available() or (resolved.index or 0) >= torch.cuda.device_count():
                raise RuntimeError(
                    f"The backend 'torch' was asked for the device {str(resolved)!r}, but torch sees {torch.cuda.device_count()} CUDA "
                    "devices; pass a device that is there, or 'cpu'."
                )
            resolved = torch.device("cuda", torch.cuda.current_device() if resolved.index is None else resolved.index)
        self.device = torch.device(resolved.type) if resolved.type == "cpu" else resolved
        self.eager_scalars = self.device.type == "cpu" if eager_scalars is None else bool(eager_scalars)
        self.name = f"torch:{self.device}"

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (str(self.device), self.eager_scalars)

    # -- arrays --------------------------------------------------------------------------------------------------------

    def asarray(self, x: Any, dtype: Any = None) -> torch.Tensor:
        """`x` as a tensor on the device; CuPy and JAX arrays that are there already are not copied. bfloat16 is widened."""
        if not isinstance(x, torch.Tensor):
            foreign = hasattr(x, "__dlpack_device__") and not isinstance(x, np.ndarray)
            x = self.from_dlpack(x) if foreign and _torch_takes(x) else _from_host(x)
        x = x.detach()
        if dtype is not None:
            wanted = _torch_type(dtype)
        elif x.dtype in _NUMPY_TYPES:
            wanted = x.dtype
        else:
            wanted = torch.float32 if x.dtype.is_floating_point else torch.float64
        return x.to(device=self.device, dtype=wanted).resolve_conj().resolve_neg()

    def from_dlpack(self, x: Any) -> torch.Tensor:
        """A view of a foreign array on the same device."""
        return torch.from_dlpack(x)

    def to_numpy(self, x: Any) -> np.ndarray:
        """`x` on the host; on the CPU a view."""
        if not isinstance(x, torch.Tensor):
            return np.asarray(x)
        x = x.detach().resolve_conj().resolve_neg().cpu()
        return np.asarray((x.float() if x.dtype == torch.bfloat16 else x).numpy())

    def owns(self, x: Any) -> bool:
        """Whether `x` is a tensor on this device."""
        return isinstance(x, torch.Tensor) and x.device == self.device

    def dtype_of(self, x: torch.Tensor) -> np.dtype:
        """Type of the entries."""
        return _NUMPY_TYPES[x.dtype]

    def conj(self, x: torch.Tensor) -> torch.Tensor:
        """Complex conjugate; `x` itself when it is real."""
        return x.conj().resolve_conj() if x.is_complex() else x

    def real(self, x: Any) -> Any:
        """Real part."""
        return (x.real if x.is_complex() else x) if isinstance(x, torch.Tensor) else np.real(x)

    def imag(self, x: Any) -> Any:
        """Imaginary part."""
        return (x.imag if x.is_complex() else torch.zeros_like(x)) if isinstance(x, torch.Tensor) else np.imag(x)

    def any(self, mask: torch.Tensor) -> bool:
        """Whether there is a True."""
        return bool(mask.any())

    def contiguous(self, x: torch.Tensor, dtype: Any = None) -> torch.Tensor:
        """`x` in C order, copied only where it must be."""
        return (x if dtype is None else x.to(_torch_type(dtype))).resolve_conj().resolve_neg().contiguous()

    def reshape(self, x: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
        """`x` in C order with another shape."""
        return x.reshape(shape)

    def gather(self, rows: torch.Tensor, index: np.ndarray) -> torch.Tensor:
        """``rows[:, index]``."""
        return torch.index_select(rows, 1, self.asarray(index, dtype=np.int64))

    def scatter(self, rows: torch.Tensor, index: np.ndarray, n: int) -> torch.Tensor:
        """Zeros, but for ``[:, index] = rows``."""
        out = torch.zeros((rows.shape[0], n), dtype=rows.dtype, device=self.device)
        return out.index_copy_(1, self.asarray(index, dtype=np.int64), rows)

    def guard(self, x: torch.Tensor) -> torch.Tensor:
        """A copy in the same layout: torch has no read-only tensors."""
        return x.clone()

    def empty(self, shape: tuple[int, ...], dtype: Any) -> torch.Tensor:
        """Uninitialised tensor; torch aligns to 64 bytes and more."""
        return torch.empty(tuple(shape), dtype=_torch_type(dtype), device=self.device)

    # -- the basis -----------------------------------------------------------------------------------------------------

    def gemv_t(self, rows: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        """``conj(rows) @ w``."""
        if w.shape[0] > BLAS_LIMIT:
            sums = [torch.as_tensor(self.dot(rows[j, :], w), device=self.device) for j in range(rows.shape[0])]
            return torch.stack(sums).to(rows.dtype)
        # Conjugating the vector instead of the basis saves a copy of the basis.
        return self.conj(torch.mv(rows, self.conj(w)))

    def gemv_n_sub(self, rows: torch.Tensor, coefficients: torch.Tensor, w: torch.Tensor) -> None:
        """``w -= coefficients @ rows`` in place."""
        if w.shape[0] > BLAS_LIMIT:
            for j in range(rows.shape[0]):
                self.axpy(-coefficients[j], rows[j, :], w)
        else:
            w.addmv_(rows.T, coefficients.to(w.dtype), alpha=-1)

    def combine(self, coefficients: np.ndarray, rows: torch.Tensor) -> torch.Tensor:
        """``coefficients @ rows``."""
        weights = self.asarray(np.ascontiguousarray(coefficients), dtype=self.dtype_of(rows))
        if rows.shape[1] <= BLAS_LIMIT:
            return weights @ rows
        out = torch.zeros((weights.shape[0], rows.shape[1]), dtype=rows.dtype, device=self.device)
        for i in range(weights.shape[0]):
            for j in range(weights.shape[1]):
                self.axpy(weights[i, j], rows[j, :], out[i, :])
        return out

    # -- scalars and updates -------------------------------------------------------------------------------------------

    def _scalar(self, x: torch.Tensor) -> Any:
        if not self.eager_scalars:
            return x
        return np.complex128(x.item()) if x.is_complex() else np.float64(x.item())

    def dot(self, x: torch.Tensor, y: torch.Tensor) -> Any:
        """Inner product, summed in double precision."""
        wide = torch.complex128 if x.is_complex() else torch.float64
        if x.dtype == y.dtype == wide and x.shape[0] <= BLAS_LIMIT:
            return self._scalar(torch.vdot(x, y))
        terms = [torch.vdot(x[piece].to(wide), y[piece].to(wide)) for piece in _pieces(x.shape[0])]
        return self._scalar(torch.stack(terms).sum() if terms else torch.zeros((), dtype=wide, device=self.device))

    def norm(self, x: torch.Tensor) -> Any:
        """Euclidean norm; squares neither over- nor underflow."""
        if x.shape[0] == 0:
            return self._scalar(torch.zeros((), dtype=torch.float64, device=self.device))
        if x.dtype in (torch.float64, torch.complex128):
            if self.eager_scalars:
                square = float(np.real(self.dot(x, x)))
                if 1e-280 < square < 1e280:
                    return np.float64(np.sqrt(square))
            largest = torch.linalg.vector_norm(x, ord=float("inf"))
            usable = (largest > 0) & (largest < float("inf"))  # zeros, infinities and NaN stay what they are
            scale = torch.where(usable, largest, torch.ones_like(largest))  # a number in its place would be copied, and waited for
            parts = [torch.linalg.vector_norm(x[piece] / scale) for piece in _pieces(x.shape[0])]
            return self._scalar(scale * torch.linalg.vector_norm(torch.stack(parts)))
        # In double precision the squares of smaller types are safe.
        wide = torch.complex128 if x.is_complex() else torch.float64
        return self._scalar(torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(x[p].to(wide)) for p in _pieces(x.shape[0])])))

    def axpy(self, a: Any, x: torch.Tensor, y: torch.Tensor) -> None:
        """``y += a x`` in place."""
        if isinstance(a, torch.Tensor):
            y.addcmul_(x if x.dtype == y.dtype else x.to(y.dtype), a.to(y.dtype))
        else:
            number = complex(a)
            y.add_(x, alpha=number if y.is_complex() else number.real)

    def scale_into(self, x: torch.Tensor, factor: Any, out: torch.Tensor) -> None:
        """``out[:] = factor x``."""
        number = factor.to(x.dtype) if isinstance(factor, torch.Tensor) else (complex(factor) if x.is_complex() else float(factor))
        torch.mul(x, number, out=out)

    def fetch(self, scalars: Sequence[Any]) -> np.ndarray:
        """All scalars in one transfer."""
        if not any(isinstance(s, torch.Tensor) for s in scalars):
            return np.asarray(scalars)
        complex_valued = any(s.is_complex() if isinstance(s, torch.Tensor) else np.iscomplexobj(s) for s in scalars)
        wide = torch.complex128 if complex_valued else torch.float64
        parts = [s.to(wide) if isinstance(s, torch.Tensor) else torch.full((), s, dtype=wide, device=self.device) for s in scalars]
        return self.to_numpy(torch.stack(parts))

    def safe_reciprocal(self, value: Any, threshold: Any) -> Any:
        """``1 / value`` above the threshold, else zero, without asking the host."""
        if not isinstance(value, torch.Tensor):
            return 1.0 / float(value) if value > threshold else 0.0
        usable = value > threshold
        return torch.where(usable, 1.0 / torch.where(usable, value, torch.ones_like(value)), torch.zeros_like(value))

    def probes(self, n: int, indices: Sequence[int], *, kind: ProbeKind, seed: int, domain: str, dtype: Any) -> torch.Tensor:
        """Random vectors made on the host, then copied: the same numbers as everywhere."""
        rows = self.empty((len(indices), n), dtype)
        for row, index in enumerate(indices):
            host = random_vector(n, kind=kind, seed=seed, domain=domain, index=index, dtype=np.dtype(dtype))
            rows[row, :] = self.asarray(host)
        return rows

    def reduce(self, x: Any) -> Any:
        """The identity: one process holds whole vectors."""
        return x

    def synchronize(self) -> None:
        """Wait for the device."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def total_memory(self) -> int:
        """Memory of the device."""
        if self.device.type == "cuda":
            return int(torch.cuda.get_device_properties(self.device).total_memory)
        return total_memory()


def _restore(device: str, eager_scalars: bool) -> TorchBackend:
    return TorchBackend(device, eager_scalars=eager_scalars)


def _pieces(n: int) -> Iterator[slice]:
    return (slice(start, start + _PIECE) for start in range(0, n, _PIECE))


def _torch_type(dtype: Any) -> torch.dtype:
    if isinstance(dtype, torch.dtype):
        return dtype
    resolved = np.dtype(dtype)
    if resolved not in _TORCH_TYPES:
        raise TypeError(f"The dtype {resolved} has no counterpart in torch; use float32, float64, complex64 or complex128.")
    return _TORCH_TYPES[resolved]


def _torch_takes(x: Any) -> bool:
    """Whether a foreign array lies where torch reaches it by DLPack."""
    kind = int(x.__dlpack_device__()[0])
    return kind == 1 or (kind in (2, 13) and torch.cuda.is_available())  # host memory, CUDA, CUDA managed


def _from_host(x: Any) -> torch.Tensor:
    array = np.asarray(x.get() if hasattr(x, "get") and not isinstance(x, (np.ndarray, dict)) else x)
    if array.dtype.kind == "V" and "float" in array.dtype.name:  # bfloat16 and 8-bit floats of ml_dtypes
        array = array.astype(np.float32)
    if array.dtype not in _TORCH_TYPES:
        if array.dtype.kind not in "biufc":
            raise TypeError(f"An array of dtype {array.dtype} holds no numbers.")
        array = array.astype(np.complex128 if array.dtype.kind == "c" else np.float64)
    if not array.flags.writeable or any(stride < 0 for stride in array.strides) or not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="), order="C", copy=True)  # torch has neither read-only nor reversed arrays
    return torch.from_numpy(array)
