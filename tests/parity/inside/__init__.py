"""The part of the comparison that runs in a box, by the box's Python; knows neither service."""
