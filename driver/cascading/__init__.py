"""`tensmith cascade`: two models as one binary."""

USUAL_DROP = "0.2%"  # that a cascade may lose against its last stage
