"""The house stands on its floors: a file imports only from floors below it."""

import ast
from pathlib import Path

import pytest

import nconv

ROOT = Path(nconv.__file__).parent
FLOORS = (                                   # from the ground up; a name with a slash is a folder, one room
    {"geometry", "errors", "store", "butterfly"},
    {"boundary", "factors"},
    {"problem"},
    {"machine", "phases", "threads"},
    {"compiler"},
    {"jit"},
    {"cpu/", "cuda/"},
    {"registry"},
    {"lowering", "wisdom"},
    {"shortcuts"},
    {"limits"},
    {"choice"},
    {"engine"},
    {"planner"},
    {"calibrate", "memory", "values"},
    {"signal", "ndimage/", "functional"},
    {"grad", "stream", "normalized"},
    {"nn/"},
    {"interop/", "__init__"},                # from here up, public names may be used: `import nconv`
    {"dask/"},
    {"bench/"},
    {"demo", "plot"},
    {"cli"},
)
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
FILES = sorted(path.relative_to(ROOT) for path in ROOT.rglob("*.py"))


def _room(parts):
    """Room of a module given as the parts of its path below the package; the package itself is `__init__`."""
    if not parts:
        return "__init__"
    return f"{parts[0]}/" if (ROOT / parts[0]).is_dir() else parts[0]


def _imports(path):
    """(room, line) of everything inside the package that a file imports, also within functions."""
    package = path.parent.parts
    for node in ast.walk(ast.parse((ROOT / path).read_text())):
        if isinstance(node, ast.Import):
            targets = [alias.name.split(".")[1:] for alias in node.names if alias.name.split(".")[0] == "nconv"]
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                base = [*package[:len(package) - node.level + 1], *(node.module or "").split(".")]
            elif (node.module or "").split(".")[0] == "nconv":
                base = node.module.split(".")[1:]
            else:
                continue
            base = [part for part in base if part]
            rooms = [alias.name for alias in node.names if alias.name in FLOOR or f"{alias.name}/" in FLOOR]
            targets = [[room] for room in rooms] if not base and rooms else [base]
        else:
            continue
        for target in targets:
            yield _room(target), node.lineno


@pytest.mark.parametrize("path", FILES, ids=str)
def test_imports_come_from_floors_below(path):
    here = _room((*path.parent.parts, path.stem) if path.parent.parts else (path.stem,))
    assert here in FLOOR, f"{path} has no floor: name its room in FLOORS"
    if here == "__init__":
        return                                # lists names, imports none
    wrong = [f"line {line} imports {room}" for room, line in _imports(path)
             if room != here and FLOOR.get(room, 99) >= FLOOR[here]]
    assert not wrong, f"{path}: " + "; ".join(wrong)
