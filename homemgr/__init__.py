"""homemgr: portable home areas that nobody owns on disk.

Faces translate, the daemon decides, a worker does, the kernel room calls, the
record room knows:

- ``entry``: composition root of `homemgr` and `homemgrd`
- ``offline``: the service over an image, entered for good, and a line to it; no bus
- ``cli``: verbs, options, prompts; speaks to the service over the bus
- ``bus``: org.freedesktop.home1 and io.systemd.UserDatabase as tables
- ``daemon``: homes, their state, queues, references, transfers; who may do what
- ``work``: one module for each verb, and what verbs share; run in a process of its own
- ``storage``: how a home lies on disk and becomes a detached mount
- ``volume``: partition tables, LUKS volumes, file systems on devices
- ``extension``: trees and images that are merged into a home while it is active
- ``transfer``: how a home travels: entries, digests, frames, archives; pure
- ``record``: user records: sections, rules, signatures; pure
- ``wire``: D-Bus and varlink transport, polkit's question
- ``token``: security tokens, PKCS#11 and FIDO2, through the system's libraries
- ``kernel``: one function for each system call, no policy
- ``errors``, ``job``, ``files``, ``library``, ``crypt``, ``qrencode``: the ground floor

Imports point downwards only; tests/lint enforces the table.
"""
