"""Reproducible random vectors: the same for a seed on every backend, device and shard count.

The generator is Philox 4x64 (Salmon, Moraes, Dror and Shaw, 2011), which maps a key and a counter to random words. The key
is a hash of (seed, domain, index of the vector), the counter is the global position in the vector, so that any piece of any
vector can be made anywhere without the rest. The domain keeps, say, a random matrix and the probe that measures it apart.
"""

from __future__ import annotations

import hashlib
import numbers
from typing import Literal

import numpy as np
from scipy import special

ProbeKind = Literal["sphere", "normal", "sign"]
_WORDS_PER_BLOCK = 4
_PIECE = 1 << 20


def _words(seed: int, domain: str, index: int, start: int, count: int) -> np.ndarray:
    """Random 64-bit words `start` .. `start + count` of the stream of one vector."""
    digest = hashlib.sha256(f"{seed}/{domain}/{index}".encode()).digest()
    key = int.from_bytes(digest[:16], "little")
    first_block, skip = divmod(start, _WORDS_PER_BLOCK)
    generator = np.random.Philox(key=key, counter=first_block)
    return np.asarray(generator.random_raw(skip + count))[skip:]


def _normals(words: np.ndarray) -> np.ndarray:
    uniforms = ((words >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53
    return np.asarray(special.ndtri(uniforms))


def random_vector(
    n: int, *, kind: ProbeKind, seed: int, domain: str, index: int, dtype: np.dtype, start: int = 0, stop: int | None = None
) -> np.ndarray:
    """One random vector, or the piece ``start:stop`` of it, on the host.

    Parameters
    ----------
    n : int
        Length of the whole vector.
    kind : {"sphere", "normal", "sign"}
        ``"sphere"`` is uniform on the unit sphere, ``"normal"`` standard normal, ``"sign"`` has entries of modulus one
        (plus or minus one; a complex vector takes the four fourth roots of unity).
    seed : int
        The user's seed.
    domain : str
        What the vector is for: ``"probe"``, ``"ensemble"``, ...
    index : int
        Number of the vector in its domain.
    dtype : numpy.dtype
        Real or complex floating type of the result; the values are made in double precision and rounded once.
    start, stop : int
        The piece that is wanted; a piece of a ``"sphere"`` vector is scaled by the norm of the whole one.

    Returns
    -------
    numpy.ndarray
        Shape ``(stop - start,)``.

    Examples
    --------
    >>> import numpy as np
    >>> whole = random_vector(10, kind="normal", seed=0, domain="probe", index=3, dtype=np.dtype(float))
    >>> piece = random_vector(10, kind="normal", seed=0, domain="probe", index=3, dtype=np.dtype(float), start=4, stop=7)
    >>> bool(np.all(piece == whole[4:7]))
    True
    """
    if isinstance(seed, bool) or not isinstance(seed, numbers.Integral) or seed < 0:
        raise ValueError(f"The argument seed must be a whole number of at least 0, but is {seed!r}.")
    stop = n if stop is None else stop
    complex_valued = np.issubdtype(dtype, np.complexfloating)
    if kind == "sign":
        return _signs(seed, domain, index, start, stop, complex_valued).astype(dtype)
    values = _gaussian_piece(seed, domain, index, start, stop, complex_valued)
    if kind == "sphere":
        if (start, stop) == (0, n):
            norm = np.linalg.norm(values)
        else:
            pieces = range(0, n, _PIECE)
            norm = np.sqrt(
                sum(np.linalg.norm(_gaussian_piece(seed, domain, index, a, min(a + _PIECE, n), complex_valued)) ** 2 for a in pieces)
            )
        values /= norm
    return values.astype(dtype, copy=False)


def _gaussian_piece(seed: int, domain: str, index: int, start: int, stop: int, complex_valued: bool) -> np.ndarray:
    if complex_valued:
        pairs = _normals(_words(seed, domain, index, 2 * start, 2 * (stop - start)))
        return np.asarray(pairs[0::2] + 1j * pairs[1::2]) * np.sqrt(0.5)
    return _normals(_words(seed, domain, index, start, stop - start))


def _signs(seed: int, domain: str, index: int, start: int, stop: int, complex_valued: bool) -> np.ndarray:
    bits_each = 2 if complex_valued else 1
    first, last = bits_each * start, bits_each * stop
    first_word = first // 64
    words = _words(seed, domain, index, first_word, -(-last // 64) - first_word)
    bits = np.unpackbits(words.astype("<u8").view(np.uint8), bitorder="little")[first - 64 * first_word : last - 64 * first_word]
    if complex_valued:
        return np.asarray(1j ** (2 * bits[0::2] + bits[1::2]).astype(np.float64)).round()
    return 1.0 - 2.0 * bits
