#!/usr/bin/python3
"""The checker of docs/promises.md can say no."""

import unittest

import check
from results import Case


def page(**changed):
    """A whole page whose lines are unticked, save those given as NUMBER=(ticked, tests)."""
    lines = []
    for number in check.NUMBERS:
        ticked, tests = changed.get(number, (False, ""))
        lines.append(f"- [{'x' if ticked else ' '}] {number} text" + (f" — test: {tests}" if tests else ""))
    return "\n".join(lines)


class Page(unittest.TestCase):
    def complaints(self, text):
        return check.read_promises(text)[1]

    def test_a_whole_page_is_fine(self):
        self.assertEqual(self.complaints(page()), [])

    def test_a_missing_a_double_and_an_unknown_number_are_told(self):
        text = page().replace("- [ ] A7 text\n", "- [ ] A8 text\n").replace("- [ ] L99 text", "- [ ] L100 text")
        self.assertEqual(self.complaints(text),
                         ["A8 stands there 2 times", "A7 is missing", "L99 is missing", "there is no L100"])

    def test_a_ticked_line_without_a_test_is_told(self):
        self.assertEqual(self.complaints(page(W3=(True, ""))), ["W3 is ticked and names no test"])

    def test_a_test_without_a_group_and_a_line_of_another_shape_are_told(self):
        self.assertEqual(self.complaints(page(A1=(True, "Suite.Test"))), ["A1: 'Suite.Test' is not group/Name"])
        self.assertEqual(self.complaints(page() + "\n- [X] A1 text"), ["cannot be read: - [X] A1 text"])


class Verdict(unittest.TestCase):
    tests = {"unit": {"S.A", "S.B", "program"}, "contract": {"Files/S.C", "Memory/S.C", "S.C"}}

    def verdict(self, tests, *cases):
        promises, complaints = check.read_promises(page(A1=(True, tests)))
        self.assertEqual(complaints, [])
        return check.complaints_about(promises, self.tests,
                                      [Case(group, "program", name, outcome, 0, "") for group, name, outcome in cases])

    def test_a_passed_test_satisfies(self):
        self.assertEqual(self.verdict("unit/S.A", ("unit", "S.A", "passed")), [])

    def test_an_unknown_a_failed_a_skipped_and_a_test_that_was_not_run_do_not(self):
        self.assertEqual(self.verdict("unit/S.Z"), ["A1: there is no test unit/S.Z"])
        self.assertEqual(self.verdict("network/S.A", ("unit", "S.A", "passed")), ["A1: there is no test network/S.A"])
        self.assertEqual(self.verdict("unit/S.A", ("unit", "S.A", "failed")), ["A1: unit/S.A failed"])
        self.assertEqual(self.verdict("unit/S.A", ("unit", "S.A", "skipped")), ["A1: unit/S.A was skipped"])
        self.assertEqual(self.verdict("unit/S.A", ("unit", "S.B", "passed")), ["A1: unit/S.A was not run"])

    def test_every_one_of_several_tests_counts(self):
        self.assertEqual(self.verdict("unit/S.A, unit/S.B", ("unit", "S.A", "passed"), ("unit", "S.B", "failed")),
                         ["A1: unit/S.B failed"])

    def test_a_parametrised_test_stands_for_all_its_instances(self):
        both = [("contract", "Files/S.C", "passed"), ("contract", "Memory/S.C", "failed")]
        self.assertEqual(self.verdict("contract/S.C", *both), ["A1: contract/S.C failed"])
        self.assertEqual(self.verdict("contract/Files/S.C", *both), [])


class Names(unittest.TestCase):
    def test_plain_names(self):
        for name in ("Files/StorageContract.Put/0", "StorageContract.Put", "Files/StorageContract/1.Put",
                     "StorageContract/0.Put", "Files/StorageContract.Put/by_name"):
            self.assertEqual(check.plain(name), "StorageContract.Put")

    def test_the_listing_of_googletest_is_read(self):
        listing = "Running main() from x.cc\nS.\n  A\n  B/0  # GetParam() = 4.\nInst/T.\n  C\nU/0.  # TypeParam = int\n  D\n"
        self.assertEqual(list(check.gtest_names(listing)), ["S.A", "S.B/0", "Inst/T.C", "U/0.D"])


if __name__ == "__main__":
    unittest.main()
