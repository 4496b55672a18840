"""Tests of the page, with a real browser."""
