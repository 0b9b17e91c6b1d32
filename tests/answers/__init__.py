"""Right and typically wrong answers to the exercises, one module a chapter."""
