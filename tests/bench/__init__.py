"""Measurements against systemd-homed 262, in one box and one run: `python -m tests.bench login`."""
