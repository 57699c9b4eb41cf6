"""The subcommands of ``compile-dataset``: each module is one; `compiler.cli` gathers them."""
