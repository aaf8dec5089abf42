"""How a home travels: what is sent of a file, as bytes, frames or an archive.

Pure: no input or output, no clock. What arrives is read as hostile: `StreamError`
is the only answer to anything that is not exactly as these modules would write it.
"""
