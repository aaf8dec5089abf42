"""For all levels: a run that was started in the background still hears its own signals."""

from __future__ import annotations

import signal

# A shell starts what it puts into the background with SIGINT ignored; programs that tests
# start and interrupt would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
