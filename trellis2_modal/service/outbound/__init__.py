"""Requests that the service sends to addresses which its callers chose: pictures by URL, and callbacks.

`addresses` says which may be reached, `requests` sends to the very address that was checked. May import the
protocol alone.
"""
