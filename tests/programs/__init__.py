"""Other people's programs behind nconv: ``python -m tests.programs``."""
