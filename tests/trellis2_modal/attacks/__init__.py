"""What a hostile caller sends, and what the service does then: `python -m tests.trellis2_modal.attacks`.

Everything goes to a server of its own on 127.0.0.1, bounded in number and time. The command prints a table of
figures; the tests run smaller amounts of the same.
"""
