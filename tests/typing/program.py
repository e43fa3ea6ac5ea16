import torch
W = torch.zeros(2)
