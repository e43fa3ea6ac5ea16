"""What the estimators take from scikit-learn where it is installed, and stand-ins where not."""

import inspect
import sys

try:
    from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
    from sklearn.exceptions import ConvergenceWarning, DataConversionWarning, NotFittedError
except ImportError:

    class ConvergenceWarning(UserWarning):  # type: ignore[no-redef]
        """A fit stopped before its tolerance was reached."""

    class DataConversionWarning(UserWarning):  # type: ignore[no-redef]
        """Data came in a form that had to be read as another."""

    class NotFittedError(ValueError, AttributeError):  # type: ignore[no-redef]
        """An estimator was used before ``fit``."""

    class RegressorMixin:  # type: ignore[no-redef]
        """Nothing: ``score`` is the estimators' own."""

    class ClassifierMixin:  # type: ignore[no-redef]
        """Nothing: ``score`` is the estimators' own."""

    class BaseEstimator:  # type: ignore[no-redef]
        """Parameters by the names of the constructor's arguments."""

        @classmethod
        def _parameter_names(cls):
            return [name for name in inspect.signature(cls.__init__).parameters if name != "self"]

        def get_params(self, deep=True):
            """The constructor's arguments by name; ``deep`` makes no difference here."""
            return {name: getattr(self, name) for name in self._parameter_names()}

        def set_params(self, **params):
            """Sets constructor arguments by name and returns the estimator."""
            known = self._parameter_names()
            for name, value in params.items():
                if name not in known:
                    raise ValueError(
                        f"Invalid parameter {name!r} for estimator {type(self).__name__}. "
                        f"Valid parameters are: {known}."
                    )
                setattr(self, name, value)
            return self

        def __repr__(self):
            signature = inspect.signature(type(self).__init__).parameters
            changed = [
                f"{name}={value!r}"
                for name, value in self.get_params(deep=False).items()
                if value is not signature[name].default
            ]
            return f"{type(self).__name__}({', '.join(changed)})"


def copy_unfitted(estimator):
    """A new estimator with the same constructor arguments, which are shared, not copied."""
    return type(estimator)(**estimator.get_params(deep=False))


def outside():
    """The ``stacklevel`` with which a warning of the caller points at the first frame outside."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals["__name__"].startswith(__package__):
        frame, level = frame.f_back, level + 1
    return level
