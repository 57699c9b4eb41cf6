"""Tests of the compiler: plans, processes, storage, the tee, verification, the command line."""
