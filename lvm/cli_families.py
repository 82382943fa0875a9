"""The families of the command line: what each is for, and the estimator that its options describe."""

from __future__ import annotations

from typing import Any, NamedTuple, NoReturn

DRAWN = ("gaussian", "student_t", "bernoulli", "categorical", "multinomial")  # by --plot


class FamilyEntry(NamedTuple):
    """What the command line knows of a family: its data, estimator, parameters, options and covariance structures."""

    data: str
    estimator: str
    parameters: str
    options: tuple[str, ...]
    covariances: tuple[str, ...] = ()


SYNONYMS = ("full", "tied", "diag", "spherical")  # of VVV, EEE, VVI, VII
STRUCTURES = ("EII", "VII", "EEI", "VEI", "EVI", "VVI", "EEE", "VEE", "EVE", "VVE", "EEV", "VEV", "EVV", "VVV")
COVARIANCES = (*SYNONYMS, *STRUCTURES)
T_COVARIANCES = ("full", "diag")
T_OPTIONS = ("--covariance", "--reg-covar", "--degrees-of-freedom")
MIXED_OPTIONS = ("--block", "--alpha", "--reg-covar")
# One line per value of --family; `options` are those of its own that it takes.
FAMILIES = {
    "gaussian": FamilyEntry("real numbers", "GaussianMixture", "means, covariances", T_OPTIONS[:2], COVARIANCES),
    "categorical": FamilyEntry("text or numbers", "CategoricalMixture", "probability of each category", ("--alpha",)),
    "bernoulli": FamilyEntry("zeros and ones", "BernoulliMixture", "probability of a 1 per column", ("--alpha",)),
    "student_t": FamilyEntry("with outliers", "StudentTMixture", "means, scatters, tails", T_OPTIONS, T_COVARIANCES),
    "exponential": FamilyEntry("amounts >= 0", "ExponentialMixture", "scale (mean) per column", ()),
    "gamma": FamilyEntry("amounts > 0", "GammaMixture", "shape, scale per column", ()),
    "von_mises_fisher": FamilyEntry("rows of length 1", "VonMisesFisherMixture", "direction, concentration", ()),
    "multinomial": FamilyEntry("counts (words, choices)", "MultinomialMixture", "probability per column", ("--alpha",)),
    "negative_binomial": FamilyEntry("counts (varied)", "NegativeBinomialMixture", "mean, size per column", ()),
    "poisson": FamilyEntry("counts (events)", "PoissonMixture", "rate per column", ("--exposure-column",)),
    "mixed": FamilyEntry("columns of several kinds", "MixedMixture", "those of the blocks", MIXED_OPTIONS),
}


def estimator_of(family: str, settings: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Return the estimator of a family with the settings that it takes, and those to vary."""
    import lvm

    chosen = FAMILIES.get(family) or announced_family(family)
    settings = {option: value for option, value in settings.items() if value is not None}
    for option in settings:
        if option not in chosen.options:
            owners = " or ".join(name for name, other in FAMILIES.items() if option in other.options)
            raise ValueError(f"{option} is for --family {owners}, got --family {family}; leave it out.")
    settings.pop("--exposure-column", None)  # of the data
    if family == "mixed":
        return lvm.MixedMixture(settings.pop("--block", None) or _no_blocks(), **_arguments(settings)), {}
    kinds = settings.pop("--covariance", None)
    estimator = getattr(lvm, chosen.estimator)() if family in FAMILIES else lvm.MixtureModel(family)
    estimator.set_params(**_arguments(settings))
    if kinds is None:
        return estimator, {}
    every = STRUCTURES if chosen.covariances == COVARIANCES else chosen.covariances
    named = every if kinds == "all" else (kind.strip() for kind in kinds.split(","))
    listed = list(dict.fromkeys(named))
    for kind in listed:
        if kind not in chosen.covariances:
            raise ValueError(f"--covariance must be of {', '.join(chosen.covariances)}, or all, got {kind!r}.")
    return estimator, {"covariance_type": listed}


def number_or_word(text: str) -> float | str:
    """Return a number where the text is one."""
    try:
        return float(text)
    except ValueError:
        return text


def announced_family(family: str) -> FamilyEntry:
    """Return what to know of a family that an installed package announces."""
    from lvm.estimators.generic import announcements

    others = announcements()
    if family not in others:
        raise ValueError(f"--family must be one of {', '.join([*FAMILIES, *others])}, got {family!r}.")
    if others[family].problem is not None:
        raise ValueError(f"--family {family} of {others[family].package} cannot be used: {others[family].problem}")
    return FamilyEntry(others[family].summary, "MixtureModel", others[family].parameters, ())


def blocks_of(texts: list[str] | None) -> list[tuple[str, str, list[str]]] | None:
    """Return the blocks that options such as "gaussian:height,weight" or "size=gaussian:height" describe."""
    blocks = []
    for text in texts or ():
        described, colon, columns = text.partition(":")
        name, equals, family = described.rpartition("=")
        names = [column.strip() for column in columns.split(",") if column.strip()]
        if not colon or not family.strip() or not names or (equals and not name.strip()):
            raise ValueError(
                f"--block must look like gaussian:height,weight or size=gaussian:height,weight, got {text!r}."
            )
        blocks.append(((name or family).strip(), family.strip(), names))
    return blocks or None


def _no_blocks() -> NoReturn:
    raise ValueError("--family mixed needs blocks: --block gaussian:height,weight --block categorical:colour.")


def _arguments(settings: dict[str, Any]) -> dict[str, Any]:
    return {option[2:].replace("-", "_"): value for option, value in settings.items()}
