"""For all levels: what tests start reacts to signals, however the run itself was started."""

from __future__ import annotations

import signal

# Whoever starts a run in the background or with nohup(1) ignores these, and programs that
# tests start, interrupt and hang up on would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
signal.signal(signal.SIGQUIT, signal.SIG_DFL)
