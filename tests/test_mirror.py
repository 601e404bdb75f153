"""The wings of the CPU and of the GPU rhyme: the same files, the same names in what planner and registry ask."""

import ast
import inspect
from pathlib import Path

import pytest

import nconv
from nconv import registry

ROOT = Path(nconv.__file__).parent
PROTOCOL = ("NAME", "SUPPORTS", "REFERENCE", "why_not", "cost", "workspace", "error", "prepare", "run")
SERVICES = ("check_usable", "allocate", "part_target", "zeros", "widen", "weight_of", "narrow", "deliver", "assign",
            "from_host", "beside", "keep", "kept", "synchronize", "Operand", "operand", "parts", "real_dtype",
            "bias_vector")


def names(path):
    """(every name that a file binds at its top, the parameters of its functions)."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    functions = {n.name: [a.arg for a in n.args.args] for n in tree.body if isinstance(n, ast.FunctionDef)}
    bound = {a.asname or a.name for n in tree.body if isinstance(n, ast.ImportFrom) for a in n.names}
    bound |= {t.id for n in tree.body if isinstance(n, ast.Assign) for t in n.targets if isinstance(t, ast.Name)}
    return bound | set(functions) | {n.name for n in tree.body if isinstance(n, ast.ClassDef)}, functions


def room(device, name):
    folder = ROOT / device / name
    return folder / "__init__.py" if folder.is_dir() else ROOT / device / f"{name}.py"


@pytest.mark.parametrize("name", registry.names("cuda"))
def test_algorithms_have_the_same_names(name):
    here = next(algorithm for algorithm in registry.algorithms("cpu") if name == algorithm.NAME)
    bound, parameters = names(room("cuda", name))
    assert set(PROTOCOL) <= bound and set(PROTOCOL) <= set(vars(here))
    assert [list(inspect.signature(getattr(here, f)).parameters) for f in PROTOCOL[3:]] == [
        parameters[f] for f in PROTOCOL[3:]]


def test_arrays_offer_the_same_services():
    wings = [names(room(device, "arrays")) for device in ("cpu", "cuda")]
    for bound, _ in wings:
        assert set(SERVICES) <= bound
    shared = set(wings[0][1]) & set(wings[1][1])
    assert [wings[0][1][f] for f in sorted(shared)] == [
        [*wings[1][1][f]][:len(wings[0][1][f])] for f in sorted(shared)]


def test_the_registry_lists_the_gpu_without_one():
    listed = {(a.device, a.name) for a in nconv.algorithms()}
    assert listed == {(device, name) for device in registry.devices() for name in registry.names(device)}
    assert all(inspect.ismodule(a) and a.SUPPORTS and a.REFERENCE for a in registry.algorithms("cuda"))
