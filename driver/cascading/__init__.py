"""`tensmith cascade`: two models as one binary."""
