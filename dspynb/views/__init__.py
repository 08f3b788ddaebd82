"""How a run is seen."""
