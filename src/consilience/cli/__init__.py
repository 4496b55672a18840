"""The command line: one file per verb, one place for errors, one table of messages."""
