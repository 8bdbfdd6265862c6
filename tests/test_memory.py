"""Memory budgets as text and numbers."""

import math

import pytest

from linop_spectra._memory import format_bytes, parse_budget, total_memory


@pytest.mark.parametrize(
    "text, expected",
    [
        ("4GB", 4e9),
        ("4 gb", 4e9),
        ("4G", 4e9),
        ("1.5MB", 1.5e6),
        (".5 kB", 500),
        ("512MiB", 512 * 2**20),
        ("2 Ti", 2 * 2**40),
        ("100", 100),
        ("100 B", 100),
        (7, 7),
        (2.5e3, 2500),
    ],
)
def test_amounts(text, expected):
    assert parse_budget(text) == expected


@pytest.mark.parametrize("text", ["", "GB", "4XB", "4 4GB", "-4GB", "1e3", "four", 0, -1, math.inf, math.nan, "0GB"])
def test_what_is_no_amount(text):
    with pytest.raises(ValueError, match=r"The argument memory_budget .*\."):
        parse_budget(text)


def test_the_default_depends_on_the_total_only():
    assert parse_budget(None, total=1000) == 400 and parse_budget(None) == int(0.4 * total_memory()) == parse_budget(None)


@pytest.mark.parametrize(
    "amount, text",
    [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (33_600, "33.6 kB"), (2.14e9, "2.14 GB"), (3e12, "3 TB"), (5e15, "5e+03 TB")],
)
def test_format(amount, text):
    assert format_bytes(amount) == text
