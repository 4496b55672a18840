"""All code that a coordinator can send to a party: it carries bytes and understands none of them.

A party lets only these files run, byte for byte as it has them installed itself.
"""
