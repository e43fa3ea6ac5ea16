"""The textbook training script with a double loop over tasks, and the same script mended by one
line.

A small network with one linear head per task. The regularizer pulls the heads together: the
textbook loops over all pairs i < j in Python; ``pairwise_reg`` takes the same list of heads and
counts both orders of a pair, so half of it is the textbook's sum.
"""

import argparse
import statistics
import time

import torch
from torch import nn

from mtlfast import pairwise_reg

STRENGTH = 0.01


class MultiTaskNet(nn.Module):
    def __init__(self, num_tasks, num_features=20, num_hidden=32):
        super().__init__()
        self.shared = nn.Sequential(nn.Linear(num_features, num_hidden), nn.ReLU())
        self.heads = nn.ModuleList(nn.Linear(num_hidden, 1) for _ in range(num_tasks))

    def forward(self, x, task):
        return self.heads[task](self.shared(x))


def task_loss(model, batches):
    losses = [nn.functional.mse_loss(model(x, task), y) for task, (x, y) in enumerate(batches)]
    return torch.stack(losses).mean()


def textbook_regularizer(heads):
    total = 0.0
    for i in range(len(heads)):
        for j in range(i + 1, len(heads)):
            total = total + (heads[i].weight - heads[j].weight).square().sum()
    return total


def mended_regularizer(heads):
    return 0.5 * pairwise_reg([head.weight for head in heads])  # the one line


def make_batches(num_tasks, rows=8, num_features=20):
    """Linear tasks near a common one, with noise."""
    common = torch.randn(num_features, 1)
    batches = []
    for _ in range(num_tasks):
        x = torch.randn(rows, num_features)
        w = common + 0.1 * torch.randn(num_features, 1)
        batches.append((x, x @ w + 0.1 * torch.randn(rows, 1)))
    return batches


def train(num_tasks, regularizer, steps, seed):
    """Losses of all steps, and the median time of the regularizer's value and gradient."""
    torch.manual_seed(seed)
    batches = make_batches(num_tasks)
    model = MultiTaskNet(num_tasks)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    losses, times = [], []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = task_loss(model, batches)
        loss.backward()
        began = time.perf_counter()
        penalty = STRENGTH * regularizer(model.heads)
        penalty.backward()  # gradients add up with those of the task loss
        times.append(time.perf_counter() - began)
        optimizer.step()
        losses.append(loss.item() + penalty.item())
    return torch.tensor(losses, dtype=torch.float64), statistics.median(times)


def compare(num_tasks, steps, seed):
    """Seconds of the loop, seconds of mtlfast, and the largest relative difference of a loss."""
    loop_losses, loop = train(num_tasks, textbook_regularizer, steps, seed)
    losses, ours = train(num_tasks, mended_regularizer, steps, seed)
    difference = ((losses - loop_losses).abs() / loop_losses).max().item()
    return loop, ours, difference


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--quick", action="store_true", help="fewer tasks, for a smoke run")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, help="threads for torch and mtlfast")
    parser.add_argument("--steps", type=int, default=3, help="training steps of each script")
    options = parser.parse_args(argv)
    if options.threads:
        torch.set_num_threads(options.threads)

    sizes = (4, 16, 64) if options.quick else (10, 30, 100, 300)
    compare(sizes[0], options.steps, options.seed)  # the first call of anything is slow
    print("One step of the regularizer, value and gradient, in milliseconds:\n")
    print(f"{'tasks':>6}{'double loop':>14}{'mtlfast':>10}{'ratio':>9}   losses differ by")
    for num_tasks in sizes:
        loop, ours, difference = compare(num_tasks, options.steps, options.seed)
        print(
            f"{num_tasks:6}{1e3 * loop:14.2f}{1e3 * ours:10.3f}{loop / ours:8.0f}×"
            f"   {difference:.0e} (relative)"
        )


if __name__ == "__main__":
    main()
