"""The service that runs TRELLIS.2 and its client; importing this package stays light (no torch).

Start reading in `protocol`, then `service/app.py` and `client/api.py`.
"""

__version__ = "0.1.0"
