"""Read an attention mask in any form that is in use."""

from __future__ import annotations

import torch
from torch import Tensor

from clm_detour.model.input_checks import check_shape, check_tensor
from clm_detour.utils.errors import UserError

LEAST_PENALTY = -1e3  # added to a logit, this or less leaves no attention weight


def real_tokens(attention_mask: Tensor, shape: tuple[int, int]) -> Tensor:
    """Return a mask (B, L) that is True at tokens and False at padding.

    Args:
        attention_mask: (B, L) or (B, 1, 1, L). Either 1 (or True) at tokens and 0 at padding; or, as it is
            added to logits, 0 at tokens and a penalty such as -1e4 or -inf at padding.
        shape: (B, L).

    Raises:
        UserError: If it has another shape or other values, or is a (B, L) mask of floating-point zeros, which
            may mean either.
    """
    check_tensor("attention_mask", attention_mask)
    each_query = attention_mask.dim() == 4 and attention_mask.shape[1:3] == (1, 1)
    mask = attention_mask[:, 0, 0] if each_query else attention_mask
    if mask.dim() > 2:
        raise UserError(
            f"attention_mask has shape {tuple(attention_mask.shape)}; it says which tokens are padding, "
            "(rows, positions). Which tokens see which is said by document_ids and by the model's causal."
        )
    check_shape("attention_mask", mask, shape)
    if mask.dtype == torch.bool:
        return mask
    zero, one = mask == 0, mask == 1
    if not (zero | one).all():
        return _from_penalties(mask, zero)
    if not mask.is_floating_point() or not mask.numel() or one.any():
        return one
    if each_query:
        return zero
    raise UserError(
        "attention_mask is nothing but floating-point zeros, which may mean padding or, as penalties, "
        "tokens; give integers, 1 at tokens and 0 at padding."
    )


def _from_penalties(mask: Tensor, zero: Tensor) -> Tensor:
    if not (zero | (mask <= LEAST_PENALTY)).all():
        raise UserError(
            "attention_mask holds something else than 1 at tokens and 0 at padding (or 0 and penalties such "
            "as -1e4); if it numbers the texts of a row, pass it as document_ids."
        )
    return zero
