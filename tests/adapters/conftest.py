import pytest


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    """Networks of a hundred parameters only wait for more threads."""
    torch = pytest.importorskip("torch")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
