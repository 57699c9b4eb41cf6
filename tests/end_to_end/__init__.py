"""Whole builds: determinism, faults, examples."""
