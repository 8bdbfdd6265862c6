"""Every prediction of theory that the library tests: expected against measured, in one table.

Run it from the root of the repository, all of it or some experiments:

    python benchmarks/theory.py [NAME ...] [--seed 0] [--out benchmarks/results/theory.json]

The same experiments, one at a time and with their figures: ``linop-spectra theory --list``, ``linop-spectra theory NAME``.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import time

from core import RESULTS

from linop_spectra.validation import conduct, experiments


def main() -> None:
    known = experiments()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help=f"among {', '.join(known)}; all by default")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=pathlib.Path, default=RESULTS / "theory.json")
    options = parser.parse_args()
    if unknown := set(options.names) - set(known):
        parser.error(f"no experiment is called {', '.join(sorted(unknown))}")
    began, found = time.perf_counter(), {}
    for name in options.names or known:
        outcome = conduct(known[name], options.seed)
        found[name] = {"passed": outcome.passed, "seconds": round(outcome.seconds, 1), "rows": outcome.records()}
        print(f"\n{outcome}\n({outcome.seconds:.1f} s)", flush=True)
    rows = [row for outcome in found.values() for row in outcome["rows"]]
    print(f"\n{sum(row['passed'] for row in rows)} of {len(rows)} numbers as theory says, {time.perf_counter() - began:.0f} s")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps({"seed": options.seed, "experiments": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
