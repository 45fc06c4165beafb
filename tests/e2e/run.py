#!/usr/bin/python3
"""Runs end-to-end stories against a build tree, and writes their results as GoogleTest writes its own.

    run.py --build FOLDER [--list] MODULE[.Class[.test]]...

Needs root and a network namespace of its own (tests/in-private-network). Where GTEST_OUTPUT=xml:FOLDER/ is set, the
results go to FOLDER/e2e_<story>.xml. Exit status 77 if every test was skipped.
"""

import argparse
import os
import sys
import time
import unittest
import xml.etree.ElementTree as xml

import harness


class Result(unittest.TextTestResult):
    """Says more about a failure, and remembers everything for the XML file."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.cases = {}  # test id -> (seconds, outcome, text), in order
        self._began = 0.0

    def startTest(self, test):
        super().startTest(test)
        self._began = time.monotonic()
        self.cases[test.id()] = (0.0, "passed", "")

    def stopTest(self, test):
        super().stopTest(test)
        _, outcome, text = self.cases[test.id()]
        self.cases[test.id()] = (time.monotonic() - self._began, outcome, text)

    def _failed(self, test, error):
        text = self._exc_info_to_string(error, test)
        explain = getattr(test, "explain", None)
        if explain:
            more = explain()
            text += "\n" + more
            self.stream.writeln("\n" + more)
        self.cases[test.id()] = (0.0, "failed", text)

    def addError(self, test, err):
        super().addError(test, err)
        self._failed(test, err)

    def addFailure(self, test, err):
        super().addFailure(test, err)
        self._failed(test, err)

    def addSubTest(self, test, subtest, err):
        super().addSubTest(test, subtest, err)
        if err is not None:
            self.cases[test.id()] = (0.0, "failed", f"{subtest}\n" + self._exc_info_to_string(err, test))

    def addSkip(self, test, reason):
        super().addSkip(test, reason)
        self.cases[test.id()] = (0.0, "skipped", reason)


def write_results(cases, path):
    suites = xml.Element("testsuites")
    for name, (seconds, outcome, text) in cases.items():
        _, suite, case = name.rsplit(".", 2)
        element = next((one for one in suites if one.get("name") == suite), None)
        if element is None:
            element = xml.SubElement(suites, "testsuite", name=suite)
        entry = xml.SubElement(element, "testcase", name=case, classname=suite, status="run", time=f"{seconds:.3f}",
                               result="skipped" if outcome == "skipped" else "completed")
        if outcome != "passed":
            printable = "".join(c for c in text if c in "\n\t" or ord(c) >= 32)
            xml.SubElement(entry, "failure" if outcome == "failed" else "skipped", message=printable)
    xml.ElementTree(suites).write(path, encoding="utf-8", xml_declaration=True)


def names(suite):
    for test in suite:
        if isinstance(test, unittest.TestSuite):
            yield from names(test)
        else:
            yield test.id().split(".", 1)[1]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", help="the build tree to test")
    parser.add_argument("--list", action="store_true", help="print Class.test of every test and run nothing")
    parser.add_argument("stories", nargs="+")
    options = parser.parse_args()
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
    suite = unittest.defaultTestLoader.loadTestsFromNames(options.stories)
    if options.list:
        print("\n".join(names(suite)))
        return 0
    if not options.build:
        parser.error("--build is missing")
    harness.use_build(options.build)
    result = unittest.TextTestRunner(stream=sys.stdout, verbosity=2, resultclass=Result).run(suite)
    output = os.environ.get("GTEST_OUTPUT", "")
    if output.startswith("xml:") and output.endswith("/"):
        story = options.stories[0].split(".")[0].removeprefix("test_")
        os.makedirs(output[4:], exist_ok=True)
        write_results(result.cases, os.path.join(output[4:], f"e2e_{story}.xml"))
    if not result.wasSuccessful():
        return 1
    return 77 if result.cases and all(outcome == "skipped" for _, outcome, _ in result.cases.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
