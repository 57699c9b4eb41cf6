"""Tests of the repository itself: imports, public names, documentation, packaging."""
