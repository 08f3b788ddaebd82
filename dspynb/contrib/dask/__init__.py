"""An executor that runs rollouts on the workers of a Dask cluster."""
