"""Speed of the numerical core against bandwidth and peers: Lanczos, stochastic Lanczos quadrature, extreme eigenpairs, scaling.

Run it from the root of the repository, all of it or some sections:

    python benchmarks/core.py [lanczos] [slq] [eigsh] [scaling] [--small] [--threads 1] [--out DIR]

Every comparison is a ratio of times that were taken in turns in one run. Peers that are not installed are left out with a line that
says so; ``pip install imate scikit-primate matfree`` installs them (the package called ``primate`` is another one). The matrices of
``eigsh`` are read from the folder LINOP_SPECTRA_DATA (or ../shared/data), subfolder ``matrices``.

Threads are set before NumPy is loaded, and the process is kept to as many cores, so that they are the same for both sides.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import pathlib
import tempfile

SECTIONS = ("lanczos", "slq", "eigsh", "scaling")
RESULTS = pathlib.Path(__file__).resolve().parent / "results"


def pin(threads: int) -> None:
    """Give every library the same number of threads, and the process as many cores."""
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS"):
        os.environ[name] = str(threads)
    os.environ["JAX_PLATFORMS"] = "cpu"
    if hasattr(os, "sched_setaffinity"):  # JAX has threads of its own that listen to no variable
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-threads:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sections", nargs="*", help=f"among {', '.join(SECTIONS)}; all by default")
    parser.add_argument("--small", action="store_true", help="small sizes, to see that everything works; writes to a temporary folder")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, help="how often both sides take their turns (three when small, else five or seven)")
    parser.add_argument("--out", type=pathlib.Path, help="folder of the JSON files (benchmarks/results)")
    parser.add_argument("--plot", type=pathlib.Path, help="file of the figure of `scaling` (docs/images/core_scaling.png)")
    parser.add_argument("--matrices", nargs="*", help="for `eigsh`: only matrices whose names begin so")
    options = parser.parse_args()
    unknown = set(options.sections) - set(SECTIONS)
    if unknown:
        parser.error(f"no section is called {', '.join(sorted(unknown))}; there are {', '.join(SECTIONS)}")
    pin(options.threads)
    from core_common import versions  # loads NumPy: not before the threads are set

    if options.out is None:
        options.out = pathlib.Path(tempfile.mkdtemp(prefix="core-")) if options.small else RESULTS
    if options.plot is None:
        options.plot = options.out / "core_scaling.png" if options.small else RESULTS.parent.parent / "docs" / "images" / "core_scaling.png"
    options.out.mkdir(parents=True, exist_ok=True)
    machine = versions(options.threads)
    print("; ".join(f"{name} {value}" for name, value in machine.items()))
    for section in options.sections or SECTIONS:
        print(f"\n== {section}{' (small)' if options.small else ''} ==", flush=True)
        results = importlib.import_module(f"core_{section}").run(options)
        if results is None:
            continue
        path = options.out / f"core_{section}.json"
        path.write_text(json.dumps({"machine": machine, "small": options.small, **results}, indent=1) + "\n")
        print(f"written: {path}", flush=True)


if __name__ == "__main__":
    main()
