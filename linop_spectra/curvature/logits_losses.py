"""Ready-made losses of batches that are mappings of names to arrays, as pretrained language and vision models take them."""

from __future__ import annotations

import dataclasses
from typing import Any

from .batch_loss import BatchLoss


def _refuse(*_: Any) -> Any:
    raise TypeError("LanguageModelLoss and LogitsLoss are for torch and JAX models; pass a BatchLoss of your own with other frameworks.")


@dataclasses.dataclass(frozen=True, init=False)
class LanguageModelLoss(BatchLoss):
    """Cross-entropy of the tokens that a model predicts, one term for each token that counts.

    The model is called with the entries of a batch as named arguments, without labels and weights, and without a cache of keys
    and values where it has one. Its outputs are the logits, of shape (sequences, positions, vocabulary): the field ``logits`` of what it
    returns, or the array itself. In torch no array besides the logits and vectors like them grows with the vocabulary: what the loss
    and its derivatives need in between goes through a few positions at a time: 512 tokens over 50,000 words, whose logits take 98 MiB in
    single precision, need 600 MiB at most inside a product, and up to 1.1 GiB with a loss written in torch's own functions. In JAX a
    linearised gradient keeps two and a half arrays of the size of the logits.

    Parameters
    ----------
    causal : bool
        Whether the logits at a position predict the token at the next one, as in GPT-2 and Llama, so that the last position
        has no term. False when they belong to the label at their own position: masked language models, classes of tokens, and
        encoder-decoder models.
    labels : str
        Entry of the batch with the labels, integers of shape (sequences, positions). Where a causal model's batch has no such
        entry, its ``input_ids`` are the labels, without the positions that ``attention_mask`` leaves out. Given labels are taken as
        they are, whatever the mask says.
    weights : str, optional
        Entry of the batch with a weight of at least zero for each label, or for each sequence. The objective is then the weighted mean.
    ignore_index : int
        Label of positions that do not count.

    Examples
    --------
    >>> import torch, linop_spectra as ls
    >>> from linop_spectra.curvature import LanguageModelLoss
    >>> class Bigrams(torch.nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.table = torch.nn.Embedding(11, 11)
    ...     def forward(self, input_ids):
    ...         return self.table(input_ids)
    >>> batches = [{"input_ids": torch.randint(0, 11, (3, 8))}, {"input_ids": torch.randint(0, 11, (2, 5))}]
    >>> objective = ls.objective(Bigrams(), LanguageModelLoss(), batches)
    >>> objective.functions.loss_sum(objective.point, next(objective.batches()))[1]  # 3 sequences of 7 predictions
    21.0
    >>> ls.check_operator(objective.ggn()).passed
    True
    """

    causal: bool
    labels: str
    weights: str | None
    ignore_index: int

    def __init__(
        self, *, causal: bool = True, labels: str = "labels", weights: str | None = None, ignore_index: int = -100
    ) -> None:
        super().__init__(outputs=_refuse, loss=_refuse)
        for name, value in (("causal", causal), ("labels", labels), ("weights", weights), ("ignore_index", ignore_index)):
            object.__setattr__(self, name, value)


@dataclasses.dataclass(frozen=True, init=False)
class LogitsLoss(BatchLoss):
    """A loss of a model's logits and one entry of the batch, as of pretrained classifiers of texts and images.

    The model is called with the other entries as named arguments. Its outputs are the field ``logits`` of what it returns, or the
    array itself; a last axis of length one that the labels do not have is taken off.

    Parameters
    ----------
    criterion : str, loss module or callable
        Any loss of outputs and targets that `linop_spectra.objective` takes: ``"cross_entropy"``, ``"mse"``,
        ``"binary_cross_entropy"``, a loss module, or a callable ``(logits, labels)``.
    labels : str
        Entry of the batch with the labels.

    Examples
    --------
    >>> import torch, linop_spectra as ls
    >>> from linop_spectra.curvature import LogitsLoss
    >>> class Classifier(torch.nn.Linear):
    ...     def forward(self, pixel_values):
    ...         return {"logits": super().forward(pixel_values)}
    >>> batches = [{"pixel_values": torch.randn(6, 4), "labels": torch.randint(0, 3, (6,))}]
    >>> ls.objective(Classifier(4, 3), LogitsLoss("cross_entropy"), batches).ggn().shape
    (15, 15)
    """

    criterion: Any
    labels: str

    def __init__(self, criterion: Any = "cross_entropy", *, labels: str = "labels") -> None:
        super().__init__(outputs=_refuse, loss=_refuse)
        if isinstance(criterion, BatchLoss):
            raise TypeError("The argument criterion is a BatchLoss, but must be a loss of outputs and targets; pass the BatchLoss itself.")
        object.__setattr__(self, "criterion", criterion)
        object.__setattr__(self, "labels", labels)
