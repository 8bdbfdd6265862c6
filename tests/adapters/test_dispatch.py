"""Which adapter a model goes to, and what is imported on the way."""

import subprocess
import sys
import types

import numpy as np
import pytest

import linop_spectra as ls
from linop_spectra.adapters.common import listed, matching_names
from linop_spectra.adapters.dispatch import framework_of


def _run(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)


def test_importing_the_names_imports_no_framework():
    result = _run(
        "import sys, linop_spectra as ls\n"
        "ls.objective, ls.BatchLoss, ls.Objective\n"
        "import linop_spectra.adapters, linop_spectra.curvature\n"
        "print([n for n in ('torch', 'jax', 'tensorflow', 'keras', 'cupy', 'matplotlib') if n in sys.modules])"
    )
    assert result.stdout.strip() == "[]", result.stderr


def test_the_link_at_the_root_says_what_to_import(tmp_path):
    import pathlib

    package = pathlib.Path(ls.__file__).parent / "adapters"
    (tmp_path / "adapters").symlink_to(package)
    result = _run(f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import adapters")
    assert result.returncode != 0
    assert "ImportError: Import linop_spectra.adapters;" in result.stderr


def _model_of(package):
    return type("Model", (), {"__module__": f"{package}.nn.module"})()


@pytest.mark.parametrize(
    ("package", "name"), [("flax", "JAX"), ("equinox", "JAX"), ("keras", "Keras"), ("tensorflow", "TensorFlow"), ("jaxlib", "JAX")]
)
def test_other_frameworks_are_named(package, name):
    assert framework_of(_model_of(package)) == name


def test_subclasses_and_mixed_bases():
    torch_base = types.new_class("Module", (), {}, lambda ns: ns.update(__module__="torch.nn.modules.module"))
    keras_base = types.new_class("Layer", (torch_base,), {}, lambda ns: ns.update(__module__="keras.src.layers.layer"))
    assert framework_of(type("Mine", (torch_base,), {})()) == "torch"
    assert framework_of(type("Mine", (keras_base,), {})()) == "Keras"
    assert framework_of(object()) is None


def test_functions_and_other_things():
    data = np.zeros((2, 2)), np.zeros((2, 2))
    with pytest.raises(TypeError, match=r"a str, but must be a torch\.nn\.Module, a Keras model"):
        ls.objective("resnet", "mse", data)
    with pytest.raises(TypeError, match=r"a function, but must be .* together with params="):
        ls.objective(lambda p, x: x, "mse", data)


def test_functions_with_parameters_and_modules_of_flax_go_to_jax():
    jax = pytest.importorskip("jax")
    data = np.ones((2, 3), np.float32), np.ones((2, 3), np.float32)
    objective = ls.objective(lambda p, x: p * x, "mse", data, params=jax.numpy.full(3, 2.0, dtype="float32"))
    assert type(objective.functions).__module__.startswith("linop_spectra.adapters.jax.")
    assert objective.value() == 1.0
    with pytest.raises(ValueError, match="no parameter"):
        ls.objective(lambda p, x: x, "mse", data, params={})
    with pytest.raises(TypeError, match="params is missing"):
        ls.objective(jax.jit(lambda p, x: x), "mse", data)
    nnx = pytest.importorskip("flax.nnx")
    module = nnx.Linear(3, 3, rngs=nnx.Rngs(0))
    assert ls.objective(module, "mse", data).functions.names == ("bias", "kernel")
    with pytest.raises(TypeError, match="leave it out"):
        ls.objective(module, "mse", data, params={"w": np.ones(3)})


def test_params_are_not_for_torch():
    torch = pytest.importorskip("torch")
    with pytest.raises(TypeError, match="leave it out"):
        ls.objective(torch.nn.Linear(2, 2), "mse", (np.zeros((2, 2)), np.zeros(2)), params={})


def test_names_by_pattern():
    names = ["a.weight", "a.bias", "b.weight"]
    assert matching_names(names, ["b.*", "a.bias"]) == ["a.bias", "b.weight"]
    assert listed([]) == "none"
    with pytest.raises(ValueError, match=r"'c\.\*', which matches no trainable parameter"):
        matching_names(names, ["a.*", "c.*"])
