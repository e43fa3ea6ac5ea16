"""Jobs of the pairwise distance, and what one would write instead."""

import functools

import floor
import torch
from timing import Job, compiled, gradient_of

from mtlfast import pairwise_add_grad_, pairwise_prox, pairwise_prox_, pairwise_reg


def double_loop(W):
    total = 0
    for i in range(len(W)):
        for j in range(len(W)):
            if i != j:
                total = total + ((W[i] - W[j]) ** 2).sum()
    return total


def expanded(W):
    return 2 * len(W) * (W * W).sum() - 2 * W.sum(0).square().sum()


def centred(W):
    return 2 * len(W) * (W - W.mean(0)).square().sum()


def cdist(W):
    return torch.cdist(W, W, compute_mode="use_mm_for_euclid_dist").square().sum()


def tasks(num_tasks, dim, device="cpu"):
    make = torch.Generator(device).manual_seed(0)
    return torch.randn(num_tasks, dim, generator=make, device=device)


def value_and_gradient(
    num_tasks, dim, *, loop=100, wide=10_000, compile=True, device="cpu", dtype=torch.float32
):
    """Through autograd. ``loop`` and ``wide``: the most tasks for the double loop and for K × K."""
    W = tasks(num_tasks, dim, device).to(dtype).requires_grad_()
    ways = {"mtlfast": pairwise_reg, "eager expanded": expanded, "eager centred": centred}
    if compile:
        ways["torch.compile expanded"] = None
    if compile and W.is_cpu:
        ways["torch.compile centred"] = None
    if num_tasks <= wide:
        ways["cdist²"] = cdist
    if num_tasks <= loop:
        ways["double loop"] = double_loop
    calls = {}
    for name, way in ways.items():
        if way is None:
            way = compiled(expanded if name.endswith("expanded") else centred)
            gradient_of(lambda way=way: way(W), W)()  # compiles
        calls[name] = gradient_of(lambda way=way: way(W), W)
    copied = floor.value_and_gradient(W.detach()) if W.is_cpu else None
    tolerance = 2e-3 if dtype == torch.float32 else 3e-2  # of the eager sums
    return Job(calls, copied, 3 * W.itemsize * W.numel(), tolerance=tolerance)


def value(num_tasks, dim):
    W = tasks(num_tasks, dim)
    ways = {"mtlfast": pairwise_reg, "eager expanded": expanded, "eager centred": centred}
    return Job({name: lambda way=way: way(W) for name, way in ways.items()})


def prox(num_tasks, dim, step=1e-6):
    W = tasks(num_tasks, dim)

    def eager():
        mean = W.mean(0)
        return mean + (W - mean) / (1 + 4 * num_tasks * step)

    ways = {"mtlfast": lambda: pairwise_prox(W, step), "eager": eager}
    return Job(ways, floor.value_and_gradient(W), 3 * 4 * W.numel())


def add_gradient(num_tasks, dim):
    """Into a gradient that is there, without autograd; rivals in their best form."""
    W, grad = tasks(num_tasks, dim), torch.zeros(num_tasks, dim)
    leaf = W.clone().requires_grad_()
    leaf.grad = torch.zeros_like(leaf)

    def by_hand(grad):
        grad.add_(W - W.mean(0), alpha=1e-9 * 4 * num_tasks)
        return grad

    def accumulate():
        (1e-9 * expanded(leaf)).backward()
        return leaf.grad

    def ours(grad):
        pairwise_add_grad_(grad, W, alpha=1e-9)
        return grad

    def fresh(call):
        return lambda: call(torch.zeros_like(W)).clone()

    def fresh_accumulate():
        leaf.grad.zero_()
        return accumulate().clone()

    return Job(
        {
            "mtlfast": lambda: ours(grad),
            "eager, by hand": lambda: by_hand(grad),
            "eager expanded, kept gradient": accumulate,
        },
        floor.add_in_place(W, torch.zeros_like(W)),
        4 * 4 * W.numel(),
        {
            "mtlfast": fresh(ours),
            "eager, by hand": fresh(by_hand),
            "eager expanded, kept gradient": fresh_accumulate,
        },
        tolerance=1e-3,
    )


def prox_in_place(num_tasks, dim, step=1e-14):
    W = tasks(num_tasks, dim)
    parts = {name: W.clone() for name in ("mtlfast", "eager, by hand")}

    def by_hand(W):
        mean = W.mean(0)
        return W.sub_(mean).mul_(1 / (1 + 4 * num_tasks * step)).add_(mean)

    calls = {"mtlfast": lambda W: pairwise_prox_(W, step), "eager, by hand": by_hand}
    return Job(
        {name: lambda name=name: calls[name](parts[name]) for name in calls},
        floor.change_in_place(W),
        3 * 4 * W.numel(),
        {name: lambda name=name: calls[name](W.clone()) for name in calls},
    )


def overhead():
    """A small call with and without autograd: nothing but overhead."""
    W = tasks(3, 16)
    leaf = W.clone().requires_grad_()

    def backward():
        pairwise_reg(leaf).backward()
        leaf.grad = None

    return {"no grad": lambda: pairwise_reg(W), "with backward": backward}


def curve_case(name):
    """The maker of a job of the memory curve, by its name: for memory.py."""
    num_tasks = int(name.removeprefix("curve ").replace(",", ""))
    return functools.partial(value_and_gradient, num_tasks, 64, compile=False)
