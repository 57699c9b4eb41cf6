"""The Blenders at work: processes, the pool of workers that drive them, and what becomes of losses."""
