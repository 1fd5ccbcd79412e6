"""The backends that are tested: the one list that the shell, noxfile.py, the tests and the docs read.

It imports nothing of the package, so that a script can read it where the package is not installed::

    backends = runpy.run_path("fc_arrayapi/_arrays/backends.py")
"""

from typing import NamedTuple


class Backend(NamedTuple):
    """An array library, or one way to set it up.

    Parameters
    ----------
    name : str
        The name in the shell, in the tests and in the docs.
    module : str
        The namespace that is imported.
    install : str
        What pip installs.
    session : str
        The session ``tests(SESSION)`` or ``gpu(SESSION)`` of nox that tests it, and the dependency group of
        pyproject.toml that the session installs.
    shell : bool
        ``fc-arrayapi info`` and ``fc-arrayapi check`` know it. They name each array library once.
    gpu : bool
        It needs a GPU.
    device : str, optional
        The device on which arrays are made, if it is not the default one.
    environment : dict of str to str
        Variables that are set before the library is imported. Backends that differ in them can't share a process.
    """

    name: str
    module: str
    install: str
    session: str
    shell: bool = True
    gpu: bool = False
    device: str | None = None
    environment: dict[str, str] = {}  # noqa: RUF012 - the default of a field, which is never changed


BACKENDS = (
    Backend("numpy", "numpy", "numpy", session="numpy"),
    Backend("array-api-strict", "array_api_strict", "array-api-strict", session="array-api-strict"),
    Backend(
        "array-api-strict-strictest", "array_api_strict", "array-api-strict", session="array-api-strict", shell=False
    ),
    Backend("dask", "dask.array", "dask[array]", session="dask"),
    Backend(
        "dask-query-planning",
        "dask.array",
        "dask[array]",
        session="dask",
        shell=False,
        environment={"DASK_ARRAY__QUERY_PLANNING": "True"},
    ),
    # Where Dask's arrays are computed, and not another library.
    Backend("distributed", "distributed", "distributed", session="distributed", shell=False),
    Backend("torch", "torch", "torch", session="torch"),
    Backend("jax", "jax.numpy", "jax", session="jax", environment={"JAX_ENABLE_X64": "True"}),
    Backend("cupy", "cupy", "cupy-cuda12x", session="cupy", gpu=True),
    Backend("torch-cuda", "torch", "torch", session="torch-cuda", shell=False, gpu=True, device="cuda"),
)


def runs() -> dict[str, list[Backend]]:
    """Group the backends by the test run that has them: those of one session and one environment.

    Returns
    -------
    dict of str to list of Backend
        By the name of the first of each group. ``FC_ARRAYAPI_BACKEND=NAME pytest`` tests that group.

    Examples
    --------
    >>> [backend.name for backend in runs()["array-api-strict"]]
    ['array-api-strict', 'array-api-strict-strictest']
    """
    found: dict[str, list[Backend]] = {}
    for backend in BACKENDS:
        for group in found.values():
            if (group[0].session, group[0].environment) == (backend.session, backend.environment):
                group.append(backend)
                break
        else:
            found[backend.name] = [backend]
    return found
