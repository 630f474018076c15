"""The rule that judges a bar."""

import sys
import unittest
from pathlib import Path

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lib.bars import BARS, METRIC_UNITS, TESTERS, VARIANT_PAIRS, Bar, judge, judge_testers, judge_variants, ratios
from lib import report
from lib.scenarios import SCENARIOS
from lib.targets import all_targets

SCENARIO = "keepalive-64"


def runs(target, figures, failures=()):
    """A run of `target` for each figure, in rounds 0, 1, …; those of the rounds in `failures` failed."""
    return [
        {"scenario": SCENARIO, "target": target, "round": number, "cpu_us": figure, "failures": int(number in failures)}
        for number, figure in enumerate(figures)
    ]


class JudgeTest(unittest.TestCase):
    BAR = Bar(SCENARIO, "cpu_us", 0.8, peer="haproxy")

    def verdict(self, ours, theirs=(10.0,) * 9, bar=BAR, failures=()):
        return judge(bar, runs("weir", ours, failures) + runs("haproxy", theirs), "weir")

    def test_median_within_the_bar_passes(self):
        verdict = self.verdict([7, 7, 7, 8, 8, 9, 9, 9, 9])
        self.assertEqual((verdict.word, verdict.text(), verdict.failed), ("PASS", "PASS", False))

    def test_median_past_the_bar_with_a_lower_quartile_within_is_near(self):
        verdict = self.verdict([7, 7, 8, 9, 9, 9, 9, 9, 9])
        self.assertEqual((verdict.word, verdict.failed), ("NEAR", False))

    def test_lower_quartile_past_the_bar_fails(self):
        verdict = self.verdict([7, 8, 9, 9, 9, 9, 9, 9, 9])
        self.assertEqual((verdict.word, verdict.failed), ("FAIL", True))

    def test_fewer_than_nine_pairs_never_fail_for_good(self):
        verdict = self.verdict([9] * 8)
        self.assertEqual((verdict.text(), verdict.failed), ("(FAIL)", False))

    def test_a_failed_run_makes_its_pair_invalid(self):
        verdict = self.verdict([7] * 9, failures=(0, 1))
        self.assertEqual((verdict.found.count, verdict.text()), (7, "(PASS)"))

    def test_only_failed_runs_fail(self):
        self.assertTrue(self.verdict([7] * 9, failures=range(9)).failed)

    def test_not_measured_is_no_verdict(self):
        verdict = self.verdict([], theirs=[])
        self.assertEqual((verdict.text(), verdict.failed), ("—", False))

    def test_a_bar_without_a_peer_is_a_figure(self):
        verdict = self.verdict([9] * 9, bar=Bar(SCENARIO, "cpu_us", 9.0))
        self.assertEqual((verdict.word, verdict.found.median), ("PASS", 9))

    def test_pairs_are_of_the_same_round(self):
        both = runs("weir", [5, 9]) + runs("haproxy", [10, 9])
        self.assertEqual(ratios(both, SCENARIO, "cpu_us", "weir", "haproxy"), [0.5, 1.0])


class VariantsTest(unittest.TestCase):
    def verdict(self, on, pairs=VARIANT_PAIRS):
        both = runs("off", [10.0] * pairs) + runs("on", [on] * pairs)
        return judge_variants({"scenario": SCENARIO, "base": "off", "subject": "on", "limit": 1.03, "runs": both})

    def test_within_and_past_the_bar(self):
        self.assertEqual((self.verdict(10.2).text(), self.verdict(10.2).failed), ("PASS", False))
        self.assertEqual((self.verdict(10.4).text(), self.verdict(10.4).failed), ("FAIL", True))

    def test_fewer_pairs_never_fail_for_good(self):
        verdict = self.verdict(10.4, pairs=VARIANT_PAIRS - 1)
        self.assertEqual((verdict.text(), verdict.failed), ("(FAIL)", False))


class TableTest(unittest.TestCase):
    def test_every_bar_names_what_exists(self):
        targets = all_targets()
        for bar in BARS:
            self.assertIn(bar.scenario, SCENARIOS)
            self.assertIn(bar.metric, METRIC_UNITS)
            if bar.peer:
                self.assertTrue(targets[bar.peer].takes_part(SCENARIOS[bar.scenario]))


class TesterTest(unittest.TestCase):
    def record(self, rates):
        """Pairs of wrk's 1,000 requests a second with these."""
        figures = [
            (name, number, rate)
            for number, ours in enumerate(rates)
            for name, rate in (("wrk", 1000.0), ("weir load", ours))
        ]
        runs = [
            {
                "scenario": TESTERS,
                "target": name,
                "round": number,
                "requests_per_s": rate,
                "gap_us": 1e6 / rate,
                "cpu_us": 5.0 if name == "wrk" else 4.0,
                "failures": 0,
            }
            for name, number, rate in figures
        ]
        rest = {"connections": 64, "date": "d", "commit": "c", "command": "x", "window_s": 3, "congestion": "cubic", "version": "v"}
        return {"runs": runs, **rest}

    def test_more_requests_pass_and_fewer_fail(self):
        self.assertEqual([verdict.word for verdict in judge_testers(self.record([1010.0] * 9))], ["PASS", "PASS"])
        slower = judge_testers(self.record([900.0] * 9))
        self.assertEqual([verdict.word for verdict in slower], ["FAIL", "PASS"])
        self.assertTrue(slower[0].failed)

    def test_the_report_names_both_and_the_verdicts(self):
        text = report.testers_text(self.record([1010.0] * 9))
        for part in ("| wrk ", "| weir load ", "0.800 (0.800–0.800)", "**PASS**"):
            self.assertIn(part, text)


if __name__ == "__main__":
    unittest.main()
