"""The tests of peers that fail here on purpose, and why: each is run, and reported if it passes."""

from __future__ import annotations

BROADCAST = "an axis of size 1 does not broadcast"
NUMBERS = "operands are numbers: no objects, no bools"
OWN_ERROR = "the error is of another type: SubscriptsError and ValueError, or TypeError for what is no array"
OUT_DTYPE = "out has the dtype of the result: nothing is cast on the way into it"
NAME = "asks opt_einsum for the name of the backend it had chosen"
NO_OPTION = "order, dtype and casting are no arguments"

# The name of a test, with parameters or for all of them -> the reason.
LEFT_OUT = {
    "numpy": {
        "test_einsum_errors": OWN_ERROR,
        "test_einsum_specific_errors": NO_OPTION,
        "test_einsum_object_errors": NUMBERS,
        "test_einsum_sums_object": NUMBERS,
        "test_object_loop": NUMBERS,
        "test_small_boolean_arrays": NUMBERS,
        "test_einsum_0d_out": OUT_DTYPE,
        "test_einsum_all_contig_non_contig_output": OUT_DTYPE,
        "test_output_order": NO_OPTION,
        "test_subscript_range": "any integers are indices: there is no limit of 52, and negative ones work",
        "test_broadcasting_dot_cases": BROADCAST,
        "test_singleton_broadcasting": BROADCAST,
        "test_path_type_input_invalid": OWN_ERROR,
    },
    "opt_einsum": {
        "test_auto_backend_custom_array_no_tensordot": NAME,
        "test_jax_with_constants": NAME,
        "test_torch_with_constants": NAME,
        "test_object_arrays_backend": NUMBERS,
        "test_broadcasting_contraction": BROADCAST,
        "test_broadcasting_contraction2": BROADCAST,
        "test_broadcasting_contraction3": BROADCAST,
        "test_singleton_dimension_broadcast": BROADCAST,
        "test_type_errors": NO_OPTION,
        "test_contract_with_assumed_shapes[ab,->-operands3]": NUMBERS,
        "test_jax[ijk,ikj]": "a sum over all axes is a NumPy scalar: NumPy operands are not converted to JAX here",
        "test_jax_jit_gradient": "gives a JAX array to pytest.approx, which takes none, whatever the backend",
    },
}

# Tests of numbers with a few calls that are refused on purpose: these calls go to NumPy, so that the rest counts.
REFUSED_CALLS = {"test_einsum_sums_": f"bools, and i,i with a size of 1: {NUMBERS}; {BROADCAST}"}
