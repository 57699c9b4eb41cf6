"""The process that renders: it takes orders, plays episodes and answers with samples."""
