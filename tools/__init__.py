"""Scripts behind the make targets, and those that make the bundled assets."""
