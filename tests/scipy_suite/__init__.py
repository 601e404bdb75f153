"""SciPy's own tests of the functions behind which nconv can stand: ``python -m tests.scipy_suite``."""
