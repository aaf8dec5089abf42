"""Load: many users, malformed input and kills at once, and what must be left of it: nothing."""
