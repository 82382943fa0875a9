"""Mixtures for tables whose columns are of several kinds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, final

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils.validation import check_is_fitted, validate_data

from lvm import _checks
from lvm._jit import Array
from lvm.encoding import as_table
from lvm.estimators.base import FittingEstimator
from lvm.estimators.blocks import Block, block_arrays
from lvm.estimators.documentation import documented
from lvm.families.product import Product, ProductParams


@final
@documented
@dataclass(eq=False, repr=False, kw_only=True)
class MixedMixture(FittingEstimator):
    """Mixture for blocks of columns of different families, independent given the component.

    In the manner of scikit-learn's `ColumnTransformer`. Missing cells (NaN, None, pandas' own) are left out of the
    likelihood in blocks whose family takes them.

    Parameters
    ----------
    blocks : list of (str, str or Family, columns)
        Name, family and columns of each block. The family is "categorical", "gaussian" or "student_t" (features
        independent, as "gaussian_diag" and "student_t_diag"), the name of another family such as "poisson" or
        "gaussian_full", or a family object. Columns are names, positions, a slice, a mask, or a function of X that
        returns one of these. Columns in no block are ignored.
    n_components : int
        Number of components.
    alpha : float
        Parameter of the symmetric priors on probabilities of the blocks "categorical", "bernoulli" and "multinomial",
        >= 1: 1 is maximum likelihood.
    reg_covar : float
        Added to every variance of the Gaussian and Student t blocks that are named, in squared units of the data.
    handle_unknown : {"error", "ignore"}
        Whether a category that no row of the fit had is an error, or counts as a missing cell.
    parameters_init : dict of dict, optional
        Starting values by block and parameter, such as `{"size": {"means": [[0.0], [1.0]]}}`.
    <fitting parameters>

    Attributes
    ----------
    weights_ : ndarray of shape (n_components,)
        Mixing weights.
    parameters_ : dict of dict
        Parameters of each block by name: `parameters_["size"]["means"]` has shape (n_components, columns of the block).
        The probabilities of a categorical block are a list with an array (n_components, c_j) for each column.
    columns_ : dict of ndarray
        Positions of each block's columns.
    categories_ : dict of list
        Categories of each column, for the categorical blocks.
    <fitted attributes>

    References
    ----------
    Hunt & Jorgensen (1999), "Mixture model clustering using the MULTIMIX program", Australian & New Zealand Journal of
    Statistics 41.

    Examples
    --------
    >>> import lvm
    >>> rows = [[1.2, "red", 0], [0.9, "red", 1], [1.0, None, 0], [5.1, "blue", 7], [4.8, "blue", 9], [5.3, "red", 8]]
    >>> blocks = [("size", "gaussian", [0]), ("colour", "categorical", [1]), ("visits", "poisson", [2])]
    >>> mixture = lvm.MixedMixture(blocks, 2, random_state=0).fit(rows)
    >>> mixture.predict(rows).tolist() in ([0, 0, 0, 1, 1, 1], [1, 1, 1, 0, 0, 0])
    True
    >>> mixture.impute(rows)[2].tolist()
    [1.0, 'red', 0]
    """

    _smooths_start = True

    blocks: Any = field(kw_only=False)
    n_components: int = field(default=2, kw_only=False)
    alpha: float = 1.0
    reg_covar: float = 1e-6
    handle_unknown: str = "error"
    parameters_init: Any = None

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.string = tags.input_tags.categorical = True
        return tags

    # ----- blocks ---------------------------------------------------------------------------------------------

    def _check_parameters(self) -> None:
        super()._check_parameters()
        _checks.choice("handle_unknown", self.handle_unknown, ["error", "ignore"])

    def _fitted_blocks(self) -> list[Block]:
        """Return the blocks with their fitted columns and categories."""
        given = Block.read(self.blocks, _checks.real("alpha", self.alpha, 1.0), self.reg_covar)
        return [block.fitted(self.columns_[block.name], self.categories_.get(block.name)) for block in given]

    def _validate(self, X: Any, reset: bool) -> Any:
        """Return X as numbers (n, d): categories as their codes, missing cells as NaN, columns of no block as 0."""
        table = as_table(X)
        validate_data(self, table, reset=reset, skip_check_array=True)
        names = getattr(self, "feature_names_in_", None)
        if reset:
            given = Block.read(self.blocks, _checks.real("alpha", self.alpha, 1.0), self.reg_covar)
            found = [block.on(X, table, names) for block in given]
            Block.refuse_shared(found, names)
            self.columns_ = {block.name: block.columns for block in found}
            self.categories_ = {block.name: block.categories for block in found if block.categories is not None}
        blocks = self._fitted_blocks()
        out = np.zeros(table.shape)
        for block in blocks:
            out[:, block.columns] = block.numbers(table, names, self.handle_unknown == "ignore")
        if reset:
            _checks.no_empty_column(out, names)
        return out

    @property
    def _accepts_missing(self) -> bool:
        return True  # each block says for itself

    def _family(self, X: Any = None, weight: Array | None = None) -> Product:
        held = self._held()
        return Product(
            [
                (block.name, block.family(block_arrays(held, block.name)), block.columns)
                for block in self._fitted_blocks()
            ],
            getattr(self, "feature_names_in_", None),
        )

    def _features(self, X: Any) -> Any:
        return np.concatenate([block.features(X[:, block.columns]) for block in self._fitted_blocks()], axis=1)

    # ----- parameters, by block and name; "block__name" inside ------------------------------------------------

    def _parameters(self) -> Mapping[str, str]:
        return {
            f"{block.name}__{name}": axes for block in self._fitted_blocks() for name, axes in block.parameters.items()
        }

    def _by_block(self, values: Any, what: str) -> dict[str, Any]:
        """Return values given by block and parameter under their joint names."""
        if values is None:
            return {}
        if not isinstance(values, Mapping):
            raise _checks.ParameterError(f"{what} must be a dictionary by block and parameter, got {values!r}.")
        known = {block.name: block for block in self._fitted_blocks()}
        joint = {}
        for name, arrays in values.items():
            if name == "weights" and what == "fixed":
                joint[name] = arrays
                continue
            if name not in known:
                raise ValueError(f"{what} may hold the blocks {', '.join(map(repr, known))}, got {name!r}.")
            if not isinstance(arrays, Mapping):
                raise ValueError(f"{what}[{name!r}] must be a dictionary by parameter, got {arrays!r}.")
            for parameter, value in arrays.items():
                if parameter not in known[name].parameters:
                    names = ", ".join(map(repr, known[name].parameters))
                    raise ValueError(f"{what}[{name!r}] may hold {names}, got {parameter!r}.")
                joint[f"{name}__{parameter}"] = known[name].inside(parameter, value)
        return joint

    def _fixed_values(self) -> Mapping[str, Any]:
        return self._by_block(self.fixed, "fixed")

    def _start_value(self, name: str) -> Any:
        if name == "weights":
            return super()._start_value(name)
        return self._by_block(self.parameters_init, "parameters_init").get(name)

    def _attribute_shapes(self, n_components: int) -> dict[str, Any]:
        if not isinstance(getattr(self, "columns_", None), dict) or not isinstance(self.categories_, dict):
            raise ValueError("columns_ or categories_ is missing")
        return {"parameters_": {block.name: block.shapes(n_components) for block in self._fitted_blocks()}}

    def _shape(self, name: str) -> tuple[int, ...]:
        if name == "weights":
            return (self.n_components,)
        owner, _, parameter = name.rpartition("__")
        (block,) = (block for block in self._fitted_blocks() if block.name == owner)
        return block.inside_shape(parameter, self.n_components)

    def _value_of(self, components: ProductParams, name: str) -> Array:
        owner, _, parameter = name.rpartition("__")
        names = [block.name for block in self._fitted_blocks()]
        value: Array = getattr(components.blocks[names.index(owner)], parameter)
        return value

    def _params_of(self, arrays: Mapping[str, Array]) -> ProductParams:
        return ProductParams(
            tuple(block.family({}).params(**block_arrays(arrays, block.name)) for block in self._fitted_blocks())
        )

    def _set_components(self, components: ProductParams) -> None:
        blocks = self._fitted_blocks()
        self.parameters_ = {
            block.name: {name: block.outside(name, getattr(of_block, name)) for name in block.parameters}
            for block, of_block in zip(blocks, components.blocks, strict=True)
        }

    def _get_components(self) -> ProductParams:
        return self._params_of(
            {
                f"{block.name}__{name}": block.inside(name, self.parameters_[block.name][name])
                for block in self._fitted_blocks()
                for name in block.parameters
            }
        )

    def _described(self, columns: Sequence[int]) -> tuple[str, list[list[str]]]:
        cells: dict[int, list[str]] = {}
        for block in self._fitted_blocks():
            of_block = block.described(self.parameters_[block.name], len(self.weights_))
            cells |= dict(zip(block.columns.tolist(), of_block, strict=True))
        blank = [""] * len(self.weights_)
        rows = [list(row) for row in zip(*(cells.get(j, blank) for j in columns), strict=True)]
        return "parameters of its block, or the most probable category (its probability)", rows

    # ----- what users call ------------------------------------------------------------------------------------

    def impute(self, X: ArrayLike) -> NDArray[Any]:
        """Return the table with missing cells filled in, shape (n, d).

        Parameters
        ----------
        X : array-like of shape (n, d)
            The table, None or NaN where missing.

        Returns
        -------
        ndarray of shape (n, d)
            What was observed, and for each missing cell of a block its posterior mean, or its most probable category;
            objects where there are categories.
        """
        return self._in_own_values(X, super().impute(X))

    def sample_missing(self, X: ArrayLike, random_state: Any = None) -> NDArray[Any]:
        """Return the table with a draw in place of each missing cell, shape (n, d).

        Parameters
        ----------
        X : array-like of shape (n, d)
            The table, None or NaN where missing.
        random_state : int, RandomState or None
            Source of randomness; None takes the estimator's own.

        Returns
        -------
        ndarray of shape (n, d)
            What was observed, and a draw of the missing cells of each row given the others, from one component drawn
            by its posterior probability; objects where there are categories.

        Raises
        ------
        TypeError
            If the family of a block with missing cells cannot.
        """
        return self._in_own_values(X, super().sample_missing(X, random_state))

    def _in_own_values(self, X: Any, filled: Array) -> NDArray[Any]:
        """Return X with its missing cells from numbers (n, d), categories among them as codes."""
        if not self.categories_:
            return filled
        out = np.array(as_table(X), dtype=object)
        missing = np.isnan(self._validate(X, reset=False))
        for block in self._fitted_blocks():
            values = block.original(filled[:, block.columns])
            for place, column in enumerate(block.columns):
                rows = missing[:, column]
                out[rows, column] = values[rows, place]
        return out

    def sample(self, n_samples: int = 1) -> tuple[NDArray[Any], NDArray[np.int64]]:
        """Draw rows from the fitted mixture.

        Parameters
        ----------
        n_samples : int
            Number of rows.

        Returns
        -------
        X : ndarray of shape (n_samples, d)
            Rows, in the order of their components: numbers, or objects where there are categories; columns of no block
            are NaN or None.
        y : ndarray of shape (n_samples,)
            Their components.
        """
        check_is_fitted(self)
        drawn, y = super().sample(n_samples)
        X = np.full((len(drawn), self.n_features_in_), None if self.categories_ else np.nan)
        for block in self._fitted_blocks():
            X[:, block.columns] = block.original(drawn[:, block.columns])
        return X, y
