"""The built-in jobs: each file is one, and its name is what `compile-dataset NAME` takes."""
