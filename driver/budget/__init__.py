"""Lower precision within a budget: as fast as can be, and no worse than the user allows."""
