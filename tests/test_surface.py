"""What users see: names, types and docstrings of the public functions, and what `import nconv` costs."""

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import nconv

ROOT = Path(nconv.__file__).parent
CONTRACT = """
    convolve correlate fftconvolve oaconvolve convolve2d correlate2d choose_conv_method
    ndimage.convolve ndimage.correlate ndimage.convolve1d ndimage.correlate1d
    ndimage.gaussian_filter ndimage.gaussian_filter1d ndimage.uniform_filter ndimage.uniform_filter1d ndimage.sobel
    ndimage.prewitt ndimage.laplace ndimage.gaussian_laplace ndimage.gaussian_gradient_magnitude
    ndimage.generic_laplace ndimage.generic_gradient_magnitude normalized_convolve Stream
    conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d
    grad.conv1d_input grad.conv2d_input grad.conv3d_input grad.conv1d_weight grad.conv2d_weight grad.conv3d_weight
    dask.convolve dask.correlate dask.conv1d dask.conv2d dask.conv3d dask.ndimage.convolve dask.ndimage.correlate
    dask.ndimage.convolve1d dask.ndimage.correlate1d dask.ndimage.gaussian_filter dask.ndimage.gaussian_filter1d
    dask.ndimage.uniform_filter dask.ndimage.uniform_filter1d dask.ndimage.sobel dask.ndimage.prewitt
    dask.ndimage.laplace dask.ndimage.gaussian_laplace dask.ndimage.gaussian_gradient_magnitude
    nn.Conv1d nn.Conv2d nn.Conv3d nn.ConvTranspose1d nn.ConvTranspose2d nn.ConvTranspose3d nn.Linear nn.ReLU nn.Flatten
    nn.MaxPool1d nn.MaxPool2d nn.MaxPool3d nn.AvgPool1d nn.AvgPool2d nn.AvgPool3d nn.Module nn.Sequential nn.Parameter
    nn.CrossEntropyLoss nn.SGD nn.Adam nn.load_safetensors nn.save_safetensors
    plot.kernels plot.feature_maps plot.response plot.winners plot.compare
    plan tune algorithms set_workspace_limit set_error_limit set_num_threads get_num_threads patch_scipy
    onnx_evaluator
    Plan ArraySpec DeviceError
""".split()
SUBMODULES = ("dask", "grad", "ndimage", "nn", "plot")
FUNCTIONS = [name for name in CONTRACT if name not in ("Plan", "ArraySpec", "DeviceError")]


def _get(name):
    value = nconv
    for part in name.split("."):
        value = getattr(value, part)
    return value


@pytest.mark.parametrize("name", CONTRACT)
def test_public_names_have_a_docstring(name):
    assert inspect.getdoc(_get(name))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_public_functions_have_types_and_numpydoc_sections(name):
    function = _get(name)
    signature = inspect.signature(function)
    untyped = [p.name for p in signature.parameters.values() if p.annotation is p.empty]
    assert not untyped, f"{name}: no type for {untyped}"
    if not inspect.isclass(function):
        assert signature.return_annotation is not signature.empty, f"{name}: no type for the result"
    doc = inspect.getdoc(function)
    wanted = ["Examples"] + (["Parameters"] if signature.parameters else [])
    missing = [section for section in wanted if f"{section}\n{'-' * len(section)}" not in doc]
    assert not missing, f"{name}: the docstring lacks {missing}"


def test_every_public_name_is_in_the_reference():
    page = ROOT.parent / "docs" / "api" / "index.rst"
    if not page.exists():
        pytest.skip("the documentation is not here")
    listed = {line.strip() for line in page.read_text().splitlines()}
    public = set(CONTRACT) | {name for name in nconv.__all__ if name not in SUBMODULES}
    assert public <= listed, f"docs/api/index.rst lacks {sorted(public - listed)}"


def test_type_checkers_see_the_same_names():
    stub = ast.parse((ROOT / "__init__.pyi").read_text())
    names = {alias.asname for node in ast.walk(stub) if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert names == set(nconv.__all__)


def test_import_is_light():
    code = ("import sys, nconv; heavy = {'numba', 'llvmlite', 'scipy', 'rich', 'click', 'matplotlib', 'torch', "
            "'dask'}; print(*(heavy & set(sys.modules)))")
    assert subprocess.check_output([sys.executable, "-c", code], text=True, cwd=ROOT.parent).split() == []


def test_import_writes_nothing(tmp_path):
    code = "import nconv, nconv.signal, nconv.ndimage, nconv.functional, nconv.grad, nconv.stream, nconv.normalized"
    env = {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache"), "NCONV_CACHE_DIR": str(tmp_path / "nconv"),
           "NUMBA_CACHE_DIR": str(tmp_path / "numba"), "PYTHONDONTWRITEBYTECODE": "1", "PATH": ""}
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT.parent, env=env)
    assert list(tmp_path.iterdir()) == []
