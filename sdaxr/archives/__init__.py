"""Zarr archives in units of work, complete files, and the workers that fill them."""
