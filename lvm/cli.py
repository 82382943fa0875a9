"""The command line: `python -m lvm fit | predict | score | sample | families | warmup`."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer
from typer.core import TyperGroup

if TYPE_CHECKING:
    import pandas as pd

    from lvm.selection import Selection
    from lvm.tables import DataFile

USAGE_ERROR = 2
MAX_NUMBERS = 10_000
RESULTS = ("model.lvm", "assignments.csv", "selection.csv", "criterion.png", "clusters.png")  # the last two by --plot


class _Family(NamedTuple):
    data: str
    estimator: str
    parameters: str
    options: tuple[str, ...]


# One line per value of --family; `options` are those of --covariance, --alpha, --reg-covar that it takes.
FAMILIES = {
    "gaussian": _Family("real numbers", "GaussianMixture", "means, covariances", ("--covariance", "--reg-covar")),
    "bernoulli": _Family("zeros and ones", "BernoulliMixture", "probability of a 1 per column", ("--alpha",)),
    "multinomial": _Family("counts (words, choices)", "MultinomialMixture", "probability of each column", ("--alpha",)),
}
COVARIANCES = ("full", "tied", "diag", "spherical")


class _OneLineErrors(TyperGroup):
    """Turns a user's mistakes into one line on stderr and exit code 2, without a traceback."""

    def make_context(self, info_name: Any, args: list[str], parent: Any = None, **extra: Any) -> Any:
        if not args:  # prints the help
            return super().make_context(info_name, args, parent, **extra)
        with _one_line_errors():
            return super().make_context(info_name, args, parent, **extra)

    def invoke(self, ctx: Any) -> Any:
        with _one_line_errors():
            return super().invoke(ctx)


@contextmanager
def _one_line_errors() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise
    except (ValueError, OSError, ImportError) as error:
        message = str(error)
    except Exception as error:
        # click's own errors, by their method: where their class lives depends on typer's version.
        if not hasattr(error, "format_message"):
            raise
        message = error.format_message()
    else:
        return
    typer.echo("error: " + " ".join(message.split()), err=True)
    raise typer.Exit(USAGE_ERROR)


app = typer.Typer(
    cls=_OneLineErrors,
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
Seed = Annotated[int, typer.Option(help="Seed: the same seed gives the same result, bit for bit.", min=0)]


@app.command()
def fit(
    data: Data,
    components: Annotated[
        str, typer.Option("--components", "-k", help="Numbers of components to try: 3, or 1:6 (both ends), or 2,4,8.")
    ] = "1:6",
    family: Annotated[str, typer.Option(help=f"Component density: {', '.join(FAMILIES)}.")] = "gaussian",
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
    alpha: Annotated[float | None, typer.Option(help="Prior on probabilities, >= 1.", show_default="1")] = None,
    reg_covar: Annotated[float | None, typer.Option(help="Added to every variance.", show_default="1e-6")] = None,
    tol: Annotated[float | None, typer.Option(help="Gain per row, in nats, that ends EM.", show_default="1e-7")] = None,
    max_iter: Annotated[int | None, typer.Option(help="Most iterations of EM.", show_default="1000")] = None,
    acceleration: Annotated[
        str | None, typer.Option(help="anderson: far fewer iterations where EM is slow.", show_default="plain EM")
    ] = None,
    n_init: Annotated[int, typer.Option(help="Number of starts of each fit.")] = 5,
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

    if out is not None and not out.name:
        raise ValueError(f"--out {str(out)!r} names no folder; give one to make, such as --out results.")
    if plot and out is None:
        raise ValueError("--plot needs a folder to draw into; give --out too.")
    if plot and find_spec("matplotlib") is None:
        raise ValueError("--plot needs matplotlib: pip install 'lvm[plot]'.")
    settings = {"--covariance": covariance, "--reg-covar": reg_covar, "--alpha": alpha}
    estimator, varied = _estimator(family, settings)
    given: dict[str, Any] = {"tol": tol, "max_iter": max_iter, "n_init": n_init, "random_state": seed}
    given |= {"n_jobs": jobs, "acceleration": acceleration}
    estimator.set_params(**{name: value for name, value in given.items() if value is not None})
    numbers = _numbers(components)

    file = tables.read(data)
    roles = [name for name in (weight_column, label_column) if name is not None]
    X = file.features(None if columns is None else [name.strip() for name in columns.split(",")], roles)
    weight = None if weight_column is None else file.weights(weight_column)
    labels = None if label_column is None else file.labels(label_column)
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
                **varied,
            )
        assigned = tables.assignments(selection.best.predict_proba(X), labels)
        if not quiet:
            for message in dict.fromkeys(str(warning.message) for warning in caught):
                typer.echo(f"warning: {message}", err=True)
            screen = reports.console()
            reports.print_selection(screen, selection)
            counts = assigned["component"].value_counts().reindex(range(selection.best.n_components), fill_value=0)
            reports.print_mixture(screen, selection.best, counts, len(file))
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
def predict(model: Model, data: Data, out: Out = None) -> None:
    """Assign rows to components: CSV of row, component, and the probability of each."""
    from lvm import tables

    estimator, X = _model_and_rows(model, data)
    _deliver(tables.assignments(estimator.predict_proba(X)), out)


@app.command()
def score(
    model: Model,
    data: Data,
    per_row: Annotated[bool, typer.Option("--per-row", help="List each row's log-likelihood, as CSV.")] = False,
) -> None:
    """Print the log-likelihood of data under a model, in nats."""
    import pandas as pd

    estimator, X = _model_and_rows(model, data)
    each = estimator.score_samples(X)
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

    rows = [(name, f.data, f.estimator, f.parameters, ", ".join(f.options)) for name, f in FAMILIES.items()]
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


def _estimator(family: str, settings: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Return the estimator of a family with the settings that it takes, and those to vary."""
    import lvm

    if family not in FAMILIES:
        raise ValueError(f"--family must be one of {', '.join(FAMILIES)}, got {family!r}.")
    chosen = FAMILIES[family]
    settings = {option: value for option, value in settings.items() if value is not None}
    for option in settings:
        if option not in chosen.options:
            owners = " or ".join(name for name, other in FAMILIES.items() if option in other.options)
            raise ValueError(f"{option} is for --family {owners}, got --family {family}; leave it out.")
    kinds = settings.pop("--covariance", None)
    estimator = getattr(lvm, chosen.estimator)()
    estimator.set_params(**{option[2:].replace("-", "_"): value for option, value in settings.items()})
    if kinds is None:
        return estimator, {}
    listed = list(COVARIANCES) if kinds == "all" else list(dict.fromkeys(kind.strip() for kind in kinds.split(",")))
    for kind in listed:
        if kind not in COVARIANCES:
            raise ValueError(f"--covariance must be of {', '.join(COVARIANCES)}, or all, got {kind!r}.")
    return estimator, {"covariance_type": listed}


def _numbers(text: str) -> list[int]:
    """Return the numbers of components that -k asks for, ascending."""
    numbers: set[int] = set()
    for part in text.split(","):
        ends = part.strip().split(":")
        if len(ends) > 2 or not all(end.strip().isdecimal() for end in ends):
            raise ValueError(f"-k must look like 3, 1:6 or 2,4,8, got {text!r}.")
        first, last = int(ends[0]), int(ends[-1])
        if first < 1 or last < first:
            raise ValueError(f"-k must name numbers from 1 up, a range from low to high, got {text!r}.")
        if last - first > MAX_NUMBERS:
            raise ValueError(f"-k must name at most {MAX_NUMBERS:,} numbers, got {text!r}.")
        numbers.update(range(first, last + 1))
    return sorted(numbers)


def _model_and_rows(model: Path, data: str) -> tuple[Any, pd.DataFrame | Any]:
    """Return a model, and the columns of the data that it was fitted on, in its order."""
    import lvm
    from lvm import tables

    estimator = lvm.load(model)
    file: DataFile = tables.read(data)
    names = getattr(estimator, "feature_names_in_", None)
    if names is not None:
        return estimator, file.features(list(names), owner=" that the model needs")
    if len(file.names) != estimator.n_features_in_:
        raise ValueError(
            f"{model} was fitted on {estimator.n_features_in_} columns without names, {data} has {len(file.names)}; "
            "give a file of those columns alone."
        )
    return estimator, file.features(None).to_numpy()


def _deliver(frame: pd.DataFrame, out: Path | None) -> None:
    from lvm import tables

    if out is None:
        typer.echo(frame.to_csv(index=False), nl=False)
    else:
        tables.write(frame, out)
