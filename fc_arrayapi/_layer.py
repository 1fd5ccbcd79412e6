"""FullyConnected: W and B of one layer, kept together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from inspect import Signature, signature
from typing import TYPE_CHECKING, Any, Generic, Literal, TypedDict, Unpack, get_args, overload

import numpy as np

from . import _foreign_names, _linear
from ._arrays import namespace, summary
from ._arrays.libraries import NumPyArray
from ._arrays.on_import import on_import
from ._arrays.types import (
    MAX_BYTES,
    AnyPath,
    ArrayT,
    BiasT,
    LayoutName,
    Need,
    NeedsAll,
    NeedsB,
    NeedsW,
    NeedsWB,
    NeedsX,
    NeedsXB,
    NeedsXW,
    StandardArray,
    SumOptions,
    WeightT,
)
from ._gradients import Gradients
from ._math import checks, equations
from ._pytree import make_pytree
from ._torch_linear import linear_of, parameters_of

if TYPE_CHECKING:
    import torch

Initializer = Literal["glorot_uniform", "he_uniform", "lecun_normal", "zeros"]
INITIALIZERS: tuple[Initializer, ...] = get_args(Initializer)


class _InitOptions(TypedDict, total=False):
    """The options of `FullyConnected.init` that do not change the type of the layer."""

    seed: int
    initializer: Initializer
    dtype: Any
    device: Any


@dataclass(frozen=True, eq=False, repr=False)
class FullyConnected(Generic[WeightT, BiasT]):
    """The layer Y = XW + B with its parameters; it is never changed in place.

    Parameters
    ----------
    W : array, shape (C, S)
        The weight. Real floating dtype.
    B : array, shape (S,), optional
        The bias.

    Raises
    ------
    TypeError, ValueError
        As `forward`.

    Examples
    --------
    >>> import numpy as np
    >>> import fc_arrayapi as fc
    >>> layer = fc.FullyConnected.init(3, 2, seed=0, xp=np)
    >>> layer
    FullyConnected(C=3, S=2, bias=True, dtype=float64, xp=numpy, device=cpu)
    >>> layer(np.ones((4, 3))).shape
    (4, 2)
    >>> layer.backward(np.ones((4, 3)), np.ones((4, 2))).dW.shape
    (3, 2)

    A step of gradient descent makes a new layer:

    >>> grads = layer.backward(np.ones((4, 3)), np.ones((4, 2)))
    >>> layer = fc.FullyConnected(layer.W - 0.1 * grads.dW, layer.B - 0.1 * grads.dB)
    """

    W: WeightT
    B: BiasT = None  # type: ignore[assignment]  # then BiasT is None

    if TYPE_CHECKING:

        @overload
        def __init__(self: FullyConnected[WeightT, None], W: WeightT, B: None = None) -> None: ...
        @overload
        def __init__(self, W: WeightT, B: BiasT) -> None: ...
        def __init__(self, W: Any, B: Any = None) -> None: ...

    if not TYPE_CHECKING:  # to type checkers __init__ says what there is

        def __new__(cls, *arrays: Any, **named: Any) -> FullyConnected[Any, Any]:
            """Refuse what is no argument, with the name that it has here."""
            _foreign_names.check_arguments("FullyConnected", named, ("W", "B"))
            return super().__new__(cls)

    def __post_init__(self) -> None:
        if isinstance(self.W, int) and (self.B is None or isinstance(self.B, int)):
            S = "S" if self.B is None else self.B
            raise TypeError(f"FullyConnected takes W and B as arrays: call FullyConnected.init({self.W}, {S})")
        checks.check_parameters(self.W, self.B)

    @property
    def C(self) -> int:
        """The number of input features."""
        return int(self.W.shape[-2])

    @property
    def S(self) -> int:
        """The number of output features."""
        return int(self.W.shape[-1])

    @property
    def dtype(self) -> Any:
        """The dtype of W."""
        return self.W.dtype

    @property
    def device(self) -> Any:
        """The device of W."""
        return namespace.device(self.W)

    def astype(self, dtype: Any) -> FullyConnected[WeightT, BiasT]:
        """Return the layer with W and B in another dtype.

        Parameters
        ----------
        dtype : dtype or str
            A real floating dtype of the library of W, or its name.

        Returns
        -------
        FullyConnected
            Arrays that have this dtype already are not copied.

        Raises
        ------
        TypeError
            For any other dtype.

        Examples
        --------
        >>> import fc_arrayapi as fc
        >>> fc.FullyConnected.init(3, 2).astype("float32")
        FullyConnected(C=3, S=2, bias=True, dtype=float32, xp=numpy, device=cpu)
        """
        xp = namespace.of(self.W)
        wanted = namespace.float_dtype(xp, "None" if dtype is None else dtype)
        return self._with(lambda array: namespace.cast(xp, array, wanted))

    def to_device(self, device: Any) -> FullyConnected[WeightT, BiasT]:
        """Return the layer with W and B on another device.

        Parameters
        ----------
        device
            The device, as the library of W names it: ``"cuda"``, ``jax.devices()[0]``, ``"cpu"``.

        Returns
        -------
        FullyConnected

        Raises
        ------
        Exception
            What the library raises for a device that it does not have.

        Examples
        --------
        >>> import fc_arrayapi as fc
        >>> fc.FullyConnected.init(3, 2).to_device("cpu").device
        'cpu'
        """
        return self._with(lambda array: namespace.to_device(array, device))

    def _with(self, convert: Callable[[Any], Any]) -> FullyConnected[Any, Any]:
        return FullyConnected(convert(self.W), None if self.B is None else convert(self.B))

    def __call__(self, X: ArrayT) -> ArrayT:
        """Return Y = XW + B, (..., S), for a batch X, (..., C): `forward` with the layer's W and B.

        Examples
        --------
        >>> import numpy as np
        >>> import fc_arrayapi as fc
        >>> layer = fc.FullyConnected(np.asarray([[1.0, 0.0], [0.0, 2.0]]), np.asarray([0.5, 0.5]))
        >>> layer(np.asarray([[1.0, 2.0]]))
        array([[1.5, 4.5]])
        """
        return _linear.forward(X, self.W, self.B)

    @overload
    def backward(
        self, X: ArrayT, dY: StandardArray, *, needs: NeedsAll = ..., **options: Unpack[SumOptions]
    ) -> Gradients[ArrayT, ArrayT, ArrayT | BiasT]: ...
    @overload
    def backward(
        self, X: ArrayT, dY: StandardArray, *, needs: NeedsX, **options: Unpack[SumOptions]
    ) -> Gradients[ArrayT, None, None]: ...
    @overload
    def backward(
        self, X: ArrayT, dY: StandardArray, *, needs: NeedsW, **options: Unpack[SumOptions]
    ) -> Gradients[None, ArrayT, None]: ...
    @overload
    def backward(
        self, X: ArrayT, dY: StandardArray, *, needs: NeedsB, **options: Unpack[SumOptions]
    ) -> Gradients[None, None, ArrayT | BiasT]: ...
    @overload
    def backward(
        self, X: ArrayT, dY: StandardArray, *, needs: NeedsXW, **options: Unpack[SumOptions]
    ) -> Gradients[ArrayT, ArrayT, None]: ...
    @overload
    def backward(
        self, X: ArrayT, dY: StandardArray, *, needs: NeedsXB, **options: Unpack[SumOptions]
    ) -> Gradients[ArrayT, None, ArrayT | BiasT]: ...
    @overload
    def backward(
        self, X: ArrayT, dY: StandardArray, *, needs: NeedsWB, **options: Unpack[SumOptions]
    ) -> Gradients[None, ArrayT, ArrayT | BiasT]: ...
    @overload
    def backward(
        self, X: ArrayT, dY: StandardArray, *, needs: Iterable[Need], **options: Unpack[SumOptions]
    ) -> Gradients[ArrayT | None, ArrayT | None, ArrayT | BiasT | None]: ...
    def backward(
        self,
        X: Any,
        dY: Any,
        *,
        needs: Iterable[str] = equations.GRADIENTS,
        sample_weight: Any = None,
        acc_dtype: Any = None,
    ) -> Gradients[Any, Any, Any]:
        """Return dX, dW and dB: `backward` with the layer's W. dB is None in a layer without bias.

        Examples
        --------
        >>> import numpy as np
        >>> import fc_arrayapi as fc
        >>> layer = fc.FullyConnected(np.asarray([[1.0], [3.0]]), np.zeros(1))
        >>> layer.backward(np.asarray([[1.0, 2.0]]), np.asarray([[10.0]]), needs=("dX", "dB"))
        Gradients(dX=array([[10., 30.]]), dW=None, dB=array([10.]))
        """
        wanted: Any = checks.check_needs(needs)
        if self.B is None:
            wanted = tuple(name for name in wanted if name != "dB")
        grads: Any = _linear.backward(X, self.W, dY, needs=wanted, sample_weight=sample_weight, acc_dtype=acc_dtype)
        return grads  # type: ignore[no-any-return]  # its parts depend on needs

    @overload
    @classmethod
    def init(
        cls, C: int, S: int, *, bias: Literal[True] = ..., **options: Unpack[_InitOptions]
    ) -> FullyConnected[NumPyArray, NumPyArray]: ...
    @overload
    @classmethod
    def init(
        cls, C: int, S: int, *, bias: Literal[False], **options: Unpack[_InitOptions]
    ) -> FullyConnected[NumPyArray, None]: ...
    @overload
    @classmethod
    def init(
        cls, C: int, S: int, *, xp: Any, bias: bool = ..., **options: Unpack[_InitOptions]
    ) -> FullyConnected[Any, Any]: ...
    @classmethod
    def init(
        cls,
        C: int,
        S: int,
        *,
        seed: int = 0,
        initializer: Initializer = "glorot_uniform",
        bias: bool = True,
        xp: Any = np,
        dtype: Any = None,
        device: Any = None,
        **unknown: Any,
    ) -> FullyConnected[Any, Any]:
        """Create a layer with a random weight and a bias of zeros.

        The numbers are drawn in float64 by NumPy's default generator and then converted, so
        a seed gives the same W in every library.

        Parameters
        ----------
        C, S : int
            Numbers of input and output features.
        seed : int
            The seed of ``numpy.random.default_rng``.
        initializer : {"glorot_uniform", "he_uniform", "lecun_normal", "zeros"}
            Uniform within sqrt(6 / (C + S)) (Glorot and Bengio 2010), uniform within
            sqrt(6 / C) (He et al. 2015), normal with variance 1 / C (LeCun et al. 1998),
            or zeros, from which a linear probe starts.
        bias : bool
            Whether the layer has a bias.
        xp : module
            The array library: numpy, torch, jax.numpy, ...
        dtype : dtype or str, optional
            A dtype of that library or its name. Default: the library's default, float64 in
            NumPy, float32 in torch and JAX.
        device : optional
            The device, as the library names it.

        Returns
        -------
        FullyConnected

        Raises
        ------
        TypeError, ValueError
            For negative sizes, an unknown initializer, or an `xp` that is not an array library.

        Examples
        --------
        >>> import fc_arrayapi as fc
        >>> fc.FullyConnected.init(64, 10, initializer="zeros", dtype="float32")
        FullyConnected(C=64, S=10, bias=True, dtype=float32, xp=numpy, device=cpu)
        """
        options = ("seed", "initializer", "bias", "xp", "dtype", "device")
        _foreign_names.check_arguments("FullyConnected.init", unknown, ("C", "S", *options))
        for name, size in (("C", C), ("S", S)):
            if not isinstance(size, (int, np.integer)) or isinstance(size, bool) or size < 0:
                raise ValueError(f"{name} is {size!r}: pass an integer, 0 or more")
        space = namespace.wrapped(xp)
        dtype = namespace.float_dtype(space, dtype)
        draws = _draw(initializer, np.random.default_rng(seed), C, S)
        W = namespace.from_numpy(draws, space, dtype=dtype, device=device)
        B = namespace.from_numpy(np.zeros(S), space, dtype=dtype, device=device) if bias else None
        return cls(W, B)

    def save(self, path: AnyPath, *, storage_options: Mapping[str, Any] | None = None) -> None:
        """Write W and B to a ``.npz`` or ``.safetensors`` file, completely or not at all.

        Parameters
        ----------
        path : path
            Ends in ``.npz`` (NumPy alone reads it) or ``.safetensors`` (needs the extra
            ``safetensors``). An existing file is replaced when the new one is complete
            and on the disk. Every bit is kept, also of NaN and -0.0. It may be an address in
            an object store, ``s3://`` or ``gs://`` (needs the extra ``cloud``).
        storage_options : dict, optional
            How to reach an address, as in `open_array`.

        Raises
        ------
        ValueError
            For another ending.
        TypeError
            For a dtype other than float16, float32 and float64, and bfloat16 in
            ``.safetensors``; NumPy has no bfloat16.
        FileNotFoundError
            If the folder does not exist.
        OSError
            If the file cannot be written. An existing file stays as it is.
        ImportError
            For ``.safetensors`` where that package is not installed.

        Examples
        --------
        >>> import tempfile
        >>> import fc_arrayapi as fc
        >>> layer = fc.FullyConnected.init(3, 2, seed=0)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     layer.save(folder + "/layer.npz")
        ...     bool((fc.FullyConnected.load(folder + "/layer.npz").W == layer.W).all())
        True
        """
        from ._files import weights  # here and in load, since it takes a tenth of the package's import

        weights.save_weights(path, self.W, self.B, storage_options)

    @overload
    @classmethod
    def load(
        cls,
        path: AnyPath,
        *,
        prefix: str = ...,
        layout: LayoutName | None = ...,
        device: Any = ...,
        max_bytes: int = ...,
        storage_options: Mapping[str, Any] | None = ...,
    ) -> FullyConnected[NumPyArray, NumPyArray | None]: ...
    @overload
    @classmethod
    def load(
        cls,
        path: AnyPath,
        *,
        prefix: str = ...,
        layout: LayoutName | None = ...,
        xp: Any,
        device: Any = ...,
        max_bytes: int = ...,
        storage_options: Mapping[str, Any] | None = ...,
    ) -> FullyConnected[Any, Any]: ...
    @classmethod
    def load(
        cls,
        path: AnyPath,
        *,
        prefix: str = "",
        layout: LayoutName | None = None,
        xp: Any = np,
        device: Any = None,
        max_bytes: int = MAX_BYTES,
        storage_options: Mapping[str, Any] | None = None,
    ) -> FullyConnected[Any, Any]:
        """Read a layer from a file, into any array library.

        Names, dtypes, shapes and sizes are compared with each other, with the size of the file
        and with `max_bytes` before memory is allocated, so that a hostile file costs nothing.
        Nothing is unpickled. The numbers come back bit for bit, NaN and infinities too.

        Parameters
        ----------
        path : path
            A ``.npz`` or ``.safetensors`` file with the entries W, (C, S), and, for a bias, B,
            (S,), in float16, float32 or float64, or bfloat16 in ``.safetensors``: from `save`,
            numpy.savez, numpy.savez_compressed or safetensors. It may be an address in an object
            store, ``s3://``, ``gs://`` or ``https://`` (needs the extra ``cloud``); then it is
            read as a whole, and has at most `max_bytes`.
        prefix : str
            The name of the layer in a file of a whole model: ``"head"`` for the entries
            ``head.W`` and ``head.B``, or ``head/W`` and ``head/B``. The other entries are not
            read.
        layout : {"torch", "keras", "flax"}, optional
            Whose names and axes the entries have: ``weight``, (S, C), and ``bias`` of
            torch.nn.Linear, or ``kernel``, (C, S), and ``bias`` of the Dense of Keras and Flax.
            Default: W and B.
        xp : module
            The array library: numpy, torch, jax.numpy, ...
        device : optional
            The device, as the library names it.
        max_bytes : int
            The limit for W and B together, as they are stored, 16 GiB by default. Besides, a compressed array of
            more than 16 MiB may be at most 100 times as large as its compressed bytes: trained
            weights compress far less, zip bombs far more.
        storage_options : dict, optional
            How to reach an address, as in `open_array`.

        Returns
        -------
        FullyConnected
            W and B in the dtypes of the file; B is None if the file has none. bfloat16 becomes
            float32 in libraries that lack it, such as NumPy, which is exact.

        Raises
        ------
        ValueError
            For a file without the entries that are asked for, or, with neither `prefix` nor
            `layout`, with others besides: the message lists the names that are there. For
            wrong sizes, more than `max_bytes`, and an unknown layout.
        TypeError
            For dtypes that are not real floating, or that the library does not support.
        OSError
            If the file does not exist or cannot be read.
        ImportError
            For ``.safetensors`` where that package is not installed.

        Examples
        --------
        >>> import tempfile, numpy as np
        >>> import fc_arrayapi as fc
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     np.savez(folder + "/layer.npz", W=np.ones((3, 2), "float32"))
        ...     fc.FullyConnected.load(folder + "/layer.npz")
        FullyConnected(C=3, S=2, bias=False, dtype=float32, xp=numpy, device=cpu)

        One layer of a model of PyTorch:

        >>> with tempfile.TemporaryDirectory() as folder:
        ...     state = {"body.weight": np.ones((5, 9)), "head.weight": np.ones((2, 3)), "head.bias": np.ones(2)}
        ...     np.savez(folder + "/model.npz", **state)
        ...     fc.FullyConnected.load(folder + "/model.npz", prefix="head", layout="torch")
        FullyConnected(C=3, S=2, bias=True, dtype=float64, xp=numpy, device=cpu)
        """
        space = namespace.wrapped(xp)
        from ._files import weights

        W, B = weights.load_weights(path, max_bytes, prefix, layout, storage_options)
        return cls(
            namespace.from_bits(W, space, device=device),
            None if B is None else namespace.from_bits(B, space, device=device),
        )

    @classmethod
    def from_torch(cls, module: torch.nn.Linear) -> FullyConnected[torch.Tensor, torch.Tensor | None]:
        """Copy a ``torch.nn.Linear`` into a layer of torch tensors.

        Parameters
        ----------
        module : torch.nn.Linear
            Its weight is (S, C), its bias (S,) or None. Real floating dtype.

        Returns
        -------
        FullyConnected
            Copies of the weight, transposed to (C, S), and of the bias, with their dtype and
            device, and without their gradients.

        Raises
        ------
        TypeError
            For another module, and for a dtype that is not real floating.
        ImportError
            If torch is not installed.

        Examples
        --------
        >>> import torch
        >>> import fc_arrayapi as fc
        >>> fc.FullyConnected.from_torch(torch.nn.Linear(3, 2))
        FullyConnected(C=3, S=2, bias=True, dtype=float32, xp=torch, device=cpu)
        """
        return cls(*parameters_of(module))

    def to_torch(self) -> torch.nn.Linear:
        """Return a ``torch.nn.Linear`` with copies of W and B.

        Returns
        -------
        torch.nn.Linear
            Its weight is W transposed to torch's (S, C), its bias is B, (S,), or None. Both have
            the dtype of W, and its device if W is an array of torch, JAX or CuPy.

        Raises
        ------
        TypeError
            If B has another dtype than W, since nothing is rounded; and for a dtype that torch
            does not support.
        ImportError
            If torch is not installed.

        Examples
        --------
        >>> import numpy as np
        >>> import fc_arrayapi as fc
        >>> fc.FullyConnected(np.ones((3, 2)), np.zeros(2)).to_torch()
        Linear(in_features=3, out_features=2, bias=True)
        """
        return linear_of(self.W, self.B)

    if not TYPE_CHECKING:  # to type checkers every name would be one that this function may know

        def __getattr__(self, name: str) -> Any:
            raise _foreign_names.no_attribute("FullyConnected", name)

    def _repr_html_(self) -> str:
        return summary.html_of({"W": self.W, "B": self.B})

    def __repr__(self) -> str:
        if not (namespace.is_array(self.W) and self.W.ndim == 2):  # JAX puts anything in the place of arrays
            return f"FullyConnected(W={self.W!r}, B={self.B!r})"
        return f"FullyConnected(C={self.C}, S={self.S}, bias={self.B is not None}, {namespace.describe(self.W)})"


def _draw(initializer: str, rng: np.random.Generator, C: int, S: int) -> NumPyArray:
    """Draw a weight of shape (C, S) in float64."""
    if initializer == "glorot_uniform":
        limit = (6 / max(1, C + S)) ** 0.5
        return rng.uniform(-limit, limit, (C, S))
    if initializer == "he_uniform":
        limit = (6 / max(1, C)) ** 0.5
        return rng.uniform(-limit, limit, (C, S))
    if initializer == "lecun_normal":
        return rng.normal(0.0, max(1, C) ** -0.5, (C, S))
    if initializer == "zeros":
        return np.zeros((C, S))
    raise ValueError(f"initializer is {initializer!r}: choose one of {', '.join(map(repr, INITIALIZERS))}")


# For inspect and the pages: __new__ takes anything, to say what was meant.
_parameters = list(signature(FullyConnected.__init__).parameters.values())[1:]
FullyConnected.__signature__ = Signature(_parameters)  # type: ignore[attr-defined]
on_import("jax", partial(make_pytree, FullyConnected))
