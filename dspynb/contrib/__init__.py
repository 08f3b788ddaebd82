"""What stands beside the house: Dask, migration from DSPy, the doctor."""
