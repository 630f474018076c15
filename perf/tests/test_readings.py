"""What is read from the kernel and its tools."""

import os
import sys
import time
import unittest
from pathlib import Path

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lib import readings, syscalls
from lib.stats import quartiles


class CpuTest(unittest.TestCase):
    def test_a_busy_loop_is_seen(self):
        before = readings.cpu_time([os.getpid()])
        own = time.process_time_ns()
        while time.process_time_ns() - own < 100_000_000:
            pass
        used, user_share = readings.cpu_between(before, readings.cpu_time([os.getpid()]))
        # The kernel brings schedstat up to date at a tick, a hundredth of a second at the longest.
        self.assertGreater(used, 85_000_000)
        self.assertIsNotNone(user_share)

    def test_a_thread_that_is_new_counts_from_zero(self):
        before = readings.CpuTime({1: 100}, 0, 0)
        after = readings.CpuTime({1: 150, 2: 30}, 3, 1)
        self.assertEqual(readings.cpu_between(before, after), (80, 0.75))

    def test_the_tree_starts_with_the_process_itself(self):
        self.assertEqual(readings.tree(os.getpid())[0], os.getpid())


class SyscallTextTest(unittest.TestCase):
    def test_perf(self):
        lines = [
            "# started on …",
            "",
            "15,,raw_syscalls:sys_enter,100,100.00,,",
            "12,,syscalls:sys_enter_futex,100,100.00,,",
            "0,,syscalls:sys_enter_read,100,100.00,,",
            "<not counted>,,syscalls:sys_enter_write,0,100.00,,",
        ]
        self.assertEqual(syscalls.from_perf(lines), {"futex": 12, "unnamed": 3})

    def test_strace(self):
        lines = [
            "% time     seconds  usecs/call     calls    errors syscall",
            "------ ----------- ----------- --------- --------- ----------------",
            " 90.00    0.900597          29     30636           io_uring_enter",
            " 10.00    0.100000          29        36        12 accept4",
            "100.00    1.000597          29     30672        12 total",
        ]
        self.assertEqual(syscalls.from_strace(lines), {"io_uring_enter": 30636, "accept4": 36})


class QuartilesTest(unittest.TestCase):
    def test_of_nine_are_the_third_fifth_and_seventh(self):
        found = quartiles([9, 1, 8, 2, 7, 3, 6, 4, 5])
        self.assertEqual((found.low, found.median, found.high, found.count), (3, 5, 7, 9))

    def test_what_is_missing_is_left_out(self):
        self.assertEqual(quartiles([None, 4.0]).median, 4.0)
        self.assertIsNone(quartiles([None]))


if __name__ == "__main__":
    unittest.main()
