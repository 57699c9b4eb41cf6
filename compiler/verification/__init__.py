"""Is this dataset what its manifest says? Reading, comparing, rendering again."""
