"""Workers that a process forks after its kernels ran on several threads."""

import subprocess
import sys
import textwrap

import pytest

from mtlfast import _native

PROGRAM = """
import torch
from torch.utils.data import DataLoader, Dataset

import mtlfast

W = torch.randn(3000, 65)


def everything():
    chain = torch.stack([torch.arange(2999), torch.arange(1, 3000)])
    graph = mtlfast.TaskGraph.from_edges(chain[:, torch.randperm(2999)])
    group = mtlfast.TaskGraph.groups(torch.arange(3000) % 7)
    values = mtlfast.pairwise_reg(W), mtlfast.graph_reg(W, graph), mtlfast.graph_reg(W, group)
    proxes = mtlfast.graph_prox(W, graph, 0.1).sum(), mtlfast.trace_norm_prox(W, 0.1).sum()
    return torch.stack([*values, *proxes])


class Values(Dataset):
    def __len__(self):
        return 4

    def __getitem__(self, index):
        return everything()


torch.set_num_threads(2)
want = everything()
workers = DataLoader(Values(), batch_size=None, num_workers=2, multiprocessing_context="fork")
for got in workers:
    assert torch.allclose(got, want), (got, want)
print("done")
"""


@pytest.mark.skipif(_native._C is None, reason="the compiled module is not in use")
@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")
def test_workers_of_a_loader_run_kernels_after_a_parallel_region():
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(PROGRAM)],
        capture_output=True,
        text=True,
        timeout=120,  # they would wait for ever for threads that were not forked
    )
    assert run.stdout == "done\n", run.stderr
