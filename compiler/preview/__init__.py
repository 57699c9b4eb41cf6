"""Samples as pictures for people."""
