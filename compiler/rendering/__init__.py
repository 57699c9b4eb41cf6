"""The Blenders at work: processes, the crew that drives them, and what becomes of losses."""
