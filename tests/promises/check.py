#!/usr/bin/python3
"""Holds docs/promises.md to the tests.

    check.py groups PROMISES            the groups of tests that its ticked lines name
    check.py check PROMISES BUILD       every ticked line's tests exist in the build tree and passed in BUILD/results

A line of the page is `- [ ] A1 text` or `- [x] A1 text — test: group/Suite.Test, group/Suite.Test`. A parametrised test is
named without instantiation and parameter (`contract/StorageContract.PutIsDurable`) and then stands for all of its
instances. A program that has no cases of its own is named by its ctest name.
"""

import collections
import json
import os
import re
import subprocess
import sys

import results

# All that the page must have, each once.
NUMBERS = [f"{letter}{n}" for letter, last in (("A", 50), ("B", 53), ("L", 99), ("W", 21)) for n in range(1, last + 1)]

LINE = re.compile(r"- \[([ x])\] ([ABLW]\d+) (\S.*)$")
TESTS = " — test: "

Promise = collections.namedtuple("Promise", "number ticked text tests")


def read_promises(text):
    """(promises, complaints about the page itself)"""
    promises, complaints = [], []
    for line in text.splitlines():
        if not line.startswith("- ["):
            continue
        match = LINE.match(line)
        if not match:
            complaints.append(f"cannot be read: {line}")
            continue
        said, _, tests = match[3].partition(TESTS)
        names = [name.strip() for name in tests.split(",") if name.strip()]
        promise = Promise(match[2], match[1] == "x", said, names)
        if promise.ticked and not names:
            complaints.append(f"{promise.number} is ticked and names no test")
        for name in names:
            if "/" not in name:
                complaints.append(f"{promise.number}: '{name}' is not group/Name")
        promises.append(promise)
    numbers = collections.Counter(promise.number for promise in promises)
    complaints += [f"{number} stands there {count} times" for number, count in numbers.items() if count > 1]
    complaints += [f"{number} is missing" for number in NUMBERS if number not in numbers]
    complaints += [f"there is no {number}" for number in numbers if number not in NUMBERS]
    return promises, complaints


def plain(name):
    """A GoogleTest name without instantiation and parameter: Files/StorageContract.Put/0 -> StorageContract.Put"""
    suite, dot, test = name.partition(".")
    if not dot:
        return name
    parts = suite.split("/")
    if len(parts) > 1 and parts[-1].isdigit():
        parts.pop()  # a typed test's number
    return f"{parts[-1]}.{test.split('/')[0]}"


def gtest_names(listing):
    suite = ""
    for line in listing.splitlines():
        word = line.split("#")[0].strip()
        if line.startswith(" "):
            yield suite + word
        elif word.endswith("."):
            suite = word


def existing(build):
    """{group: names} of all tests in the build tree; a name is full or plain, or that of a program."""
    listing = subprocess.run(["ctest", "--test-dir", build, "--show-only=json-v1"], check=True, capture_output=True, text=True)
    found = collections.defaultdict(set)
    for test in json.loads(listing.stdout)["tests"]:
        labels = next((p["value"] for p in test.get("properties", []) if p["name"] == "LABELS"), [])
        command = test.get("command", [])
        names = {test["name"]}
        runner = next((word for word in command if word.endswith("/e2e/run.py")), None)
        listed = None
        if runner:
            listed = [sys.executable, "-B", runner, "--list", command[-1]]
        elif command and os.path.basename(command[-1]) == test["name"]:
            listed = [command[-1], "--gtest_list_tests"]
        if listed:
            done = subprocess.run(listed, capture_output=True, text=True, check=False, timeout=120, stdin=subprocess.DEVNULL)
            if done.returncode == 0:
                cases = done.stdout.split() if runner else list(gtest_names(done.stdout))
                names |= {*cases, *(plain(case) for case in cases)}
        for label in labels:
            found[label] |= names
    return found


def complaints_about(promises, tests, cases):
    """`tests`: as existing() gives; `cases`: results.Case of this run."""
    outcomes = collections.defaultdict(list)
    for case in cases:
        for name in {case.name, plain(case.name), case.program}:
            outcomes[case.group, name].append(case.outcome)
    lines = []
    for promise in promises:
        if not promise.ticked:
            continue
        for name in promise.tests:
            group, _, test = name.partition("/")
            seen = outcomes.get((group, test), [])
            if test not in tests.get(group, ()):
                lines.append(f"{promise.number}: there is no test {name}")
            elif not seen:
                lines.append(f"{promise.number}: {name} was not run")
            elif "failed" in seen:
                lines.append(f"{promise.number}: {name} failed")
            elif "passed" not in seen:
                lines.append(f"{promise.number}: {name} was skipped")
    return lines


def main():
    action, page = sys.argv[1:3]
    with open(page, encoding="utf-8") as file:
        promises, complaints = read_promises(file.read())
    ticked = [promise for promise in promises if promise.ticked]
    if action == "groups":
        print("\n".join(sorted({name.split("/")[0] for promise in ticked for name in promise.tests})))
        return 0
    build = sys.argv[3]
    if any(promise.tests for promise in ticked):
        complaints += complaints_about(promises, existing(build), results.read(os.path.join(build, "results")))
    for line in complaints:
        print(f"    {line}")
    print(f"promises  {len(ticked)} of {len(promises)} ticked, {len(complaints)} complaints")
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
