"""How a call reaches the service: flows of requests, retries, deadlines, server-sent events.

Imports httpx and the protocol. Start reading in `core`, then `calls`.
"""
