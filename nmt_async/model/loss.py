"""Cross-entropy with label smoothing, summed over tokens, with its gradient written out.

With probability p = softmax(z) over V subwords, correct subword y and smoothing e, a token's loss is
(1 - e)(-log p_y) + e/V sum_v(-log p_v) (Szegedy et al. 2016, section 7), and its gradient with respect to z is
p - (1 - e) onehot(y) - e/V. Written out, it needs one (tokens, V) matrix beside the logits' where torch's own
function needs several.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd import Function

from nmt_async.model.kernels import Arithmetic, projected_cross_entropy
from nmt_async.model.translation_model import TrainableModel
from nmt_async.text.batch import Batch


class _SmoothedCrossEntropy(Function):
    @staticmethod
    def forward(context: Any, logits: Tensor, targets: Tensor, smoothing: float) -> Tensor:
        normaliser = torch.logsumexp(logits, dim=1)
        context.save_for_backward(logits, targets, normaliser)
        context.smoothing = smoothing
        correct = logits.gather(1, targets[:, None]).squeeze(1)
        loss = normaliser - (1.0 - smoothing) * correct
        if smoothing:
            loss = loss - smoothing * logits.mean(dim=1)
        return loss.sum()

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        logits, targets, normaliser = context.saved_tensors
        smoothing = context.smoothing
        result = torch.sub(logits, normaliser[:, None]).exp_()
        if smoothing:
            result.sub_(smoothing / logits.shape[1])
        correct = torch.full((len(targets), 1), smoothing - 1.0, dtype=logits.dtype, device=logits.device)
        result.scatter_add_(1, targets[:, None], correct)
        return result.mul_(gradient), None, None


def training_loss(model: nn.Module, batch: Batch, smoothing: float, arithmetic: Arithmetic) -> Tensor:
    """What training makes small: the smoothed cross-entropy summed over the batch's target tokens, in nats, a scalar.

    Args:
        arithmetic: that it is computed with; what its layers compute with, the model was told (`compute_with`).
    """
    if arithmetic.fused and isinstance(model, TrainableModel):
        hidden, targets = model.hidden(batch)
        weight, bias = model.output_weight, model.output_bias
        return projected_cross_entropy(hidden, weight, bias, targets, smoothing, arithmetic.dtype)
    with arithmetic.casting(batch.source.device):
        logits, targets = model(batch)
    return smoothed_cross_entropy(logits.float(), targets, smoothing)


def smoothed_cross_entropy(logits: Tensor, targets: Tensor, smoothing: float) -> Tensor:
    """The loss summed over tokens, in nats, a scalar.

    Args:
        logits: (tokens, vocabulary).
        targets: (tokens,), int64.
        smoothing: probability spread over all subwords alike; 0 gives plain cross-entropy.
    """
    return cast(Tensor, _SmoothedCrossEntropy.apply(logits, targets, smoothing))  # type: ignore[no-untyped-call]
