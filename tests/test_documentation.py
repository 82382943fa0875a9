"""Docstrings say what signatures do: read from the sources, and for estimators from what `help` shows."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from test_housekeeping import MODULES, Module, each_module, snippet

import lvm

SECTIONS = {"Parameters", "Attributes", "Returns", "Yields", "Raises", "Warns", "References", "Examples", "Notes"}
SECTIONS |= {"See Also", "Methods", "Other Parameters"}


def sections(docstring: str) -> dict[str, list[str]]:
    """Return the sections of a numpydoc docstring with the names that each defines."""
    lines = inspect.cleandoc(docstring).splitlines()
    found: dict[str, list[str]] = {}
    current: list[str] | None = None
    for line, below in zip(lines, [*lines[1:], ""], strict=True):
        if below and set(below) == {"-"} and (line in SECTIONS or "Examples" not in found):  # they may print tables
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


def is_estimator(node: ast.ClassDef) -> bool:
    """Return whether a class is a dataclass whose fields are a constructor's arguments."""
    decorators = [ast.unparse(decorator) for decorator in node.decorator_list]
    return any(text.startswith("dataclass(") and "kw_only=True" in text for text in decorators)


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
                if is_estimator(node):
                    pass  # see test_estimators_document_their_arguments
                elif found:
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


ESTIMATORS = [name for name in lvm.__all__ if name.endswith(("Mixture", "MixtureModel")) and name != "Mixture"]
ESTIMATOR_CLASSES = {base.__name__ for name in ESTIMATORS for base in getattr(lvm, name).__mro__}
PLOTS = ("lvm.plotting.clusters", "lvm.plotting.criteria", "lvm.plotting.densities", "lvm.plotting.mixtures")
OPTIONAL = {"prior_", "noise_density_", "noise_box_", "noise_weight_"}  # with arguments that are not the default
PUBLIC_MODULES = (*PLOTS, "lvm.datasets", "lvm.persistence", "lvm.selection", "lvm.testing")


def must_document(name: str) -> bool:
    """Return whether a section is a must: for names that users import, estimators' methods, and public functions."""
    module, _, member = name.partition(":")
    is_function = member[:1].islower() and "." not in member
    is_method = module.startswith("lvm.estimators") and member.partition(".")[0] in ESTIMATOR_CLASSES
    return member in lvm.__all__ or is_method or (is_function and module in PUBLIC_MODULES)


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


@pytest.mark.parametrize("name", ESTIMATORS)
def test_estimators_document_their_arguments(name: str) -> None:
    """The docstring, with its shared parts put in, has every argument once, the first one first."""
    estimator = getattr(lvm, name)
    documented = sections(estimator.__doc__)["Parameters"]
    signature = list(inspect.signature(estimator).parameters)
    assert documented[0] == signature[0] == "n_components" or name in ("MixedMixture", "MixtureModel")
    assert sorted(documented) == sorted(signature)
    assert "<" not in "".join(sections(estimator.__doc__)["Attributes"])


@pytest.mark.parametrize(
    "name",
    [
        "BernoulliMixture",
        "CategoricalMixture",
        "ExponentialMixture",
        "GammaMixture",
        "GaussianMixture",
        "MultinomialMixture",
        "NegativeBinomialMixture",
        "PoissonMixture",
        "VonMisesFisherMixture",
    ],
)
def test_fitted_attributes_are_documented(name: str) -> None:
    estimator: Any = getattr(lvm, name)(1)
    table = pd.DataFrame(np.eye(4, 2), columns=["first", "second"])
    table = {"GammaMixture": table + 1, "VonMisesFisherMixture": table.iloc[[0, 1, 0, 1]]}.get(name, table)
    estimator.fit(table)
    fitted = {attribute for attribute in vars(estimator) if attribute.endswith("_")}
    documented = set(sections(type(estimator).__doc__ or "")["Attributes"])
    assert documented - OPTIONAL == fitted - OPTIONAL
