"""The part of the load that runs in a box, by the box's Python."""
