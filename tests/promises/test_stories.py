#!/usr/bin/python3
"""What a story of tests/e2e did is written down, also where a whole class of it was skipped or failed."""

import os
import sys
import tempfile
import unittest

import results

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "e2e"))
import run  # noqa: E402  pylint: disable=wrong-import-position


class Stories(unittest.TestCase):
    def test_a_whole_class_has_its_line(self):
        with tempfile.TemporaryDirectory() as folder:
            os.mkdir(os.path.join(folder, "e2e"))
            with open(os.path.join(folder, "e2e", "ctest.xml"), "w", encoding="utf-8") as file:
                file.write('<testsuite><testcase name="e2e_story" status="fail"><failure/></testcase></testsuite>')
            run.write_results({"test_story.Some.test_it": (1.0, "passed", ""),
                               "setUpClass (test_story.Real)": (0.0, "skipped", "there is none"),
                               "setUpClass (test_story.Broken)": (0.0, "failed", "why")},
                              os.path.join(folder, "e2e", "e2e_story.xml"))
            self.assertEqual({case.name: case.outcome for case in results.read(folder)},
                             {"Some.test_it": "passed", "Real.setUpClass": "skipped", "Broken.setUpClass": "failed"})


if __name__ == "__main__":
    unittest.main()
