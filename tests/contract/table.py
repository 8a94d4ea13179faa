"""Prints the table of the contract: each number, what it asks for, and how its tests went."""

from __future__ import annotations

from collections import defaultdict

import pytest

from tests.contract.numbers import NUMBERS

OUTCOMES: dict[str, list[str]] = defaultdict(list)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    report = (yield).get_result()
    if report.when == "call" or report.outcome != "passed":
        for mark in item.iter_markers("contract"):
            for number in mark.args:
                OUTCOMES[number].append(report.outcome)


def pytest_terminal_summary(terminalreporter):
    if not OUTCOMES:
        return
    terminalreporter.section("the model contract")
    for number, behaviour in NUMBERS.items():
        outcomes = OUTCOMES.get(number, [])
        terminalreporter.line(f"{number:<10} {_word(outcomes):<8} {len(outcomes):>3} tests  {behaviour}")


def _word(outcomes):
    if "passed" not in outcomes:
        return "not run" if "failed" not in outcomes else "FAILED"
    return "ok" if "failed" not in outcomes else "FAILED"
