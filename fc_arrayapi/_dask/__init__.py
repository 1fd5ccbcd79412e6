"""The layer and einsum on chunked Dask arrays, and passes over them."""
