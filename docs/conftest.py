"""Doctests of these pages: what a page needs and this environment lacks."""

from importlib.util import find_spec

collect_ignore = ["conf.py"]
collect_ignore_glob = ["examples/*", "gallery/*", "_build/*", "api/generated/*"]
if find_spec("torch") is None:
    collect_ignore.append("guides/pytorch.rst")
