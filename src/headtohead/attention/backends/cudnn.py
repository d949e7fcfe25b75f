"""cuDNN's fused attention, the fastest there is on Hopper over full attention, ALiBi included.

cuDNN gets no bias from PyTorch. But softmax does not see what all keys of a query have in common, so ALiBi's
-slope * (query - key) may as well be slope * key: a product, of further dimensions of the query and of the key
(Wu et al. 2025, "FlashBias").

For inference alone: its gradients are not trusted here (pytorch/pytorch issues 139298 and 196678).
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from headtohead.attention.job import Capability, Job
from headtohead.attention.positions import slopes_on

name = "cudnn"
capability = Capability(kernels=frozenset({"flash"}), dtypes={"cuda": (torch.bfloat16, torch.float16)},
                        backward=frozenset(), forms=frozenset(), padding=False, cache=False,
                        head_dims=range(16, 113, 16), lengths=range(2, 65_537), compute=9)


def build(job: Job, left_padding: Tensor | None) -> partial[Tensor]:
    """With what puts ALiBi into queries and keys, if the variant has it."""
    fold = None
    if job.spec.positions == "alibi":
        from headtohead.kernels.alibi_fold import fold as put_in  # Triton is there with CUDA alone

        fold = partial(put_in, slopes=slopes_on(job.heads, job.device), scale=job.scaling)
    return partial(attend, fold=fold, scale=job.scaling)


def attend(q: Tensor, k: Tensor, v: Tensor, fold: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] | None,
           scale: float) -> Tensor:
    if fold is not None:
        q, k = fold(q, k)
    with sdpa_kernel(SDPBackend.CUDNN_ATTENTION):
        return scaled_dot_product_attention(q, k, v, is_causal=q.shape[-2] > 1, scale=scale)
