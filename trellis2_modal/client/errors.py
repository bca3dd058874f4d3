"""What a client may have to catch: the service's own errors, and those of getting no proper answer.

ServiceError                         catches everything
├── (the tree of `trellis2_modal.protocol.errors`: what the service said)
├── NoAnswerError                    the service said nothing usable
│   ├── UnreachableError             no connection: wrong address, no network, nothing listening, TLS
│   ├── NoReplyError                 connected, but no reply in time, or it broke off
│   ├── NotTheServiceError           something answered that is not this service
│   ├── ProxyTokenError              Modal's edge lets nobody in without its proxy token
│   ├── NoServiceError               none is set, and the command needs one
│   └── LocalServerError             the server on this machine did not start; `log` has its last lines
├── EnvironmentVariableError         a proxy or certificate variable cannot be used
└── AppRunsError                     the app is already open, or something has its port
"""

from __future__ import annotations

from ..protocol.errors import ServiceError


class NoAnswerError(ServiceError):
    slug, status, title = "no-answer", 0, "The service did not answer"
    retryable = True


class UnreachableError(NoAnswerError):
    slug, title = "unreachable", "The service cannot be reached"


class NoReplyError(NoAnswerError):
    slug, title = "no-reply", "The service did not reply in time"


class NotTheServiceError(NoAnswerError):
    slug, title = "not-the-service", "Something else answered at this address"
    retryable = False


class ProxyTokenError(NoAnswerError):
    slug, status, title = "proxy-token", 401, "This address asks for a proxy token"
    retryable = False


class NoServiceError(NoAnswerError):
    slug, title = "no-service", "There is no service"
    retryable = False


class LocalServerError(NoAnswerError):
    slug, title = "local-server", "The server on this machine did not start"
    retryable = False

    def __init__(self, detail: str, log: str = "") -> None:
        super().__init__(detail)
        self.log = log


class EnvironmentVariableError(ServiceError):
    """A variable that sets a proxy or certificates names something unusable."""

    slug, status, title = "environment", 0, "An environment variable cannot be used"


class AppRunsError(ServiceError):
    """The app cannot open here because something, most likely the app itself, already does."""

    slug, status, title = "app-runs", 0, "The app is already open"
