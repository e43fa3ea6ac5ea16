"""Two regularizers of one's own, in a sum with one of mtlfast's, fitted to the optimum."""

import torch

from mtlfast.linear_model import MultiTaskRegressor
from mtlfast.nn import PairwiseReg, Quadratic, Regularizer


# a norm: its value and its prox
class Sparse(Regularizer):
    """strength · Σ |w|: few parameters in all tasks."""

    has_prox = True
    is_norm = True

    def forward(self, W):
        return self.strength * W.abs().sum()

    def prox(self, W, step):
        return torch.nn.functional.softshrink(W, float(step) * self.strength)


# a quadratic: nothing but its numbers
class Decay(Regularizer):
    """strength · ½‖W‖²"""

    def forward(self, W):
        return self.strength / 2 * W.square().sum()

    def quadratic(self, num_tasks):
        return Quadratic(ridge=self.strength / 2)


# use
def main():
    torch.manual_seed(0)
    task, X = torch.arange(600) % 6, torch.randn(600, 4)  # six tasks, one useful feature
    y = X[:, 0] + 0.1 * torch.randn(600)
    penalty = Sparse(9.0) + Decay(0.1) + PairwiseReg(0.1)
    model = MultiTaskRegressor(penalty).fit(X, y, task)
    print((model.coef_ != 0).sum(0).tolist(), model.gap_ < 1e-6)
    print((Sparse(9.0) + Decay(0.1)).has_prox)  # known for one prox beside ridges


if __name__ == "__main__":
    main()
