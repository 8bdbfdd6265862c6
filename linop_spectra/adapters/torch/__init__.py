"""PyTorch: derivatives of ``torch.nn.Module`` models."""

from .objective import torch_objective

__all__ = ["torch_objective"]
