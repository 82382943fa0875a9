"""The families of the command line: what each is for, and the estimator that its options describe."""

from __future__ import annotations

from typing import Any, NamedTuple, NoReturn

MAX_NUMBERS = 10_000  # of components, in one range
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
GAUSSIAN = ("--covariance", "--reg-covar", "--prior", "--noise")
T_COVARIANCES = ("full", "diag")
T_OPTIONS = ("--covariance", "--reg-covar", "--degrees-of-freedom")
MIXED_OPTIONS = ("--block", "--alpha", "--reg-covar", "--handle-unknown")
CATEGORICAL = ("--alpha", "--handle-unknown")
BERNOULLI = ("--alpha", "--binarize")
POISSON = ("--exposure-column", "--rates-prior")
VON_MISES = ("--normalize", "--max-concentration")
# One line per value of --family; `options` are those of its own that it takes.
FAMILIES = {
    "gaussian": FamilyEntry("real numbers", "GaussianMixture", "means, covariances", GAUSSIAN, COVARIANCES),
    "categorical": FamilyEntry("text or numbers", "CategoricalMixture", "probability of each category", CATEGORICAL),
    "bernoulli": FamilyEntry("zeros and ones", "BernoulliMixture", "probability of a 1 per column", BERNOULLI),
    "student_t": FamilyEntry("with outliers", "StudentTMixture", "means, scatters, tails", T_OPTIONS, T_COVARIANCES),
    "exponential": FamilyEntry("amounts >= 0", "ExponentialMixture", "scale (mean) per column", ("--rates-prior",)),
    "gamma": FamilyEntry("amounts > 0", "GammaMixture", "shape, scale per column", ()),
    "von_mises_fisher": FamilyEntry("rows of length 1", "VonMisesFisherMixture", "direction, concentration", VON_MISES),
    "multinomial": FamilyEntry("counts (words, choices)", "MultinomialMixture", "probability per column", ("--alpha",)),
    "negative_binomial": FamilyEntry("counts (varied)", "NegativeBinomialMixture", "mean, size per column", ()),
    "poisson": FamilyEntry("counts (events)", "PoissonMixture", "rate per column", POISSON),
    "mixed": FamilyEntry("columns of several kinds", "MixedMixture", "those of the blocks", MIXED_OPTIONS),
}


def spelled(family: str) -> str:
    """Return a family's name, which may be written with hyphens, as options are."""
    name = family.replace("-", "_")
    return name if name in FAMILIES else family


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


def numbers_of(text: str) -> list[int]:
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


def number_or_word(text: str) -> float | str:
    """Return a number where the text is one."""
    try:
        return float(text)
    except ValueError:
        return text


def prior_of(text: str | None) -> str | dict[str, float] | None:
    """Return the prior of Gaussians that an option such as "default" or "shrinkage=0.1,dof=8" gives."""
    if text is None or text == "default":
        return text
    try:
        return {name.strip(): float(number) for name, number in (part.split("=") for part in text.split(","))}
    except ValueError:
        raise ValueError(f"--prior must be default, or look like shrinkage=0.1,dof=8,scale=2, got {text!r}.") from None


def pair_of(option: str, text: str | None) -> tuple[float, float] | None:
    """Return the two numbers that an option gives, None where it is not given."""
    if text is None:
        return None
    try:
        first, second = (float(part) for part in text.split(","))
    except ValueError:
        raise ValueError(f"{option} must be two numbers, as 2,0.5, got {text!r}.") from None
    return first, second


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
