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
        numbers = [number for mark in item.iter_markers("contract") for number in mark.args]
        # Travels with the report from the process that ran the test to the one that prints the table.
        report.user_properties.append(("contract", numbers))


def pytest_runtest_logreport(report):
    # A worker sees its reports too, but only the controller prints.
    numbers = next((value for name, value in report.user_properties if name == "contract"), [])
    for number in numbers:
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
