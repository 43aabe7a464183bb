"""The parts of scripts/debian-trial."""
