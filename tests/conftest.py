"""Shared settings; its presence puts this folder on the import path, so that every test finds ``helpers``."""

import importlib.metadata
import os


def _quick_compilation():
    """Programs of JAX here run a few times on a hundred parameters: what costs is to compile them, most of it in fusing their parts.

    Only for versions that know the flag, because XLA ends the process at one that it does not know. The notebooks run without.
    """
    try:
        version = importlib.metadata.version("jaxlib")
    except importlib.metadata.PackageNotFoundError:
        return
    os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
    if version.startswith("0.10."):
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_cpu_use_fusion_emitters=false".strip()


_quick_compilation()
