"""Parity: one scenario, step by step, against systemd-homed and against this service."""
