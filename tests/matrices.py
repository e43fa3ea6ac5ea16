"""Matrices with known spectra and the float64 oracle for the trace-norm tests."""

import torch

DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


def unit(dtype):
    return 2.0**-53 if dtype == torch.float64 else 2.0**-24


def randn(*shape, dtype=torch.float64, seed=0):
    return torch.randn(shape, dtype=torch.float64, generator=torch.manual_seed(seed)).to(dtype)


def spectrum(m, n, sigma, batch=5):
    """Matrices with the given singular values."""
    u = torch.linalg.qr(randn(batch, m, len(sigma)))[0]
    v = torch.linalg.qr(randn(batch, n, len(sigma), seed=1))[0]
    return (u * torch.as_tensor(sigma, dtype=torch.float64)) @ v.mT


def exact_norm(w):
    return torch.linalg.svdvals(w.double()).sum(-1)


def exact_prox(w, t):
    u, s, vh = torch.linalg.svd(w.double(), full_matrices=False)
    t = torch.as_tensor(t, dtype=torch.float64)
    return (u * (s - t.unsqueeze(-1)).clamp_min(0).unsqueeze(-2)) @ vh


def exact_subgradient(w):
    u, s, vh = torch.linalg.svd(w.double(), full_matrices=False)
    eps = torch.finfo(torch.float64 if w.dtype == torch.float64 else torch.float32).eps
    return (u * (s > s[..., :1] * max(w.shape[-2:]) * eps).unsqueeze(-2)) @ vh


def norm(x):
    return torch.linalg.vector_norm(x.double(), dim=(-2, -1))
