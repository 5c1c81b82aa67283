"""Batch norm whose statistics are those of all processes' pictures; PyTorch's own needs a GPU for that."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mimctr.distributed import size, sum_shares


class SharedBatchNorm2d(nn.BatchNorm2d):
    """``torch.nn.BatchNorm2d`` over the batch of all processes."""

    def forward(self, input: Float[Tensor, "images channels rows columns"]) -> Tensor:
        """Normalize; in training by mean and variance of all processes, which the running statistics follow too."""
        if not self.training or size() == 1:
            return super().forward(input)
        values = input.float()
        places = values.new_tensor([values.numel() / values.shape[1]])
        summed, count = sum_shares(torch.cat([values.sum((0, 2, 3)), places])).split([self.num_features, 1])
        if not count:  # no process has a picture
            return input
        mean = summed / count
        centered = values - mean.view(1, -1, 1, 1)
        variance = sum_shares(centered.square().sum((0, 2, 3))) / count  # biased, as PyTorch normalizes
        self._follow(mean.detach(), (variance * count / (count - 1)).detach())
        scale = (variance + self.eps).rsqrt()
        if self.weight is not None:
            scale = scale * self.weight
        normalized = centered * scale.view(1, -1, 1, 1)
        if self.bias is not None:
            normalized = normalized + self.bias.view(1, -1, 1, 1)
        return normalized.to(input.dtype)

    def _follow(self, mean: Float[Tensor, "channels"], variance: Float[Tensor, "channels"]) -> None:
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        share = 1 / self.num_batches_tracked if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, share)
        self.running_var.lerp_(variance, share)


def share_batch_norm(network: nn.Module) -> None:
    """Let every batch norm of ``network`` take the pictures of all processes for its batch."""
    for module in network.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = SharedBatchNorm2d
