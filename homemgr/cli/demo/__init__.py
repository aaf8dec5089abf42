"""The demonstration: outside prepares and cleans up, inside shows."""
