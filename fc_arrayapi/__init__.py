"""The fully connected layer Y = XW + B and its gradients, for every array library of the standard."""

from . import testing
from .contraction import SubscriptsError, einsum, tensordot, transpose
from .layer import FullyConnected
from .linear import Gradients, backward, forward, grad_bias, grad_input, grad_weight
from .plan import Plan, plan
from .running import compute
from .storage import open_array
from .store import store

__version__ = "0.1.0"

__all__ = [
    "FullyConnected",
    "Gradients",
    "Plan",
    "SubscriptsError",
    "backward",
    "compute",
    "einsum",
    "forward",
    "grad_bias",
    "grad_input",
    "grad_weight",
    "open_array",
    "plan",
    "store",
    "tensordot",
    "testing",
    "transpose",
]
