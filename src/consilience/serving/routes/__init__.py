"""The routes of the API, one file for each noun; each has a `router`."""
