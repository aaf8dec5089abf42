"""Extensions: trees and images that are merged into a home while it is active.

Finds, judges and opens them. Knows nothing of users, records or the bus, changes
no extension, and mounts nothing where anybody could see it.
"""
