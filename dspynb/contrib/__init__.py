"""Connections to other systems: Dask, programs of DSPy, and the doctor, which checks the installation."""
