"""The demo, on a shortened run: what it writes, and that a seed repeats it."""
import json

import pytest

pytest.importorskip("torch")
pytest.importorskip("sklearn")

from linop_spectra.cli import demo, digits

NUM_IMAGES, SEED = 60, 3


@pytest.fixture
def short(monkeypatch):
    import torch

    # Two threads that wait for each other on a busy machine take fifty times as long as one.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    monkeypatch.setattr(demo, "STEPS", 12)
    monkeypatch.setattr(digits, "EPOCHS", 2)
    whole = digits.load_digits

    def few(seed):
        data = whole(seed)
        return digits.Digits(tuple(part[:NUM_IMAGES] for part in data.train), data.held_out)

    monkeypatch.setattr(digits, "load_digits", few)
    yield
    torch.set_num_threads(threads)


def test_demo_writes_picture_results_and_numbers_which_a_seed_repeats(command, short, tmp_path):
    done = command("demo", "--seed", SEED, "--out", "out")
    assert done.status == 0, done.err
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "spectrum.png", "demo.json", "hessian-at-initialisation.npz", "hessian-after-training.npz",
        "gauss-newton-at-initialisation.npz", "gauss-newton-after-training.npz",
    }
    numbers = json.loads((tmp_path / "out" / "demo.json").read_text())
    assert numbers["num_classes"] == 10 and numbers["trained"]["loss"] < numbers["initial"]["loss"]
    for stage in ("initial", "trained"):
        assert 0 <= numbers[stage]["held_out_accuracy"] <= 1
        for key in ("hessian", "ggn"):
            one = numbers[stage][key]
            assert 0 <= one["gradient_share"] <= 1 and one["outlier_space"] == 9 and one["dimension"] == 6586
            assert one["trace"]["low"] <= one["trace"]["value"] <= one["trace"]["high"]
            assert 0 <= one["negative_mass"]["low"] <= one["negative_mass"]["high"] <= 1
    for word in ("accuracy", "at initialisation", "after training", "negative mass", "C − 1", "gradient"):
        assert word in done.out

    assert command("demo", "--seed", SEED, "--out", "again", "--quiet").status == 0
    again = json.loads((tmp_path / "again" / "demo.json").read_text())
    for stage in ("initial", "trained"):
        for key in ("largest_eigenvalue", "trace", "negative_mass"):
            assert numbers[stage]["hessian"][key] == again[stage]["hessian"][key]


def test_digits_are_split_and_standardised():
    data = digits.load_digits(0)
    assert len(data.train[1]) + len(data.held_out[1]) == 1797 and set(data.train[1].tolist()) == set(range(10))
    assert abs(float(data.train[0].mean())) < 1e-5 and abs(float(data.train[0].std()) - 1) < 1e-5


def test_making_the_network_leaves_the_random_state_alone():
    import torch

    before = torch.get_rng_state()
    first, second = digits.make_network(1), digits.make_network(1)
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
