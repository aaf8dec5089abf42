"""The service on a kernel that makes encrypted devices."""

from tests import verifying

collect_ignore_glob = verifying.IGNORED_WITHOUT_CRYPT
