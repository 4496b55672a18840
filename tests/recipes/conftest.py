"""Recipes are files to run, not a package: their folder joins the import path for these tests."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "recipes" / "shipped_model"))
