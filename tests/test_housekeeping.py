"""The rules of the house, read from the sources: layers, docstrings, what may not appear, and what an import loads."""

from __future__ import annotations

import ast
import inspect
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest

import lvm

ROOT = Path(__file__).resolve().parents[1]
MAX_LINES = 400

# From the bottom up: a module imports from lines above its own, or from its own package.
LAYERS = (
    ("lvm._jit",),
    ("lvm.protocol", "lvm.result"),
    ("lvm._checks",),
    ("lvm.kernels",),
    ("lvm.families",),
    ("lvm.models",),
    ("lvm.execution",),
    ("lvm.em", "lvm.collapse"),
    ("lvm.promises",),
    ("lvm.accelerate", "lvm.datasets", "lvm.initialize", "lvm.online", "lvm.restarts", "lvm.selection", "lvm.testing"),
    ("lvm.estimators",),
    ("lvm",),  # the public names, which load the rest when asked for
    ("lvm.marginals", "lvm.persistence", "lvm.warmup"),
    ("lvm.plotting", "lvm.reports", "lvm.tables"),
    ("lvm.cli",),
    ("lvm.__main__",),
)
FORBIDDEN_NAMES = {"utils", "core", "helpers", "misc"}
SECTIONS = {"Parameters", "Attributes", "Returns", "Yields", "Raises", "Warns", "References", "Examples", "Notes"}
SECTIONS |= {"See Also", "Methods", "Other Parameters"}


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
def test_only_jit_imports_numba(module: Module) -> None:
    assert module.name == "lvm._jit" or not [name for name in imports(module) if name.split(".")[0] == "numba"]


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
    names = ("kernel", "helper", "exact_helper", "part_of_kernel")
    functions = [node for node in ast.walk(module.tree) if isinstance(node, ast.FunctionDef)]
    return [f for f in functions if any(isinstance(d, ast.Name) and d.id in names for d in f.decorator_list)]


@each_module
def test_kernels_are_plain(module: Module) -> None:
    """Kernels raise nothing and take at most eight arguments; they live in kernels/ and in family files."""
    found = kernel_functions(module)
    home = (layer(module.name) or (0, ""))[1]
    assert not found or home in ("lvm.kernels", "lvm.families")
    assert found or home != "lvm.kernels" or module.name == "lvm.kernels"
    for function in found:
        assert len(function.args.args) <= 8, function.name
        assert not [n for n in ast.walk(function) if isinstance(n, ast.Raise | ast.Assert | ast.Try)], function.name


SOURCES = [path for top in ("lvm", "tests", "asv_benchmarks") for path in sorted((ROOT / top).rglob("*.py"))]
SOURCES = [path for path in SOURCES if ROOT / "asv_benchmarks" / "env" not in path.parents]  # environments of asv


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_file_length(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MAX_LINES


# ----- docstrings ---------------------------------------------------------------------------------------------


def sections(docstring: str) -> dict[str, list[str]]:
    """Return the sections of a numpydoc docstring with the names that each defines."""
    lines = inspect.cleandoc(docstring).splitlines()
    found: dict[str, list[str]] = {}
    current: list[str] | None = None
    for line, below in zip(lines, [*lines[1:], ""], strict=True):
        if below and set(below) == {"-"}:
            assert line in SECTIONS, f"unknown section {line!r}"
            assert len(below) == len(line), f"underline of {line!r} has another length"
            assert line not in found, f"section {line!r} appears twice"
            current = found[line] = []
        elif current is not None and line and not line.startswith((" ", "-")) and line not in found:
            current.extend(name.strip().lstrip("*") for name in line.split(" : ")[0].split(","))
    return found


def arguments(function: ast.FunctionDef) -> list[str]:
    a = function.args
    names = [arg.arg for arg in (*a.posonlyargs, *a.args)]
    names += [a.vararg.arg] if a.vararg else []
    names += [arg.arg for arg in a.kwonlyargs]
    names += [a.kwarg.arg] if a.kwarg else []
    static = any(isinstance(d, ast.Name) and d.id == "staticmethod" for d in function.decorator_list)
    return [name for name in names if static or name not in ("self", "cls")]


CLASSES = {node.name: node for module in MODULES for node in module.tree.body if isinstance(node, ast.ClassDef)}


def fields(node: ast.ClassDef) -> list[str]:
    """Return the fields of a NamedTuple or dataclass."""
    record = "NamedTuple" in map(ast.unparse, node.bases) or any(
        "dataclass" in ast.unparse(d) for d in node.decorator_list
    )
    return [
        item.target.id
        for item in node.body
        if record and isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)
    ]


def initialiser(node: ast.ClassDef) -> ast.FunctionDef | None:
    """Return __init__, also where a base class of the library has it."""
    for item in node.body:
        if isinstance(item, ast.FunctionDef) and item.name == "__init__":
            return item
    bases = [CLASSES[name] for base in node.bases if (name := ast.unparse(base).split("[")[0]) in CLASSES]
    return next((found for base in bases if (found := initialiser(base)) is not None), None)


def wrong_docstrings(module: Module, required: Callable[[str], bool] = lambda name: False) -> list[str]:
    """Return what is wrong with the docstrings of public functions, classes and methods.

    Where there is a section of parameters, it has the signature's names in its order; it may be left out where the
    protocol describes the method, but not where `required` says so. Likewise for the attributes of a record, which a
    sentence may describe instead.
    """
    wrong: list[str] = []

    def check(name: str, docstring: str | None, expected: list[str], section: str = "Parameters") -> None:
        if not docstring:
            wrong.append(f"{name}: no docstring")
            return
        try:
            documented = sections(docstring).get(section)
        except AssertionError as error:
            wrong.append(f"{name}: {error}")
            return
        if documented is None:
            if expected and section == "Parameters" and required(name):
                wrong.append(f"{name}: no section {section}")
        elif documented != expected:
            wrong.append(f"{name}: {section} {documented}, expected {expected}")

    def visit(body: list[ast.stmt], prefix: str) -> None:
        for node in body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                found = fields(node)
                init = initialiser(node)
                if found:
                    check(prefix + node.name, ast.get_docstring(node), found, "Attributes")
                else:
                    check(prefix + node.name, ast.get_docstring(node), arguments(init) if init else [])
                visit(node.body, f"{prefix}{node.name}.")
            elif isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
                decorators = [ast.unparse(d) for d in node.decorator_list]
                if not any(d.endswith(".setter") or d == "overload" for d in decorators):
                    check(prefix + node.name, ast.get_docstring(node), arguments(node))

    visit(module.tree.body, f"{module.name}:")
    if not ast.get_docstring(module.tree) and module.tree.body:
        wrong.append(f"{module.name}: no docstring")
    return wrong


PUBLIC_MODULES = ("lvm.datasets", "lvm.plotting", "lvm.persistence", "lvm.selection", "lvm.testing")


def must_document(name: str) -> bool:
    """Return whether a section is a must: for names that users import, estimators' methods, and public functions."""
    module, _, member = name.partition(":")
    is_function = member[:1].islower() and "." not in member
    return member in lvm.__all__ or module.startswith("lvm.estimators") or (is_function and module in PUBLIC_MODULES)


@each_module
def test_docstrings_match_signatures(module: Module) -> None:
    assert wrong_docstrings(module, must_document) == []


def test_wrong_docstrings_are_noticed() -> None:
    def problems(doc: str, signature: str = "a, *, b=1") -> list[str]:
        return wrong_docstrings(snippet(f'"""Doc."""\ndef f({signature}):\n    """{doc}"""'), lambda _: True)

    good = "Do it.\n\n    Parameters\n    ----------\n    a : int\n        One.\n    b : int\n        Two.\n    "
    assert problems(good) == []
    assert problems(good, "a, *, c=1") == ["lvm.em:f: Parameters ['a', 'b'], expected ['a', 'c']"]
    assert problems(good, "b, a") == ["lvm.em:f: Parameters ['a', 'b'], expected ['b', 'a']"]
    assert problems("Do it.") == ["lvm.em:f: no section Parameters"]
    assert problems("") == ["lvm.em:f: no docstring"]
    assert "unknown section" in problems(good.replace("Parameters", "Arguments_"))[0]
    assert "another length" in problems(good.replace("----------", "---"))[0]


@pytest.mark.parametrize("name", ["GaussianMixture", "BernoulliMixture", "MultinomialMixture"])
def test_fitted_attributes_are_documented(name: str) -> None:
    estimator: Any = getattr(lvm, name)(1)
    table = pd.DataFrame(np.eye(4, 2), columns=["first", "second"])
    estimator.fit(table)
    fitted = {attribute for attribute in vars(estimator) if attribute.endswith("_")}
    assert set(sections(type(estimator).__doc__ or "")["Attributes"]) == fitted
