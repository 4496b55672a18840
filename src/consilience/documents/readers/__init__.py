"""Readers, one file for each format; `table` is the closed list of them."""
