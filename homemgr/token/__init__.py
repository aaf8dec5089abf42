"""Security tokens: what unlocks a home besides a password, through the system's own libraries.

PKCS#11 tokens through libp11-kit and the modules that the system's configuration names,
FIDO2 tokens through libfido2, both loaded when a record or a command line names a token and
never before. Knows no records, homes or services; `answers` tells what tokens say to a
record's entries, `pkcs11` and `fido2` also enrol one.

Whatever runs here may hang on a device or die of a driver: the service calls it in a
process of its own (`work.tokens`).
"""
