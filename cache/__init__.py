"""The feature cache: ordinary Zarr v3 and HDF5 on disk or an object store, read at memory speed, provably intact."""
