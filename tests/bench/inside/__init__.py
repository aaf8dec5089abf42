"""The part of a measurement that runs in the box, by the box's Python, next to both services."""
