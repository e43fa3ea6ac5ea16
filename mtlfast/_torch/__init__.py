"""Ops in torch calls alone, as good as a kernel where there is none, or beside one.

Unlike :mod:`mtlfast.reference`, which has every formula in its plainest form, these are made to be
used: in tiles of bounded memory, by the fastest decomposition, at every scale.
"""
