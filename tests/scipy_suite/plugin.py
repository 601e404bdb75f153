"""pytest plugin: records the outcome of every test, with ``--behind-nconv`` under `nconv.patch_scipy`.

Loaded with ``-p`` before SciPy's test modules are imported, so that functions which they keep in parameters are served
too. Every xdist worker makes its own patch and hands its counts to the process that started it.
"""

import json
from collections import Counter

import pytest


def pytest_addoption(parser):
    parser.addoption("--behind-nconv", action="store_true", help="run SciPy's functions through nconv")
    parser.addoption("--outcomes", default="", help="JSON file that takes outcomes and counts")


def pytest_configure(config):
    config.pluginmanager.register(Recorder(config), "nconv-recorder")


class Recorder:
    """The patch of one process, and in the process that started the others all outcomes."""

    def __init__(self, config):
        self.config = config
        self.outcomes = {}
        self.failures = {}
        self.ran = Counter()
        self.handed_back = Counter()
        self.patch = None
        if config.getoption("behind_nconv"):
            self.patch = _patch_with_capabilities()

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session):
        if self.patch is not None:
            self.patch.unpatch()
            counts = {"ran": self.patch.ran, "handed_back": [[*key, n] for key, n in self.patch.handed_back.items()]}
            if hasattr(session.config, "workeroutput"):
                session.config.workeroutput["nconv"] = json.dumps(counts)
            else:
                self._add(counts)
        path = self.config.getoption("outcomes")
        if path and not hasattr(session.config, "workeroutput"):
            with open(path, "w") as file:
                json.dump({"outcomes": self.outcomes, "failures": self.failures, "ran": self.ran,
                           "handed_back": [[*key, n] for key, n in self.handed_back.items()]}, file)

    @pytest.hookimpl(optionalhook=True)                 # xdist's; where it is not installed there is one process
    def pytest_testnodedown(self, node, error):
        counts = getattr(node, "workeroutput", {}).get("nconv")
        if counts:
            self._add(json.loads(counts))

    def _add(self, counts):
        self.ran.update(counts["ran"])
        for function, reason, n in counts["handed_back"]:
            self.handed_back[function, reason] += n

    def pytest_runtest_logreport(self, report):
        if report.failed:
            self.failures[report.nodeid] = str(report.longrepr)[-3000:]
        if report.when == "call" or not report.passed:
            expected = hasattr(report, "wasxfail")
            outcome = ("xpassed" if report.passed else "xfailed") if expected else report.outcome
            if self.outcomes.get(report.nodeid) != "failed":         # an error on the way out stays one
                self.outcomes[report.nodeid] = outcome

    def pytest_collectreport(self, report):
        if report.failed:
            self.outcomes[report.nodeid] = "failed"
            self.failures[report.nodeid] = str(report.longrepr)[-3000:]


def _patch_with_capabilities():
    """The patch; SciPy's tests look the functions up in a table of the array libraries that they support."""
    import scipy.ndimage
    import scipy.signal
    from scipy._lib import _array_api

    import nconv

    patch = nconv.patch_scipy()
    table = getattr(_array_api, "xp_capabilities_table", {})
    for module in (scipy.signal, scipy.ndimage):
        for function in vars(module).values():
            original = getattr(function, "__wrapped__", None)
            if original in table:
                table[function] = table[original]
    return patch
