"""Sphinx configuration: warnings are errors (`make docs`), every example on every page is a doctest."""

from importlib.metadata import version as _version

import matplotlib

matplotlib.use("Agg")

project = "nconv"
author = "nconv developers"
copyright = "2026, nconv developers"
version = release = _version("nconv")

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.viewcode",
    "numpydoc",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["_build", "examples", "adr/template.rst"]
html_theme = "furo"
html_title = f"nconv {version}"
default_role = "py:obj"

autosummary_generate = True
autodoc_typehints = "none"              # numpydoc sections state the types, with shapes
numpydoc_show_class_members = False
numpydoc_class_members_toctree = False

sphinx_gallery_conf = {
    "examples_dirs": "examples",
    "gallery_dirs": "gallery",
    "filename_pattern": r"/plot_",
    "within_subsection_order": "FileNameSortKey",
    "abort_on_example_error": True,
    "write_computation_times": False,
    "min_reported_time": 1e9,
    "show_signature": False,
    "download_all_examples": False,
    "capture_repr": (),
    "remove_config_comments": True,
}
