"""Golden-file parity: compare our numbers with the reference's, one line a file.

`python -m tests.parity [folder]` reads `folder/models` and `folder/geometry`; `check.py` defines what a
check is and the sibling modules hold the checks, keyed by file name. The same checks run under pytest in
`tests/test_parity.py`.
"""
