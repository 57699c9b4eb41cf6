"""From what the user chose to a plan, and from a manifest back to it."""
