"""The rules of the house, read from the sources: layers, docstrings, what may not appear, and what an import loads."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import lvm

ROOT = Path(__file__).resolve().parents[1]
MAX_LINES = 400

# From the bottom up: a module imports from lines above its own, or from its own package.
LAYERS = (
    ("lvm._vectors", "lvm._disk"),
    ("lvm._tiles", "lvm._masks", "lvm._handles"),
    ("lvm._jit",),
    ("lvm.protocol", "lvm.result"),
    ("lvm._checks",),
    ("lvm.encoding",),
    ("lvm.kernels",),
    ("lvm.families",),
    ("lvm.models",),
    ("lvm.execution",),
    ("lvm.em", "lvm.collapse"),
    ("lvm.coordinates", "lvm.marginals", "lvm.promises"),
    ("lvm.gradients", "lvm.mixture_coordinates"),
    (
        "lvm.accelerate",
        "lvm.bounds",
        "lvm.combining",
        "lvm.datasets",
        "lvm.degeneracy",
        "lvm.initialize",
        "lvm.latent_class",
        "lvm.online",
        "lvm.restarts",
        "lvm.selection",
        "lvm.testing",
        "lvm.uncertainty",
    ),
    ("lvm.estimators",),
    ("lvm",),  # the public names, which load the rest when asked for
    ("lvm.persistence", "lvm.warmup"),
    ("lvm.cli_errors", "lvm.cli_families", "lvm.plotting", "lvm.reports", "lvm.tables"),
    ("lvm.cli",),
    ("lvm.__main__",),
)
FORBIDDEN_NAMES = {"utils", "core", "helpers", "misc"}


class Module(NamedTuple):
    name: str
    path: Path
    tree: ast.Module


def parse(path: Path) -> Module:
    parts = path.relative_to(ROOT).with_suffix("").parts
    name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
    return Module(name, path, ast.parse(path.read_text(encoding="utf-8"), str(path)))


MODULES = [parse(path) for path in sorted((ROOT / "lvm").rglob("*.py"))]
each_module = pytest.mark.parametrize("module", MODULES, ids=lambda module: module.name)


def snippet(source: str, name: str = "lvm.em") -> Module:
    """Return a module that breaks a rule: the negative control of each check."""
    return Module(name, ROOT / "snippet.py", ast.parse(source))


# ----- layers and imports -------------------------------------------------------------------------------------


def imports(module: Module) -> Iterator[str]:
    """Yield the full names of everything imported, also inside functions and for type checkers."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module.name}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def layer(name: str) -> tuple[int, str] | None:
    """Return the layer of a module, or of the module that a name belongs to, and the package that decides it."""
    found = [
        (height, prefix)
        for height, group in enumerate(LAYERS)
        for prefix in group
        if f"{name}.".startswith(f"{prefix}.")
    ]
    return max(found, key=lambda item: len(item[1]), default=None)


def upward_imports(module: Module) -> list[str]:
    own = layer(module.name)
    assert own is not None
    wrong = []
    for name in imports(module):
        target = layer(name)
        if target is not None and target[0] >= own[0] and target[1] != own[1]:
            wrong.append(name)
    return wrong


@each_module
def test_module_has_a_layer(module: Module) -> None:
    found = layer(module.name)
    assert found is not None
    assert found[1] != "lvm" or module.name == "lvm", f"give {module.name} its line in LAYERS, and in the design"


@pytest.mark.parametrize("module", [m for m in MODULES if m.name != "lvm"], ids=lambda module: module.name)
def test_imports_point_down(module: Module) -> None:
    assert upward_imports(module) == []


def test_upward_imports_are_noticed() -> None:
    assert upward_imports(snippet("from lvm.estimators.base import X")) == ["lvm.estimators.base.X"]
    assert upward_imports(snippet("def f():\n    from lvm import initialize")) == ["lvm.initialize"]
    assert upward_imports(snippet("import lvm")) == ["lvm"]
    assert upward_imports(snippet("from lvm.protocol import Rows\nimport numpy")) == []
    assert upward_imports(snippet("from lvm.result import Status", "lvm.protocol")) == ["lvm.result.Status"]


@each_module
def test_numba_is_imported_at_the_bottom_alone(module: Module) -> None:
    """What compiles kernels, and what extends its language."""
    bottom = ("lvm._jit", "lvm._disk", "lvm._vectors", "lvm._masks", "lvm._tiles", "lvm._handles")
    assert module.name in bottom or not {"numba", "llvmlite"} & {name.split(".")[0] for name in imports(module)}


@each_module
def test_module_names_say_something(module: Module) -> None:
    assert not FORBIDDEN_NAMES & {part.strip("_") for part in module.name.split(".")}


def test_import_loads_nothing_heavy() -> None:
    code = "import lvm, sys, json; dir(lvm); print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    loaded = set(json.loads(done.stdout))
    assert "lvm" in loaded
    assert not loaded & {"numba", "numpy", "scipy", "sklearn", "matplotlib", "pandas", "dask", "typer", "rich"}


def test_public_names() -> None:
    """What __all__ promises can be had, type checkers see the same names, and others are refused."""
    for name in lvm.__all__:
        assert getattr(lvm, name) is not None
    assert set(lvm.__all__) <= set(dir(lvm))
    (root,) = (module for module in MODULES if module.name == "lvm")
    (block,) = (node for node in root.tree.body if isinstance(node, ast.If))
    seen = {
        alias.asname or alias.name for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    assert seen == set(lvm.__all__)
    with pytest.raises(AttributeError, match="'lvm' has no attribute 'nonsense'"):
        _ = lvm.nonsense  # type: ignore[attr-defined]  # on purpose


# ----- what may not appear ------------------------------------------------------------------------------------


def prints(module: Module) -> list[int]:
    return [n.lineno for n in ast.walk(module.tree) if isinstance(n, ast.Name) and n.id in ("print", "pprint")]


def mutable_defaults(module: Module) -> list[int]:
    found = []
    for node in ast.walk(module.tree):
        if isinstance(node, ast.FunctionDef | ast.Lambda):
            for default in (*node.args.defaults, *node.args.kw_defaults):
                called = isinstance(default, ast.Call) and ast.unparse(default.func) in (
                    "list",
                    "dict",
                    "set",
                    "np.array",
                )
                if called or isinstance(default, ast.List | ast.Dict | ast.Set | ast.ListComp | ast.DictComp):
                    found.append(node.lineno)
    return found


@each_module
def test_no_print_and_no_mutable_default(module: Module) -> None:
    assert prints(module) == []
    assert mutable_defaults(module) == []


def test_prints_and_mutable_defaults_are_noticed() -> None:
    assert prints(snippet("def f():\n    print(1)")) == [2]
    assert mutable_defaults(snippet("def f(a=[], *, b={}):\n    g = lambda c=list(): 1\ndef h(a=(), b=None): ...")) == [
        1,
        1,
        2,
    ]


def kernel_functions(module: Module) -> list[ast.FunctionDef]:
    names = ("kernel", "helper", "exact_helper", "part_of_kernel", "bare_kernel", "bare_helper", "on_tile", "unrolled")
    functions = [node for node in ast.walk(module.tree) if isinstance(node, ast.FunctionDef)]
    return [f for f in functions if any(isinstance(d, ast.Name) and d.id in names for d in f.decorator_list)]


@each_module
def test_kernels_are_plain(module: Module) -> None:
    """Kernels raise nothing and take at most eight arguments; they live in kernels/ and in family files."""
    found = kernel_functions(module)
    home = (layer(module.name) or (0, ""))[1]
    assert not found or home in ("lvm.kernels", "lvm.families", "lvm._tiles")
    for function in found:
        assert len(function.args.args) <= 8, function.name
        assert not [n for n in ast.walk(function) if isinstance(n, ast.Raise | ast.Assert | ast.Try)], function.name


SOURCES = [path for top in ("lvm", "tests", "asv_benchmarks") for path in sorted((ROOT / top).rglob("*.py"))]
SOURCES = [path for path in SOURCES if ROOT / "asv_benchmarks" / "env" not in path.parents]  # environments of asv


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_file_length(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MAX_LINES
