"""How a home travels: what is sent of a file, as bytes, frames or an archive.

Pure: no input or output, no clock. What arrives is read as hostile: `StreamError`
is the only answer to anything that is not exactly as these modules would write it.

`storage` imports from here, although it stands for what lies on disk: an entry and its
digest are one thing on disk and on the way, and two types for it would be translated at
every file of a home. The other way round nothing is imported.
"""
