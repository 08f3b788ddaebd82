"""What a run will cost, said before it starts: from its plan, a few probe rows, and earlier runs."""

from dspynb.forecasting.forecast import Estimate, Forecast

__all__ = ["Estimate", "Forecast"]
