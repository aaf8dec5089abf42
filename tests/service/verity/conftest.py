"""The service on a kernel that checks the blocks of signed images."""

from tests import verifying

collect_ignore_glob = verifying.IGNORED
