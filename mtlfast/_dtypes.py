"""The element types of tasks, and the types in which sums of them are taken."""

import torch

DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
CODES = {torch.float32: 0, torch.float64: 1, torch.bfloat16: 2, torch.float16: 3}  # csrc/types.h

# Those whose gradient is kept until its upstream factor is known: one of 16 bits would round twice.
FUSED = (torch.float32, torch.float64)


def real_dtype(dtype):
    """The arithmetic type for inputs of ``dtype``: float64 for float64, else float32."""
    return torch.float64 if dtype == torch.float64 else torch.float32
