"""The service over an image: all that it knows of records, keys and homes, without a bus.

`entry` enters the image, in a process of its own, from which nothing outside can be reached
by any path; `service` is the one service there, for the one caller at the other end of a
line; `line` starts it and gives that end away.
"""
