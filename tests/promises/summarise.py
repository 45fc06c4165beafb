#!/usr/bin/python3
"""summarise.py group FOLDER GROUP    one group of a results folder
summarise.py total FOLDER...       all groups of some results folders

The last line is `N passed, N failed, N skipped`. Before it, for a group: why cases failed, and in a line per reason why
cases were skipped. Exit status 1 if a case failed or none ran.
"""

import collections
import sys
import xml.etree.ElementTree as xml

import results

LINES_OF_A_FAILURE = 60


def explain(cases):
    for case in cases:
        if case.outcome == "failed":
            print(f"    FAILED {case.group}/{case.name}")
            lines = case.text.strip().splitlines()
            if len(lines) > LINES_OF_A_FAILURE:
                lines[LINES_OF_A_FAILURE:] = [f"... and {len(lines) - LINES_OF_A_FAILURE} lines more in the log"]
            print("\n".join("        " + line for line in lines))
    reasons = collections.Counter((case.text.splitlines() or ["no reason given"])[-1].strip()
                                  for case in cases if case.outcome == "skipped")
    for reason, number in reasons.most_common():
        print(f"    skipped {number}: {reason}")


def main():
    if sys.argv[1] == "group":
        folder, group = sys.argv[2:]
        try:
            cases = results.read_group(folder, group)
        except (FileNotFoundError, xml.ParseError) as error:
            print(f"    no results: {error}")
            cases = []
        explain(cases)
    else:
        cases = [case for folder in sys.argv[2:] for case in results.read(folder)]
    passed, failed, skipped = results.counts(cases)
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    return 1 if failed or not cases else 0


if __name__ == "__main__":
    sys.exit(main())
