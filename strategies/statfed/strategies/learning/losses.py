"""The loss of each record: cross-entropy of classes, or half the squared error of a scaled number."""

from torch import Tensor
from torch.nn.functional import cross_entropy


def losses(outputs: Tensor, labels: Tensor) -> Tensor:
    """(records,): a sum over any other shape would mix records or count one twice. Raises ValueError on one.

    outputs: (records, classes) or (records, 1); labels: whole numbers, or floats in regression.
    """
    if labels.is_floating_point():
        found = (outputs.squeeze(1) - labels.to(outputs.dtype)).square() / 2.0
    else:
        found = cross_entropy(outputs, labels, reduction="none")
    if found.shape != labels.shape[:1]:
        raise ValueError(f"unexpected loss shape: got {tuple(found.shape)}; want ({len(labels)},)")
    return found


def mean_loss(outputs: Tensor, labels: Tensor) -> Tensor:
    """The mean over records."""
    if labels.is_floating_point():
        return losses(outputs, labels).mean()
    return cross_entropy(outputs, labels)
