"""Specs to verified shared libraries.

In: the text of a spec. Out: its `Compilation`, and a library whose bytes have been verified.

A change here may alter when something is compiled and where it is kept; it never alters what a rule computes.
"""
