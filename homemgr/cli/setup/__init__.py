"""Putting units and policy in place, and taking them away again."""
