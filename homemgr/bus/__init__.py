"""Faces: what D-Bus and varlink clients see. Convert, call, convert; decide nothing."""
