#!/usr/bin/python3
"""No failure that ctest or a test program saw is lost on the way to the closing line."""

import os
import tempfile
import unittest

import results

CTEST = """<testsuite>
<testcase name="quiet" status="run" time="1.5"><system-out>fine</system-out></testcase>
<testcase name="cases" status="{status}" time="2"><{more}system-out>out</system-out></testcase>
<testcase name="rootless" status="notrun" time="0"><skipped message="SKIP_RETURN_CODE=77"/>
<system-out>skipped: needs root</system-out></testcase>
</testsuite>"""

CASES = """<testsuites><testsuite name="S">
<testcase name="A" status="run" result="completed" time="0.1" classname="S"/>
<testcase name="B" status="run" result="skipped" time="0" classname="S"><skipped message="no KVM"/></testcase>
{more}</testsuite></testsuites>"""


class Results(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name
        os.mkdir(os.path.join(self.folder, "unit"))

    def write(self, name, text):
        with open(os.path.join(self.folder, "unit", name), "w", encoding="utf-8") as file:
            file.write(text)

    def outcomes(self):
        return {case.name: case.outcome for case in results.read(self.folder)}

    def test_cases_of_a_program_replace_the_program(self):
        self.write("ctest.xml", CTEST.format(status="run", more=""))
        self.write("cases.xml", CASES.format(more=""))
        self.assertEqual(self.outcomes(), {"quiet": "passed", "S.A": "passed", "S.B": "skipped", "rootless": "skipped"})
        cases = {case.name: case for case in results.read(self.folder)}
        self.assertEqual(cases["S.B"].text, "no KVM")
        self.assertEqual(cases["rootless"].text, "skipped: needs root")
        self.assertEqual(results.counts(cases.values()), (2, 0, 2))

    def test_a_failed_case_is_counted_once(self):
        self.write("ctest.xml", CTEST.format(status="fail", more='failure message=""/><'))
        self.write("cases.xml", CASES.format(more='<testcase name="C" status="run"><failure message="no"/></testcase>'))
        self.assertEqual(results.counts(results.read(self.folder)), (2, 1, 2))

    def test_a_program_that_fails_although_its_cases_passed_is_a_failure(self):
        self.write("ctest.xml", CTEST.format(status="fail", more='failure message="Failed"/><'))
        self.write("cases.xml", CASES.format(more=""))
        self.assertEqual(self.outcomes()["cases (exit status)"], "failed")

    def test_a_program_that_died_before_it_wrote_its_cases_is_a_failure(self):
        self.write("ctest.xml", CTEST.format(status="fail", more='failure message="SEGFAULT"/><'))
        self.assertEqual(self.outcomes()["cases"], "failed")
        self.assertIn("out", next(case.text for case in results.read(self.folder) if case.name == "cases"))


if __name__ == "__main__":
    unittest.main()
