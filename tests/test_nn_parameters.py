"""Parameters of penalties in scikit-learn's sense: read, set, checked, and never shared."""

import copy

import numpy as np
import pytest
import torch

from mtlfast import LowRank, TaskGraph
from mtlfast.linear_model import (
    MultiTaskClassifier,
    MultiTaskClassifierCV,
    MultiTaskRegressor,
    MultiTaskRegressorCV,
    strengths,
)
from mtlfast.nn import (
    GramReg,
    GraphReg,
    GraphTotalVariation,
    GroupLasso,
    PairwiseReg,
    Regularizer,
    Ridge,
    TraceNorm,
)

K, D = 5, 3
GRAPH = TaskGraph.chain(K)
INDEX = torch.tensor([[0, 1, 2], [1, 2, 4]])
TASK = np.arange(12 * K) % K
RNG = np.random.default_rng(0)
X = RNG.normal(size=(len(TASK), D))
Y = (X * (np.array([1, -1, 2]) + RNG.normal(size=(K, D)))[TASK]).sum(1) + RNG.normal(size=len(TASK))


class Sparse(Regularizer):
    """A user's term with arguments of its own."""

    has_prox = True
    is_norm = True

    def __init__(self, strength=1.0, scale=1.0, *, mask=None):
        super().__init__(strength)
        self.scale = scale
        self.mask = mask
        self.total = self.strength * self.scale  # derived
        self.offset = torch.nn.Parameter(torch.zeros(2))

    def forward(self, W):
        return self.total * W.abs().sum()

    def prox(self, W, step):
        return torch.nn.functional.softshrink(W, float(step) * self.total)


PARAMS = {
    "pairwise": (PairwiseReg(0.5, "mean"), {"strength": 0.5, "reduction": "mean"}),
    "ridge": (Ridge(2), {"strength": 2.0}),
    "trace": (TraceNorm(2), {"strength": 2.0}),
    "groups": (GroupLasso(2), {"strength": 2.0}),
    "graph": (GraphReg(GRAPH, 2), {"graph": GRAPH, "strength": 2.0, "reduction": "sum"}),
    "total variation": (
        GraphTotalVariation(GRAPH),
        {"graph": GRAPH, "strength": 1.0, "reduction": "sum"},
    ),
    "a user's": (Sparse(2, 3), {"strength": 2.0, "scale": 3, "mask": None}),
}


@pytest.mark.parametrize("name", PARAMS)
def test_parameters_are_the_arguments_of_the_constructor(name):
    term, wanted = PARAMS[name]
    assert term.get_params() == term.get_params(deep=False) == wanted
    again = type(term)(**term.get_params())
    assert repr(again) == repr(term)


def test_graphs_and_matrices_come_back_as_they_were_given():
    weight, omega = torch.nn.Parameter(torch.ones(3)), torch.eye(K)
    given = GraphReg((INDEX, weight)).get_params()["graph"]
    assert given[0] is INDEX and given[1] is weight
    assert GramReg(omega).get_params()["omega"] is omega
    factor = torch.ones(K, 2)
    low_rank = GramReg(LowRank(factor)).get_params()["omega"]
    assert isinstance(low_rank, LowRank) and low_rank.factor is factor


def test_terms_of_a_sum_go_by_position():
    both = PairwiseReg(0.5) + Sparse(2.0)
    pairs, sparse = both.terms
    assert both.get_params(deep=False) == {"terms": [pairs, sparse]}
    assert both.get_params() == {
        "terms": [pairs, sparse],
        "0": pairs, "0__strength": 0.5, "0__reduction": "sum",
        "1": sparse, "1__strength": 2.0, "1__scale": 1.0, "1__mask": None,
    }  # fmt: skip
    assert both.set_params(**{"0__strength": 3, "1": Ridge(0.1), "1__strength": 0.2}) is both
    assert [repr(term) for term in both.terms] == [
        'PairwiseReg(strength=3, reduction="sum")',
        "Ridge(strength=0.2)",
    ]
    both.set_params(terms=[TraceNorm(), GroupLasso() + Ridge()])
    assert [type(term) for term in both.terms] == [TraceNorm, GroupLasso, Ridge]


def test_setting_computes_what_was_derived_and_keeps_what_is_learned():
    term = Sparse(2.0, 3.0)
    learned, hooks = term.offset, []
    term.register_forward_hook(lambda *args: hooks.append(1))
    term.eval()
    term.set_params(strength=5)
    assert (term.strength, term.total) == (5.0, 15.0)
    assert term.offset is learned
    term(torch.ones(1, 1))
    assert hooks == [1] and not term.training


def test_a_grid_of_strengths_derives_anew():
    term = Sparse(2.0, 3.0)
    grid = strengths(term + Ridge(1.0), [10, 0.5])
    assert [(each.terms[0].strength, each.terms[0].total) for each in grid] == [(20, 60), (1, 3)]
    assert [each.terms[1].strength for each in grid] == [10, 0.5]
    assert (term.strength, term.total) == (2.0, 6.0)


def test_a_graph_in_another_form_takes_the_place_of_the_one_there():
    term = GraphReg(GRAPH, 2.0)
    W = torch.randn(K, D, dtype=torch.float64)
    dense = torch.rand(K, K, dtype=torch.float64)
    for graph in (dense, (INDEX, torch.nn.Parameter(torch.ones(3))), TaskGraph.chain(K), dense):
        assert term.set_params(graph=graph) is term
        torch.testing.assert_close(term(W), GraphReg(graph, 2.0)(W))
        assert [*term.state_dict()] == [*GraphReg(graph).state_dict()]
        assert len([*term.parameters()]) == len([*GraphReg(graph).parameters()])
    gram = GramReg(torch.eye(K), 2.0).set_params(omega=LowRank(torch.ones(K, 2)), strength=3)
    torch.testing.assert_close(gram(W.float()), GramReg(LowRank(torch.ones(K, 2)), 3)(W.float()))


BAD = [
    (PairwiseReg(), {"strength": -1}, ValueError, "PairwiseReg: strength must be finite and >= 0"),
    (PairwiseReg(), {"strength": "1"}, TypeError, "PairwiseReg: strength must be a number"),
    (PairwiseReg(), {"reduction": "max"}, ValueError, "PairwiseReg: reduction must be"),
    (PairwiseReg(), {"graph": GRAPH}, ValueError, "Invalid parameter 'graph' for PairwiseReg. V"),
    (GraphReg(GRAPH), {"graph": (1, 2, 3)}, ValueError, "GraphReg: a graph of plain tensors must"),
    (Sparse(), {"strength": -1}, ValueError, "Sparse: strength must be finite and >= 0, got -1.0"),
    (Ridge() + Sparse(), {"2__scale": 1}, ValueError, "Invalid parameter '2' for Sum. Valid par"),
    (Ridge() + Sparse(), {"terms": []}, ValueError, "Sum: terms must hold at least one"),
    (Ridge() + Sparse(), {"1": 3}, TypeError, "Sum: terms must be regularizers, got int"),
    (Ridge() + Sparse(), {"0__strength": 2, "1__size": 1}, ValueError, "Invalid parameter 'size'"),
]


@pytest.mark.parametrize(("term", "params", "error", "words"), BAD)
def test_what_is_refused_sets_nothing(term, params, error, words):
    before = repr(term), term.get_params()
    with pytest.raises(error, match=words):
        term.set_params(**params)
    assert (repr(term), term.get_params()) == before


def test_arguments_that_are_not_kept_cannot_be_set():
    class Private(Regularizer):
        def __init__(self, strength=1.0, mask=None):
            super().__init__(strength)
            self._mask = mask

    assert Private().get_params() == {"strength": 1.0}
    words = r"Private.set_params: .* must be kept as attributes of their names, got none for mask"
    with pytest.raises(ValueError, match=words):
        Private().set_params(strength=2.0)
    assert MultiTaskRegressor(Private()).set_params(max_iter=7).max_iter == 7


# Copies ----------------------------------------------------------------------------------------


class Holding(Regularizer):
    """A user's term that holds graphs in ways of its own."""

    def __init__(self, links):
        super().__init__()
        self.links = links


def test_a_clone_shares_graphs_and_nothing_else():
    weight = torch.nn.Parameter(torch.ones(3))
    inside = Holding({"near": [(GRAPH, 1.0)]})
    terms = GraphReg(GRAPH, 2.0) + GraphReg((INDEX, weight)) + Sparse(mask=[1, 2]) + inside
    other = terms.__sklearn_clone__()
    assert repr(other) == repr(terms)
    assert other.terms[0].graph is GRAPH
    assert other.terms[3].links["near"][0][0] is GRAPH
    assert other.terms[1].edge_weight is not weight
    assert other.terms[2].mask == [1, 2] and other.terms[2].mask is not terms.terms[2].mask
    other.set_params(**{"0__strength": 7})
    assert terms.terms[0].strength == 2.0
    assert copy.deepcopy(terms).terms[0].strength == 2.0


def test_setting_on_a_copy_never_changes_the_original():
    base = pytest.importorskip("sklearn.base", reason="needs scikit-learn")
    penalty = PairwiseReg(0.5) + GraphReg(GRAPH, 2.0)
    model = MultiTaskRegressor(penalty)
    shared = type(model)(**model.get_params(deep=False))
    for other in (base.clone(model), copy.copy(model), copy.deepcopy(model), shared):
        other.set_params(penalty__0__strength=9.0, penalty__1__reduction="mean", tol=1e-3)
        assert other.penalty.terms[0].strength == 9.0
        assert other.penalty.terms[1].reduction == "mean"
        assert [term.strength for term in penalty.terms] == [0.5, 2.0]
        assert penalty.terms[1].reduction == "sum"
        assert model.penalty is penalty
    assert base.clone(model).penalty.terms[1].graph is GRAPH
    listed = base.clone(MultiTaskRegressor([penalty, Ridge()]))
    assert listed.penalty[0].terms[1].graph is GRAPH


@pytest.mark.parametrize("estimator", [MultiTaskRegressor, MultiTaskClassifier])
def test_parameters_of_an_estimator_reach_into_its_penalty(estimator):
    ridge = Ridge(0.1)
    model = estimator([PairwiseReg(0.5), ridge])
    deep = model.get_params()
    assert deep["penalty__0__strength"] == 0.5 and deep["penalty__1"] is ridge
    assert "penalty__0__strength" not in model.get_params(deep=False)
    model.set_params(penalty__0__strength=2.0, penalty__1=TraceNorm(3.0))
    assert [term.strength for term in model.penalty] == [2.0, 3.0]
    model.set_params(penalty=Ridge(1.0), penalty__strength=4.0)
    assert model.get_params()["penalty__strength"] == 4.0
    nested = estimator([Ridge(1.0) + TraceNorm(2.0)])
    assert nested.set_params(penalty__0__1__strength=5.0).penalty[0].terms[1].strength == 5.0


@pytest.mark.parametrize("estimator", [MultiTaskRegressorCV, MultiTaskClassifierCV])
def test_a_grid_of_penalties_is_reached_by_position(estimator):
    grid = strengths(Ridge(1.0) + PairwiseReg(1.0), [10, 1])
    model = estimator(grid)
    model.set_params(penalty_grid__1__0__strength=0.25, cv=3)
    assert model.penalty_grid[1].terms[0].strength == 0.25
    assert grid[1].terms[0].strength == 1.0 and model.cv == 3
    assert model.get_params()["penalty_grid__0__1__strength"] == 10.0


REFUSED = [
    ({"penalty__strength": -1.0}, "PairwiseReg: strength must be finite and >= 0, got -1.0"),
    ({"penalty__graph": 1}, "Invalid parameter 'graph' for PairwiseReg"),
    ({"strength": 1.0}, "Invalid parameter 'strength' for MultiTaskRegressor"),
    ({"strength__0": 1.0}, "Invalid parameter 'strength' for MultiTaskRegressor"),
    ({"tol": 3.0, "penalty__strength": -1.0}, "PairwiseReg: strength must be finite"),
    ({"penalty": None, "penalty__strength": 1.0}, "Invalid parameter 'strength' for penalty, whi"),
    ({"penalty": [Ridge()], "penalty__1__strength": 1.0}, "Invalid parameter '1' for penalty, whi"),
    ({"penalty": [Ridge()], "penalty__x": 1.0}, "Invalid parameter 'x' for penalty, which holds"),
]


@pytest.mark.parametrize(("params", "words"), REFUSED)
def test_an_estimator_refuses_before_it_sets(params, words):
    model = MultiTaskRegressor(PairwiseReg(0.5))
    with pytest.raises(ValueError, match=words):
        model.set_params(**params)
    assert model.tol == 1e-6 and model.penalty.strength == 0.5


# Searches --------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [PairwiseReg, lambda: Sparse(mask=[3])], ids=["pairs", "user"])
def test_strengths_go_into_a_grid(make):
    search = pytest.importorskip("sklearn.model_selection", reason="needs scikit-learn")
    import sklearn

    penalty = make()
    with sklearn.config_context(enable_metadata_routing=True):
        model = MultiTaskRegressor(penalty, tasks=range(K))
        model.set_fit_request(task_ids=True).set_score_request(task_ids=True)
        grid = {"penalty__strength": [1e5, 0.01], "fit_intercept": [True, False]}
        found = search.GridSearchCV(model, grid, cv=3).fit(X, Y, task_ids=TASK)
    assert found.best_params_["penalty__strength"] == 0.01
    assert found.best_estimator_.penalty.strength == 0.01
    assert penalty.strength == 1.0
    wanted = MultiTaskRegressor(
        make().set_params(strength=0.01),
        tasks=range(K),
        fit_intercept=found.best_params_["fit_intercept"],
    )
    np.testing.assert_allclose(found.best_estimator_.coef_, wanted.fit(X, Y, TASK).coef_)


@pytest.mark.parametrize(
    ("model", "name", "y"),
    [
        (MultiTaskRegressor(Ridge() + GroupLasso(0.0)), "penalty__0__strength", Y),
        (MultiTaskRegressor([Ridge(), GroupLasso(0.0)]), "penalty__0__strength", Y),
        (MultiTaskClassifier(Ridge()), "penalty__strength", Y > 0),
        (MultiTaskRegressorCV([Ridge(1e5), Ridge(1e6)], cv=2), "penalty_grid__0__strength", Y),
        (MultiTaskClassifierCV([Ridge(1e5), Ridge(1e6)], cv=2), "penalty_grid__0__strength", Y > 0),
    ],
    ids=["sum", "list", "classifier", "cv", "classifier cv"],
)
def test_a_search_over_one_task(model, name, y):
    search = pytest.importorskip("sklearn.model_selection", reason="needs scikit-learn")
    found = search.GridSearchCV(model, {name: [1e6, 0.1]}, cv=3).fit(X, y)
    assert found.best_params_ == {name: 0.1}
    assert found.best_estimator_.get_params()[name] == 0.1
