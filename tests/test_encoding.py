"""Tables of categories as codes: of every kind of column, missing cells, unknown categories, and back."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_array_equal
from scipy import sparse

from lvm.encoding import as_table, check_fitted, decode, encode, given_categories

RNG = np.random.RandomState(0)


def encoded(X: Any, **options: Any) -> tuple[Any, list[Any]]:
    codes, categories = encode(as_table(X), **options)
    assert codes.dtype == np.int32
    assert codes.flags.c_contiguous
    assert not codes.flags.writeable
    return codes, [column.tolist() for column in categories]


COLUMNS = {
    "integers": (np.array([7, -3, 7, 100]), [-3, 7, 100], [1, 0, 1, 2]),
    "small integers": (np.array([-128, 127, 0, 127], np.int8), [-128, 0, 127], [0, 2, 1, 2]),
    "large integers": (np.array([2**62, -5, 2**62, 0]), [-5, 0, 2**62], [2, 0, 2, 1]),
    "unsigned": (np.array([2**64 - 1, 2**64 - 2, 2**64 - 1], np.uint64), [2**64 - 2, 2**64 - 1], [1, 0, 1]),
    "whole floats": (np.array([2.0, 1.0, np.nan, 2.0]), [1.0, 2.0], [1, 0, -1, 1]),
    "float32": (np.array([0.5, np.nan, 0.25], np.float32), [0.25, 0.5], [1, -1, 0]),
    "fractions": (np.array([0.1, -1e300, 0.1, np.nan]), [-1e300, 0.1], [1, 0, 1, -1]),
    "zeros of both signs": (np.array([0.0, -0.0, 1.0]), [0.0, 1.0], [0, 0, 1]),
    "booleans": (np.array([True, False, True]), [False, True], [1, 0, 1]),
    "text": (np.array(["b", "", "a", "b"]), ["", "a", "b"], [2, 0, 1, 2]),
    "objects": (np.array(["b", None, "a", np.nan, pd.NA], object), ["a", "b"], [1, -1, 0, -1, -1]),
    "object numbers": (np.array([3, 1.0, None, True, np.int8(3)], object), [1.0, 3.0], [1, 0, -1, 0, 1]),
    "object booleans": (np.array([True, None, False], object), [False, True], [1, -1, 0]),
    "series of text": (pd.Series(["b", None, "a", "b"]), ["a", "b"], [1, -1, 0, 1]),
    "series of objects": (pd.Series(["b", None, "a", np.nan], dtype=object), ["a", "b"], [1, -1, 0, -1]),
    "series of string": (pd.Series(["b", pd.NA, "a"], dtype="string"), ["a", "b"], [1, -1, 0]),
    "nullable integers": (pd.Series([3, None, -1], dtype="Int64"), [-1, 3], [1, -1, 0]),
    "nullable booleans": (pd.Series([True, None, False], dtype="boolean"), [False, True], [1, -1, 0]),
    "nullable floats": (pd.Series([3.0, None, 1.5], dtype="Float64"), [1.5, 3.0], [1, -1, 0]),
    "series of floats": (pd.Series([3.0, np.nan, 1.5]), [1.5, 3.0], [1, -1, 0]),
    "categorical": (
        pd.Series(pd.Categorical(["low", "high", None, "low"], ["low", "middle", "high"])),
        ["low", "high"],
        [0, 1, -1, 0],
    ),
    "categorical numbers": (pd.Series(pd.Categorical([2, 1, 2], [3, 2, 1])), [2, 1], [0, 1, 0]),
    "nothing observed": (np.array([np.nan, np.nan]), [], [-1, -1]),
    "no object observed": (np.array([None, None], object), [], [-1, -1]),
}


@pytest.mark.parametrize("name", COLUMNS)
def test_columns_of_every_kind(name: str) -> None:
    column, categories, codes = COLUMNS[name]
    table = column.to_frame() if isinstance(column, pd.Series) else column[:, None]
    found_codes, found = encoded(table)
    assert_array_equal(found_codes[:, 0], codes)
    assert found == [categories]
    assert [type(value) for value in found[0]] == [type(value) for value in categories]
    known = encode(as_table(table))[1]
    assert_array_equal(encode(as_table(table), known)[0], found_codes)


def test_lists_keep_text_and_numbers_apart() -> None:
    codes, categories = encoded([["x", 2, True], ["y", 1, None], [None, 2, False]])
    assert categories == [["x", "y"], [1, 2], [False, True]]
    assert_array_equal(codes, [[0, 1, 1], [1, 0, -1], [-1, 1, 0]])


@pytest.mark.parametrize("seed", range(3))
def test_agrees_with_scikit_learn(seed: int) -> None:
    from sklearn.preprocessing import OrdinalEncoder

    rng = np.random.RandomState(seed)
    X = np.column_stack([rng.choice(["a", "bb", "c"], 80), rng.choice([10, -2, 5, 7], 80)]).astype(object)
    X[:, 1] = X[:, 1].astype(int)
    X[rng.uniform(size=X.shape) < 0.2] = np.nan
    peer = OrdinalEncoder(encoded_missing_value=-1).fit(X)
    codes, categories = encoded(X)
    assert_array_equal(codes, peer.transform(X))
    assert categories == [[value for value in column if value == value] for column in peer.categories_]


@pytest.mark.parametrize("order", ["C", "F"])
def test_large_tables(order: Any) -> None:
    """The quick way for whole numbers of a small range finds what sorting finds."""
    X = np.asarray(RNG.randint(-5, 70_000, (5000, 3)), order=order)
    X[:, 1] %= 7
    codes, categories = encoded(X)
    for j in range(3):
        distinct, inverse = np.unique(X[:, j], return_inverse=True)
        assert_array_equal(codes[:, j], inverse)
        assert categories[j] == distinct.tolist()


def test_integers_equal_floats_and_booleans() -> None:
    _, known = encode(as_table([[1, True], [2, False], [5, True]]))
    codes, _ = encode(as_table(np.array([[5.0, 0.0], [np.nan, 1.0], [1.0, 1.0]])), known)
    assert_array_equal(codes, [[2, 0], [-1, 1], [0, 1]])


def test_unknown_categories() -> None:
    frame = pd.DataFrame({"colour": ["red", "blue"], "size": [1, 2]})
    _, known = encode(frame)
    new = pd.DataFrame({"colour": ["red", None, "mauve", "red"], "size": [1, 2, 1, 9]})
    message = (
        r"column 0 \('colour'\) of X holds 'mauve' at row 2, which is not among the known categories 'blue', 'red'; "
        r"correct it, name it in categories before fitting, or .*handle_unknown='ignore'"
    )
    with pytest.raises(ValueError, match=message):
        encode(new, known, ["colour", "size"])
    with pytest.raises(ValueError, match=r"column 1 of X holds 9 at row 0, which is not among .* 1, 2;"):
        encode(np.array([["red", 9]], object), known)
    codes, categories = encode(new, known, ignore_unknown=True)
    assert_array_equal(codes, [[1, 0], [-1, 1], [-1, 0], [1, -1]])
    assert categories == known
    with pytest.raises(ValueError, match=r"known categories 0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 5 more;"):
        encode(np.array([[77]]), [np.arange(15)])


def test_a_declared_category_that_does_not_occur_is_not_unknown() -> None:
    column = pd.DataFrame({"a": pd.Categorical(["x", "y"], ["x", "y", "z"])})
    assert_array_equal(encode(column, [np.array(["y", "x"], object)])[0], [[1], [0]])


def test_decoding() -> None:
    X = np.array([["a", "x"], ["b", "y"], ["a", "y"]], object)
    codes, categories = encode(as_table(X))
    assert_array_equal(decode(codes, categories), X)
    integers = decode(*encode(as_table(np.array([[3, 1], [5, 1]], np.int16))))
    assert integers.dtype == np.int16
    assert integers.tolist() == [[3, 1], [5, 1]]
    mixed = decode(*encode(as_table([["a", 2, 0.5], ["b", 3, 1.5]])))
    assert mixed.dtype == object
    assert mixed.tolist() == [["a", 2, 0.5], ["b", 3, 1.5]]
    assert [type(value) for value in mixed[0]] == [str, int, float]


@pytest.mark.parametrize(
    ("X", "kind", "message"),
    [
        (sparse.csr_matrix(np.eye(2)), TypeError, "Sparse data was passed for X, but dense data is required"),
        ([1, 2, 3], ValueError, r"X must have two dimensions, rows and features; got shape \(3,\)"),
        (np.ones((2, 2), complex), ValueError, "Complex data not supported"),
        (np.zeros((2, 1), "datetime64[ns]"), ValueError, r"type datetime64\[ns\] are not supported"),
        (np.zeros((0, 3)), ValueError, r"0 sample\(s\) \(shape=\(0, 3\)\) while a minimum of 1 is required"),
        (np.zeros((3, 0)), ValueError, r"0 feature\(s\) \(shape=\(3, 0\)\) while a minimum of 1 is required"),
        ([["a"], [3]], ValueError, r"column 0 of X mixes text and numbers, such as 'a' and 3; convert all .* to text"),
        ([[1, b"x"]], ValueError, r"column 1 of X holds b'x' of type bytes; expected text, numbers or booleans"),
        (np.array([[1, [2]], [1, [3]]], object), ValueError, r"column 1 of X holds lists or the like"),
        (np.array([[1.0], [np.inf]]), ValueError, r"column 0 of X holds infinity"),
        ([[None], [-np.inf]], ValueError, r"column 0 holds numbers that are infinite or beyond 64 bits: -inf"),
        ([[None], [2**70]], ValueError, r"column 0 holds numbers that are infinite or beyond 64 bits"),
        (pd.DataFrame({"t": pd.to_datetime(["2020-01-01"])}), ValueError, r"Timestamp.* of type Timestamp; expected"),
        (pd.DataFrame({"t": pd.cut([1, 9], [0, 5, 10])}), ValueError, r"Interval.* of type Interval; expected text"),
    ],
)
def test_other_tables_are_refused(X: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        encode(as_table(X))


def test_given_categories_keep_their_order() -> None:
    (sizes, numbers) = given_categories([["small", "large"], np.array([3, 1])], 2)
    assert sizes.tolist() == ["small", "large"]
    assert numbers.tolist() == [3, 1]
    codes, _ = encode(as_table([["large", 1], ["small", 3]]), [sizes, numbers])
    assert_array_equal(codes, [[1, 1], [0, 0]])


@pytest.mark.parametrize(
    ("categories", "message"),
    [
        ("automatic", r"categories must be 'auto' or a list of categories for each of the 2 columns, got 'automatic'"),
        ([["a"]], r"for each of the 2 columns, got 1 lists"),
        (3, r"for each of the 2 columns, got 3"),
        ([["a"], []], r"categories\[1\] \('q'\) must be a list of categories, got \[\]"),
        ([["a"], "xy"], r"categories\[1\] \('q'\) must be a list of categories, got 'xy'"),
        ([["a", "b", "a"], [1]], r"categories\[0\] \('p'\) holds 'a' twice"),
        ([["a", None], [1]], r"categories\[0\] \('p'\) holds None, a missing value; leave it out"),
        ([["a"], [1, np.nan]], r"categories\[1\] \('q'\) holds nan, a missing value"),
        ([["a", 1], [1]], r"categories\[0\] \('p'\) of X mixes text and numbers, such as 'a' and 1"),
    ],
)
def test_other_given_categories_are_refused(categories: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        given_categories(categories, 2, ["p", "q"])


@pytest.mark.parametrize(
    ("categories", "message"),
    [
        (None, r"categories_ should be a list of 2 arrays"),
        ([np.arange(2)], r"categories_ should be a list of 2 arrays"),
        ([np.arange(2), np.zeros((2, 2))], r"categories_\[1\] should be an array of categories"),
        ([np.arange(2), np.zeros(0)], r"categories_\[1\] should be an array of categories"),
        ([["a"], np.arange(2)], r"categories_\[0\] should be an array of categories"),
        ([np.array(["a", "a"], object), np.arange(2)], r"categories_\[0\] repeats a category"),
    ],
)
def test_fitted_categories_of_damaged_files_are_refused(categories: Any, message: str) -> None:
    check_fitted([np.arange(2), np.array(["a", "b"], object)], 2)
    with pytest.raises(ValueError, match=message):
        check_fitted(categories, 2)
