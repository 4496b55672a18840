"""Other libraries' interfaces over this one, for programs that were written against them.

One module a library. Nothing below this room knows that it exists.
"""
