"""Joint linear models: K regressions or classifications, fitted together to the optimum.

Estimators with scikit-learn's conventions, which are scikit-learn's estimators where it is
installed and do without it where not. Penalties are the regularizers of :mod:`mtlfast.nn`.
"""

from mtlfast.linear_model._base import ConvergenceWarning
from mtlfast.linear_model._classifier import MultiTaskClassifier
from mtlfast.linear_model._cv import MultiTaskClassifierCV, MultiTaskRegressorCV
from mtlfast.linear_model._estimators import MultiTaskRegressor
from mtlfast.linear_model._selection import path, strengths

__all__ = [
    "ConvergenceWarning",
    "MultiTaskClassifier",
    "MultiTaskClassifierCV",
    "MultiTaskRegressor",
    "MultiTaskRegressorCV",
    "path",
    "strengths",
]
