"""What stands in for an Ethos-U: a driver whose command streams the simulator runs."""
