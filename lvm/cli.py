"""The command line: `python -m lvm fit | predict | score | sample | families | warmup`."""

from __future__ import annotations

import warnings
from contextlib import nullcontext
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lvm.cli_errors import OneLineErrors
from lvm.cli_families import (
    COVARIANCES,
    DRAWN,
    FAMILIES,
    blocks_of,
    estimator_of,
    number_or_word,
    numbers_of,
    pair_of,
    prior_of,
    spelled,
)

if TYPE_CHECKING:
    import pandas as pd

    from lvm.selection import Selection
    from lvm.tables import DataFile

RESULTS = ("model.lvm", "assignments.csv", "selection.csv", "criterion.png", "clusters.png")  # the last two by --plot


app = typer.Typer(
    cls=OneLineErrors,
    help="Latent variable models by expectation-maximisation.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Data = Annotated[
    str, typer.Argument(help="CSV or Parquet file, or a data set by name: faithful, iris, digits.", show_default=False)
]
Model = Annotated[Path, typer.Argument(help="Model file written by `fit`, or by lvm.save.", show_default=False)]
Out = Annotated[
    Path | None, typer.Option("--out", "-o", help="CSV or Parquet file to write instead of stdout.", show_default=False)
]
ExposureColumn = Annotated[
    str | None, typer.Option(help="Poisson: column of exposures, > 0, such as times or populations.")
]
HandleUnknown = Annotated[
    str | None,
    typer.Option(help="Categories that the fit had not: error, or ignore as a missing cell.", show_default="error"),
]
Seed = Annotated[int, typer.Option(help="Seed: the same seed gives the same result, bit for bit.", min=0)]


@app.command()
def fit(
    data: Data,
    components: Annotated[
        str, typer.Option("--components", "-k", help="Numbers of components to try: 3, or 1:6 (both ends), or 2,4,8.")
    ] = "1:6",
    family: Annotated[
        str, typer.Option(help=f"Component density: {', '.join(FAMILIES)}; or one that a package announces.")
    ] = "gaussian",
    covariance: Annotated[
        str | None,
        typer.Option(help=f"Of Gaussians: {', '.join(COVARIANCES)}; several with commas; all.", show_default="full"),
    ] = None,
    criterion: Annotated[str, typer.Option(help="What chooses the fit: bic, aic, icl or heldout.")] = "bic",
    columns: Annotated[
        str | None, typer.Option(help="Columns to fit, with commas; by default all without another role.")
    ] = None,
    weight_column: Annotated[str | None, typer.Option(help="Column of row weights, >= 0.")] = None,
    label_column: Annotated[
        str | None, typer.Option(help="Column of known components 0, 1, ...; blank or -1 where unknown.")
    ] = None,
    exposure_column: ExposureColumn = None,
    block: Annotated[
        list[str] | None, typer.Option(help="Of --family mixed, once per block: gaussian:height,weight.")
    ] = None,
    alpha: Annotated[float | None, typer.Option(help="Prior on probabilities, >= 1.", show_default="1")] = None,
    rates_prior: Annotated[
        str | None, typer.Option(help="Gamma prior on rates: its shape >= 1 and rate >= 0, as 2,0.5.")
    ] = None,
    weights_prior: Annotated[
        float | None, typer.Option(help="Dirichlet prior on mixing weights, >= 1.", show_default="1")
    ] = None,
    equal_weights: Annotated[bool, typer.Option("--equal-weights", help="Keep mixing weights at 1 / K.")] = False,
    binarize: Annotated[float | None, typer.Option(help="Bernoulli: values above this are 1, others 0.")] = None,
    handle_unknown: HandleUnknown = None,
    normalize: Annotated[bool, typer.Option("--normalize", help="Divide rows by their lengths first.")] = False,
    max_concentration: Annotated[
        float | None, typer.Option(help="Of von Mises-Fisher: most concentration, > 0.", show_default="no bound")
    ] = None,
    degrees_of_freedom: Annotated[
        str | None, typer.Option(help="Of Student t: separate, common or a number.", show_default="separate")
    ] = None,
    reg_covar: Annotated[float | None, typer.Option(help="Added to every variance.", show_default="1e-6")] = None,
    prior: Annotated[
        str | None, typer.Option(help="Of Gaussians: default, mclust's; or parts of it: shrinkage=0.1,dof=8,scale=2.")
    ] = None,
    noise: Annotated[bool, typer.Option("--noise", help="Gaussians: also fit uniform noise, component -1.")] = False,
    on_degenerate: Annotated[
        str | None,
        typer.Option(help="Where components collapse: restart, raise, drop or floor.", show_default="restart"),
    ] = None,
    tol: Annotated[float | None, typer.Option(help="Gain per row, in nats, that ends EM.", show_default="1e-7")] = None,
    max_iter: Annotated[int | None, typer.Option(help="Most iterations of EM.", show_default="1000")] = None,
    acceleration: Annotated[
        str | None, typer.Option(help="anderson: far fewer iterations where EM is slow.", show_default="plain EM")
    ] = None,
    n_init: Annotated[
        int | None, typer.Option(help="Number of starts of each fit.", show_default="5; gaussian: 3 per component")
    ] = None,
    seed: Seed = 0,
    jobs: Annotated[int | None, typer.Option(help="Number of threads.", show_default="every core")] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder for model.lvm, assignments.csv and selection.csv.")
    ] = None,
    plot: Annotated[bool, typer.Option("--plot", help="Also draw criterion.png and clusters.png into --out.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")] = False,
) -> None:
    """Fit mixtures and choose the number of components.

    Files of the same names in --out are replaced; if anything fails, none is written. Rows and components
    count from 0. A row with a known label keeps it in assignments.csv.
    """
    import lvm
    from lvm import reports, tables
    from lvm.estimators.shrinkage import suspicions

    if out is not None and not out.name:
        raise ValueError(f"--out {str(out)!r} names no folder; give one to make, such as --out results.")
    if plot and out is None:
        raise ValueError("--plot needs a folder to draw into; give --out too.")
    if plot and find_spec("matplotlib") is None:
        raise ValueError("--plot needs matplotlib: pip install 'lvm[plot]'.")
    settings: dict[str, Any] = {"--covariance": covariance, "--reg-covar": reg_covar, "--alpha": alpha}
    blocks = blocks_of(block)
    settings["--degrees-of-freedom"] = None if degrees_of_freedom is None else number_or_word(degrees_of_freedom)
    settings |= {"--rates-prior": pair_of("--rates-prior", rates_prior), "--binarize": binarize}
    settings |= {"--normalize": normalize or None, "--max-concentration": max_concentration}
    settings |= {"--handle-unknown": handle_unknown, "--prior": prior_of(prior), "--noise": noise or None}
    family = spelled(family)
    estimator, varied = estimator_of(family, settings | {"--exposure-column": exposure_column, "--block": blocks})
    if plot and noise:
        raise ValueError("--plot draws no noise; leave --plot or --noise out.")
    if plot and family not in DRAWN:
        raise ValueError(f"--plot is for --family {' or '.join(DRAWN)}, got --family {family}; leave it out.")
    if n_init is None and estimator.n_init != "auto":
        n_init = 5
    given: dict[str, Any] = {"tol": tol, "max_iter": max_iter, "n_init": n_init, "random_state": seed}
    given |= {"n_jobs": jobs, "acceleration": acceleration}
    given |= {"weights_prior": weights_prior, "equal_weights": equal_weights or None, "on_degenerate": on_degenerate}
    estimator.set_params(**{name: value for name, value in given.items() if value is not None})
    numbers = numbers_of(components)

    file = tables.read(data)
    roles = [name for name in (weight_column, label_column, exposure_column) if name is not None]
    chosen = None if columns is None else [name.strip() for name in columns.split(",")]
    if blocks is not None and chosen is None:
        chosen = list(dict.fromkeys(name for _, _, names in blocks for name in names))
    X = _features(file, estimator, varied, chosen, roles)
    weight = None if weight_column is None else file.weights(weight_column)
    labels = None if label_column is None else file.labels(label_column)
    exposures: dict[str, Any] = {} if exposure_column is None else {"exposure": file.exposures(exposure_column)}
    if numbers[-1] > len(file):
        raise ValueError(f"-k asks for {numbers[-1]} components, but {data} has {len(file)} rows; lower -k.")
    if labels is not None and numbers[0] <= labels.max():
        raise ValueError(
            f"column {label_column!r} of {data} has labels up to {labels.max()}, so -k must be at least "
            f"{labels.max() + 1}, got {numbers[0]}."
        )

    with nullcontext() if out is None else tables.output_folder(out) as folder:
        with warnings.catch_warnings(record=True) as caught, reports.progress(quiet) as callback:
            warnings.simplefilter("default")
            selection = lvm.select(
                estimator,
                X,
                n_components=numbers,
                criterion=criterion,
                sample_weight=weight,
                labels=labels,
                callback=callback,
                **exposures,
                **varied,
            )
        assigned = tables.assignments(selection.best.predict_proba(X, **exposures), labels, noise)
        if not quiet:
            for message in dict.fromkeys(str(warning.message) for warning in caught):
                typer.echo(f"warning: {message}", err=True)
            screen = reports.console()
            reports.print_selection(screen, selection)
            numbered = [*range(len(selection.best.weights_)), -1]
            counts = assigned["component"].value_counts().reindex(numbered, fill_value=0)
            reports.print_mixture(screen, selection.best, counts, len(file))
            for line in suspicions(selection.best, X, weight):
                screen.print(line, markup=False, style="yellow")
        if folder is not None:
            _write_results(folder, selection, X, assigned, plot)
    if out is not None and not quiet:
        typer.echo(f"wrote {', '.join(RESULTS if plot else RESULTS[:3])} into {out}")


def _write_results(folder: Path, selection: Selection, X: pd.DataFrame, assigned: pd.DataFrame, plot: bool) -> None:
    import lvm
    from lvm import tables

    model, assignments, table, criterion, clusters = (folder / name for name in RESULTS)
    lvm.save(selection.best, model)
    tables.write(assigned, assignments)
    frame = selection.to_frame()
    frame["best"] = [candidate.estimator is selection.best for candidate in selection.table]
    tables.write(frame, table)
    if plot:
        from matplotlib.figure import Figure

        from lvm import plotting

        curve = Figure(figsize=(6.4, 4.2), layout="constrained")
        plotting.plot_selection(selection, curve.subplots())
        figures = {criterion: curve, clusters: plotting.plot_mixture(selection.best, X, figure=Figure())}
        for path, figure in figures.items():
            figure.savefig(path, dpi=150)


@app.command()
def predict(
    model: Model,
    data: Data,
    exposure_column: ExposureColumn = None,
    handle_unknown: HandleUnknown = None,
    out: Out = None,
) -> None:
    """Assign rows to components: CSV of row, component, and the probability of each."""
    from lvm import tables

    estimator, X, exposures = _model_and_rows(model, data, exposure_column, handle_unknown)
    noise = getattr(estimator, "noise", False)
    _deliver(tables.assignments(estimator.predict_proba(X, **exposures), noise=noise), out)


@app.command()
def score(
    model: Model,
    data: Data,
    exposure_column: ExposureColumn = None,
    handle_unknown: HandleUnknown = None,
    per_row: Annotated[bool, typer.Option("--per-row", help="List each row's log-likelihood, as CSV.")] = False,
) -> None:
    """Print the log-likelihood of data under a model, in nats."""
    import pandas as pd

    estimator, X, exposures = _model_and_rows(model, data, exposure_column, handle_unknown)
    each = estimator.score_samples(X, **exposures)
    if per_row:
        _deliver(pd.DataFrame({"row": range(len(each)), "loglik": each}), None)
        return
    typer.echo(f"rows                     {len(each)}")
    typer.echo(f"total log-likelihood     {each.sum():.10g}")
    typer.echo(f"mean log-likelihood/row  {each.mean():.10g}")


@app.command()
def sample(
    model: Model,
    rows: Annotated[int, typer.Option("--rows", "-n", help="Number of rows to draw.", min=1)] = 1000,
    out: Out = None,
    seed: Seed = 0,
) -> None:
    """Draw rows from a model: CSV of its columns, and the component of each row."""
    import pandas as pd

    import lvm
    from lvm.marginals import feature_names

    estimator = lvm.load(model).set_params(random_state=seed)
    X, component = estimator.sample(rows)
    names = feature_names(estimator)
    extra = "component"
    while extra in names:
        extra += "_"
    _deliver(pd.DataFrame(X, columns=names).assign(**{extra: component}), out)


@app.command()
def families() -> None:
    """List the families of components, and the data that each is for."""
    from lvm import reports
    from lvm.estimators.generic import announcements

    rows = [(name, f.data, f.estimator, f.parameters, ", ".join(f.options)) for name, f in FAMILIES.items()]
    for name, other in announcements().items():
        text = other.summary if other.problem is None else f"cannot be used: {other.problem}"
        rows.append((name, f"{text} ({other.package})", "MixtureModel", other.parameters, ""))
    reports.print_table(reports.console(), ("family", "data", "estimator", "parameters", "options"), rows)


@app.command()
def warmup() -> None:
    """Compile everything now and keep it on disk, so that later processes start at once.

    Fits one tiny mixture of each family, structure and kind of data. What is compiled goes to the first folder
    that can be written of: the one that the environment variable NUMBA_CACHE_DIR names, the package's own, the user's
    cache folder, a folder for temporary files. Run it after an installation or an upgrade, for instance while
    an image is built: kernels in a folder that is read-only later are still found.
    """
    from lvm.warmup import fill_cache

    done = fill_cache()
    kernels = f"{done.n_compiled} kernels compiled" if done.n_compiled else "nothing to compile"
    typer.echo(f"{kernels}, {done.seconds:.1f} s")
    typer.echo("cache: none, no folder can be written" if done.folder is None else f"cache: {done.folder}")


def _model_and_rows(
    model: Path, data: str, exposure_column: str | None, handle_unknown: str | None
) -> tuple[Any, Any, dict[str, Any]]:
    """Return a model, the columns of the data that it was fitted on, in its order, and exposures if any."""
    import lvm
    from lvm import tables
    from lvm._checks import choice

    estimator = lvm.load(model)
    if exposure_column is not None and type(estimator).__name__ != "PoissonMixture":
        raise ValueError(
            f"--exposure-column is for a PoissonMixture, {model} holds a {type(estimator).__name__}; leave it out."
        )
    if handle_unknown is not None:
        if not hasattr(estimator, "handle_unknown"):
            raise ValueError(
                f"--handle-unknown is for models of categories, {model} holds a {type(estimator).__name__}; leave it "
                "out."
            )
        estimator.set_params(handle_unknown=choice("--handle-unknown", handle_unknown, ["error", "ignore"]))
    names = getattr(estimator, "feature_names_in_", None)
    file: DataFile = tables.read(data, _text_columns(estimator))
    apart = [] if exposure_column is None else [exposure_column]
    exposures = {} if exposure_column is None else {"exposure": file.exposures(exposure_column)}
    if names is not None:
        return estimator, _features(file, estimator, {}, list(names), apart, " that the model needs"), exposures
    n_columns = len(file.names) - len(apart)
    if n_columns != estimator.n_features_in_:
        raise ValueError(
            f"{model} was fitted on {estimator.n_features_in_} columns without names, {data} has {n_columns}; "
            "give a file of those columns alone."
        )
    return estimator, _features(file, estimator, {}, None, apart).to_numpy(), exposures


def _text_columns(estimator: Any) -> list[str]:
    """Return the names of the columns that were text in the fit."""
    names, found = getattr(estimator, "feature_names_in_", None), getattr(estimator, "categories_", None)
    if names is None or found is None:
        return []
    if isinstance(found, dict):  # of the blocks of a mixed mixture
        pairs = [
            pair for block, columns in found.items() for pair in zip(estimator.columns_[block], columns, strict=True)
        ]
    else:
        pairs = list(enumerate(found))
    return [names[j] for j, categories in pairs if categories.dtype == object]


def _features(
    file: DataFile,
    estimator: Any,
    varied: dict[str, Any],
    chosen: list[str] | None,
    apart: list[str] | None = None,
    owner: str = "",
) -> pd.DataFrame:
    """Return columns as an estimator takes them: text too, or numbers, and blank cells where every variant may."""
    from sklearn.base import clone

    if estimator.__sklearn_tags__().input_tags.string:
        return file.categories(chosen, apart or (), owner)
    settings = [{name: value} for name, values in varied.items() for value in values] or [{}]
    accepts = all(clone(estimator).set_params(**each)._accepts_missing for each in settings)
    return file.features(chosen, apart or (), owner, accepts)


def _deliver(frame: pd.DataFrame, out: Path | None) -> None:
    from lvm import tables

    if out is None:
        typer.echo(frame.to_csv(index=False), nl=False)
    else:
        tables.write(frame, out)
