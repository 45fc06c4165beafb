"""Reads what a test run left: ctest's JUnit file, and the files of GoogleTest and of tests/e2e/run.py beside it.

A results folder holds one folder per group:
    <group>/ctest.xml        what ctest saw: one case per program
    <group>/<program>.xml    what the program itself says of its cases

A program without a file of its own counts as one case. A program that failed although all its cases passed (it crashed
at its end, a sanitizer complained) is one failed case more: nothing that ctest saw failing can be lost.
"""

import dataclasses
import os
import xml.etree.ElementTree as xml


@dataclasses.dataclass
class Case:
    group: str
    program: str
    name: str     # "Suite.Test", or the program's name
    outcome: str  # "passed", "failed", "skipped"
    seconds: float
    text: str     # why it failed or was skipped


def _outcome(element):
    failures = [one for one in element if one.tag in ("failure", "error")]
    if failures:
        return "failed", "\n".join(one.get("message") or one.text or "" for one in failures)
    skipped = element.find("skipped")
    if skipped is not None or element.get("result") in ("skipped", "suppressed") or element.get("status") == "notrun":
        return "skipped", (skipped.get("message") or skipped.text or "" if skipped is not None else "not run").strip()
    return "passed", ""


def _program_cases(group, program, path):
    for suite in xml.parse(path).getroot():
        for case in suite.iter("testcase"):
            outcome, text = _outcome(case)
            yield Case(group, program, f"{suite.get('name')}.{case.get('name')}", outcome,
                       float(case.get("time") or 0), text)


def read_group(folder, group):
    """Every case of one group. Raises FileNotFoundError if the group was not run."""
    cases = []
    for test in xml.parse(os.path.join(folder, group, "ctest.xml")).getroot().iter("testcase"):
        program = test.get("name")
        outcome, text = _outcome(test)
        output = (test.findtext("system-out") or "").strip()
        path = os.path.join(folder, group, f"{program}.xml")
        own = list(_program_cases(group, program, path)) if os.path.exists(path) else []
        if own and outcome == "failed" and all(case.outcome != "failed" for case in own):
            own.append(Case(group, program, f"{program} (exit status)", "failed", 0.0, f"{text}\n{output[-4000:]}"))
        if not own:
            seconds = float(test.get("time") or 0)
            if outcome == "skipped" and "skipped:" in output:
                text = next(line for line in output.splitlines() if "skipped:" in line)
            own = [Case(group, program, program, outcome, seconds, text if outcome != "failed" else f"{text}\n{output[-4000:]}")]
        cases += own
    return cases


def groups(folder):
    """Groups that have results."""
    if not os.path.isdir(folder):
        return []
    return sorted(name for name in os.listdir(folder) if os.path.exists(os.path.join(folder, name, "ctest.xml")))


def read(folder):
    return [case for group in groups(folder) for case in read_group(folder, group)]


def counts(cases):
    """(passed, failed, skipped)"""
    return tuple(sum(case.outcome == outcome for case in cases) for outcome in ("passed", "failed", "skipped"))
