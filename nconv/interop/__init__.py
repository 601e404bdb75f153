"""nconv inside other libraries."""
