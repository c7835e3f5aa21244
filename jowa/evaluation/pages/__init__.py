"""The pages, tables and figures people open."""
