"""The layer and einsum in memory, on functions of the array API standard. No library is named here."""
