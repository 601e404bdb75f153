"""Measuring nconv against the rivals that are installed: `nconv bench`, the result tables, asv."""
