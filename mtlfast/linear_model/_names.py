"""Names of features: learned from a data frame, and compared with those of the next one."""

import warnings

import numpy as np

from mtlfast.linear_model._base import outside


def feature_names(X):
    """The names of a data frame's columns where all are strings, else None."""
    columns = getattr(X, "columns", None)
    if columns is None or isinstance(X, np.ndarray):
        return None
    names = list(columns)
    if not names or not all(isinstance(name, str) for name in names):
        return None
    return np.asarray(names, dtype=object)


def check_features(function, estimator, names, count):
    """X in ``predict`` has as many features as in ``fit``, and the same names."""
    name, wanted = type(estimator).__name__, estimator.n_features_in_
    _check_names(function, name, getattr(estimator, "feature_names_in_", None), names)
    if count != wanted:
        raise ValueError(
            f"{function}: X has {count} features, but {name} is expecting {wanted} features as "
            "input"
        )


def _check_names(function, estimator, fitted, given):
    if fitted is None or given is None:
        if (fitted is None) != (given is None):
            has = "has" if fitted is None else "does not have valid"
            was = "without" if fitted is None else "with"
            warnings.warn(
                f"X {has} feature names, but {estimator} was fitted {was} feature names",
                UserWarning,
                stacklevel=outside(),
            )
        return
    if len(fitted) == len(given) and (fitted == given).all():
        return
    text = f"{function}: The feature names should match those that were passed during fit.\n"
    unseen, missing = sorted({*given} - {*fitted}), sorted({*fitted} - {*given})
    for what, names in (
        ("Feature names unseen at fit time:", unseen),
        ("Feature names seen at fit time, yet now missing:", missing),
    ):
        if names:
            text += "\n".join([what, *(f"- {name}" for name in names[:5])]) + "\n"
            text += "- ...\n" if len(names) > 5 else ""
    if not (unseen or missing):
        text += "Feature names must be in the same order as they were in fit.\n"
    raise ValueError(text)
