"""The backend of Arm's Ethos-U: integers, as TOSA graphs, to command streams that Vela makes."""
