"""Time that a worker, and what it started, has waited for a CPU."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

from rlvr.verify.worker import waited_below

SPIN = """
import os
for _ in range(3 * os.cpu_count()):
    if os.fork() == 0:
        print("spinning", flush=True)
        while True: pass
os.wait()
"""


def test_descendants_that_wait_for_a_cpu_are_counted_if_they_began_in_time() -> None:
    began = time.monotonic()
    with subprocess.Popen([sys.executable, "-c", SPIN], stdout=subprocess.PIPE, start_new_session=True) as parent:
        try:
            assert parent.stdout is not None
            parent.stdout.readline()
            while waited_below(os.getpid(), began) < 0.1:  # three for each CPU: two of them wait
                time.sleep(0.01)
            assert waited_below(os.getpid(), time.monotonic() + 60) == 0
            assert waited_below(parent.pid, began) > 0
        finally:
            os.killpg(parent.pid, signal.SIGKILL)
    assert waited_below(10**9, began) == 0, "there is no such process"
