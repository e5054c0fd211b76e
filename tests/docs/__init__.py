"""The parts of the documentation that are generated from the code.

A page in docs/ is written by hand, except for its blocks between ``<!-- generated: NAME … -->`` and
``<!-- end of generated -->``. ``python -m tests.docs`` writes all of them again; ``test_pages`` fails for a
page that it would change.
"""
