"""How a home area lies on disk and becomes a detached mount; no D-Bus, no final decision."""
