"""Places of weights in the vector of parameters, by brute force."""

import numpy as np

from linop_spectra.adapters.weight_layouts import Names

SIZES = [1, 5, 3, 7]
BLOCKS = {f"p{i}": slice(sum(SIZES[:i]), sum(SIZES[: i + 1])) for i in range(len(SIZES))}


def test_parameters_of_places():
    names, generator = Names(BLOCKS), np.random.default_rng(0)
    assert names.of(np.zeros((0, 2), dtype=np.int64)) == set()
    for _ in range(200):
        index = generator.integers(0, sum(SIZES), size=generator.integers(1, 5, size=2))
        own = {name for name, place in BLOCKS.items() if any(place.start <= i < place.stop for i in index.ravel())}
        assert names.of(index) == own
        assert all(names.at(int(i)) in own for i in index.ravel())
    for name, place in BLOCKS.items():
        assert names.of(np.arange(place.start, place.stop)) == {name}
