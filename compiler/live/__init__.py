"""The live tee: groups of listeners (no I/O), the HTTP server, and how a build uses it."""
