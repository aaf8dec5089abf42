"""The user record: its fields, merging, validation, signatures and changes. Pure."""
