"""The command line: commands, options, help, and what was meant by a word that is none of them."""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import fc_arrayapi as fc

from .._arrays import backends
from .._files import weights
from .._files.disk import url_of

BAD_INPUT = 2
# A backend's module, and what pip calls it.
BACKENDS = {backend.name: (backend.module, backend.install) for backend in backends.BACKENDS if backend.shell}
SHELLS = ("bash", "zsh", "tcsh")


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line, with the word that was meant."""

    def error(self, message: str) -> NoReturn:
        """Print a line and exit."""
        self.exit(BAD_INPUT, f"{self.prog}: {message}; see {self.prog} --help\n")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            what = str(action.metavar or "/".join(action.option_strings)).lower()
            choices = [str(choice) for choice in action.choices]
            self.error(f"there is no {what} {value!r}: {_meant(str(value), choices)}")

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Refuse an unknown option first, since a misspelt one is missing too."""
        if self._subparsers is None:
            known = [option for option in self._option_string_actions if option.startswith("--")]
            for word in args or ():
                option = word.partition("=")[0]
                if option.startswith("--") and len(option) > 2 and not any(name.startswith(option) for name in known):
                    self.error(f"there is no option {option}: {_meant(option, known)}")
        return super().parse_known_args(args, namespace)


def _meant(word: str, choices: Iterable[str]) -> str:
    choices = list(choices)
    close = difflib.get_close_matches(word, choices, 1, 0.6)
    return f"did you mean {close[0]}?" if close else f"choose one of {', '.join(choices)}"


def path_or_address(text: str) -> str | Path:
    """Return an address in an object store as it is, anything else as a path."""
    return text if url_of(text) else Path(text)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return what a command line asks for; `command` is None for a bare one, `parser` what explains it."""
    parser = make_parser()
    given = parser.parse_args(arguments)
    given.parser = parser
    return given


def make_parser() -> Parser:
    """Return the parser of all commands."""
    parser = Parser(
        prog="fc-arrayapi",
        description="The fully connected layer Y = XW + B and its gradients, from files to files of any size.",
        epilog="examples:\n  fc-arrayapi plan X.npy --weights layer.npz\n"
        "  fc-arrayapi forward X.npy --weights layer.npz --out Y.zarr\n"
        "fc-arrayapi COMMAND --help has more.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=fc.__version__)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")

    def command(name: str, help: str, *examples: str) -> argparse.ArgumentParser:
        own = commands.add_parser(
            name,
            help=help,
            description=help[0].upper() + help[1:] + ".",
            epilog="examples:\n" + "\n".join(f"  fc-arrayapi {name}{example}" for example in examples),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        own.add_argument("--debug", action="store_true", help="show the traceback of an error")
        return own

    own = command("info", "versions of this and of what it can use, BLAS, and cores", "", " --json")
    _add_json(own)
    own = command("check", "try the layer and einsum on array libraries", "", " torch")
    own.add_argument(
        "backend", nargs="?", choices=list(BACKENDS), metavar="BACKEND", help=f"one of {', '.join(BACKENDS)}"
    )
    _add_json(own)
    own = command(
        "plan", "estimate the cost of a pass, without running it",
        " X.npy --weights layer.npz", " X.npy --weights layer.npz --dY dY.npy --rows 10000",
    )  # fmt: skip
    own.add_argument("--dY", metavar="dY", help="plan the pass for dX, dW and dB")
    own.add_argument("--measure", action="store_true", help="estimate the time too, from a block read and a product")
    _add_json(own)
    _add_batch(own)
    own = command(
        "forward", "write Y = XW + B, block by block",
        " X.zarr --weights layer.npz --out Y.zarr", " X.npy --weights layer.npz --out Y.zarr --rows 10000 --resume",
        " s3://bucket/x.zarr --weights s3://bucket/layer.npz --out s3://bucket/y.zarr",
    )  # fmt: skip
    _add_batch(own)
    own.add_argument("--out", type=path_or_address, required=True, help="where Y goes: .npy, .zarr, or s3://.../Y.zarr")
    _add_writing(own)
    own = command(
        "backward", "write dX, dW and dB, in one pass over X and dY",
        " X.zarr dY.zarr --weights layer.npz --out grads",
        " X.zarr dY.zarr --weights layer.npz --out grads --needs dW,dB --scheduler tcp://10.0.0.1:8786",
    )  # fmt: skip
    _add_batch(own)
    own.add_argument("dY", help="the gradient of the loss with respect to Y, as X")
    own.add_argument(
        "--out", type=path_or_address, required=True, metavar="DIR",
        help="folder for dX.zarr, dW.npy and dB.npy; below s3:// all are .zarr",
    )  # fmt: skip
    own.add_argument("--needs", help="the gradients to compute, separated by commas (default: dX,dW,dB)")
    _add_writing(own)
    own = command("completion", "print a script that completes commands in your shell (needs shtab)", " bash")
    own.add_argument("shell", choices=SHELLS, metavar="SHELL", help=f"one of {', '.join(SHELLS)}")
    return parser


def _add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print one line of JSON")


def _add_batch(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("X", help="the batch, as fc.open_array takes it, for example X.npy or X.parquet::column")
    parser.add_argument(
        "--weights", type=path_or_address, required=True,
        help="W and B: a .npz or .safetensors file, made by layer.save or np.savez('layer.npz', W=W, B=B)",
    )  # fmt: skip
    parser.add_argument("--prefix", default="", help="the name of the layer in a file of a whole model")
    parser.add_argument("--layout", choices=list(weights.LAYOUTS), help="whose names W and B have (default: W and B)")
    parser.add_argument("--dtype", help="convert each block of X and dY, for example to float32")
    parser.add_argument(
        "--rows", type=int, help="rows in a block (default: up to 8192, fewer of wide rows, more of narrow ones)"
    )
    parser.add_argument("--scheduler", metavar="ADDRESS", help="compute on a dask.distributed cluster")
    parser.add_argument("--threads", type=int, help="threads on this machine (default: one per core)")


def _add_writing(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--resume", action="store_true", help="continue a run that was stopped")
    parser.add_argument("--overwrite", action="store_true", help="replace existing results, at the end")
    parser.add_argument("--memory-limit", metavar="SIZE", help="refuse a pass that would take more, for example 2GB")
    parser.add_argument("--quiet", action="store_true", help="print errors alone: no progress, no sizes")


def completion(parser: argparse.ArgumentParser, shell: str) -> str:
    """Return the script that completes commands, options and files in a shell."""
    try:
        import shtab
    except ImportError:
        raise ImportError("completion is made by shtab: pip install shtab") from None
    for own in parser._subparsers._group_actions[0].choices.values():  # type: ignore[union-attr]
        for action in own._actions:
            if action.dest in ("X", "dY", "weights", "out"):
                action.complete = shtab.FILE
    return str(shtab.complete(parser, shell))
