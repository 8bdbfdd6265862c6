"""CuPy on torch's memory, with stand-ins for both libraries that record what is asked of them."""

import contextlib
import sys
import types

import numpy as np
import pytest

from linop_spectra.backends.torch_memory import CupyBesideTorch, torch_allocator


class FakeLibraries:
    """CuPy with a stack of allocators, torch with a heap of blocks."""

    def __init__(self):
        self.stack, self.blocks, self.freed = [], {}, []
        self.cupy, self.torch = types.ModuleType("cupy"), types.ModuleType("torch")
        fakes = self

        class PythonFunctionAllocator:
            def __init__(self, malloc, free):
                self.allocate, self.free = malloc, free

            def malloc(self, size):
                return self.allocate(size, 0)

        @contextlib.contextmanager
        def using_allocator(malloc):
            fakes.stack.append(malloc)
            try:
                yield
            finally:
                fakes.stack.pop()

        def allocate(size, device, stream):
            pointer = 1000 + len(fakes.blocks)
            fakes.blocks[pointer] = (size, device, stream)
            return pointer

        self.cupy.cuda = types.SimpleNamespace(
            PythonFunctionAllocator=PythonFunctionAllocator,
            using_allocator=using_allocator,
            get_current_stream=lambda: types.SimpleNamespace(ptr=77),
        )
        self.torch.cuda = types.SimpleNamespace(caching_allocator_alloc=allocate, caching_allocator_delete=self.freed.append)


@pytest.fixture
def fakes(monkeypatch):
    made = FakeLibraries()
    monkeypatch.setitem(sys.modules, "cupy", made.cupy)
    monkeypatch.setitem(sys.modules, "torch", made.torch)
    return made


def test_blocks_come_from_torch_and_go_back(fakes):
    with torch_allocator():
        (malloc,) = fakes.stack
        pointer = malloc(256)
        assert fakes.blocks == {pointer: (256, 0, 77)}  # on the stream that CuPy works on
        assert malloc(0) == 0 and len(fakes.blocks) == 1
        allocator = malloc.__self__
    assert fakes.stack == []
    allocator.free(pointer, 0)  # arrays may outlive the context
    allocator.free(0, 0)
    assert fakes.freed == [pointer]


def test_an_error_leaves_the_allocator_as_it_was(fakes):
    with pytest.raises(KeyError), torch_allocator():
        raise KeyError
    assert fakes.stack == []


def test_the_backend_allocates_in_the_context(fakes, monkeypatch):
    depth = []

    class Recording(types.ModuleType):
        def __getattr__(self, name):
            if name not in ("ElementwiseKernel", "cuda"):
                depth.append((name, len(fakes.stack)))
            if name in ("ElementwiseKernel", "cuda"):
                raise AttributeError(name)
            return getattr(np, name)

    backend = CupyBesideTorch(Recording("numpy"))
    rows = backend.empty((2, 5), np.float64)
    rows[...] = 1
    backend.asarray([1.0])
    backend.contiguous(rows.T)
    backend.combine(np.ones((1, 2)), rows)
    backend.probes(5, (0,), kind="sign", seed=0, domain="trace", dtype=np.float64)
    backend.guard(rows)
    within = [name for name, levels in depth if levels]
    assert {"empty", "asarray", "ascontiguousarray"} <= set(within) and fakes.stack == []
    assert backend.name == "cupy"
