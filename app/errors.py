"""The exceptions of the service: each carries its HTTP status, its problem type and a sentence on how to mend it."""

from typing import ClassVar


class AfterImageError(Exception):
    """Base of all errors that are meant for the caller; the message is the problem's `detail`."""

    status: ClassVar[int] = 500
    type: ClassVar[str] = "internal-error"
    title: ClassVar[str] = "Internal error"

    @property
    def headers(self) -> dict[str, str]:
        """HTTP headers that belong to the answer."""
        return {}


class StartupError(AfterImageError):
    """The service cannot start; the message is one line and names, behind its last semicolon, what to do."""

    type = "startup-error"
    title = "The service cannot start"

    def __init__(self, message: str, part: str = "") -> None:
        """`part` is what does not work, as `afterimage doctor` names it, where that is not clear otherwise."""
        super().__init__(message)
        self.part = part


class InvalidInputError(AfterImageError):
    """What was sent does not fit; the message names the value and the limit."""

    status = 422
    type = "invalid-input"
    title = "Invalid input"


class NotFoundError(AfterImageError):
    """There is no such thing, or the caller may not see it."""

    status = 404
    type = "not-found"
    title = "Not found"


class UnauthorizedError(AfterImageError):
    """The request carries no key, or none that counts."""

    status = 401
    type = "unauthorized"
    title = "Unauthorized"

    def __init__(self, message: str, *, given: bool) -> None:
        """`given` tells whether the request carried a key at all."""
        super().__init__(message)
        self.given = given

    @property
    def headers(self) -> dict[str, str]:
        """The challenge of RFC 6750."""
        return {"WWW-Authenticate": _challenge('error="invalid_token"' if self.given else "")}


class ForbiddenError(AfterImageError):
    """The key of the request does not allow it."""

    status = 403
    type = "forbidden"
    title = "Forbidden"

    def __init__(self, message: str, scope: str | None = None) -> None:
        """`scope` is the one that is missing, if that is the reason."""
        super().__init__(message)
        self.scope = scope

    @property
    def headers(self) -> dict[str, str]:
        """The challenge of RFC 6750."""
        scope = f', scope="{self.scope}"' if self.scope else ""
        return {"WWW-Authenticate": _challenge(f'error="insufficient_scope"{scope}')}


class ConflictError(AfterImageError):
    """The request contradicts what is stored."""

    status = 409
    type = "conflict"
    title = "Conflict"


class MalformedKeyError(AfterImageError):
    """The `Idempotency-Key` of a request is none."""

    status = 400
    type = "idempotency-key-malformed"
    title = "Malformed Idempotency-Key"


class KeyReusedError(AfterImageError):
    """The `Idempotency-Key` belongs to another request."""

    status = 422
    type = "idempotency-key-reused"
    title = "Idempotency-Key is already used"


class OutstandingError(AfterImageError):
    """The first request with this `Idempotency-Key` is still running."""

    status = 409
    type = "idempotency-key-outstanding"
    title = "A request is outstanding for this Idempotency-Key"

    def __init__(self, key: str) -> None:
        super().__init__(
            f"the first request with the Idempotency-Key {key!r} is still running; send this one again later"
        )

    @property
    def headers(self) -> dict[str, str]:
        """Tells the client when to come back."""
        return {"Retry-After": "1"}


class TooLargeError(AfterImageError):
    """The body is larger than the service takes."""

    status = 413
    type = "too-large"
    title = "Content too large"


class UnsupportedMediaTypeError(AfterImageError):
    """The body is of a kind that the route does not take."""

    status = 415
    type = "unsupported-media-type"
    title = "Unsupported media type"


class SourceError(AfterImageError):
    """A file that cannot be imported; the message says what was found and what was expected."""

    status = 422
    type = "invalid-source"
    title = "The file cannot be imported"


class SecretError(AfterImageError):
    """A text holds a credential, and the service is set to refuse such; the message names its kind and place."""

    status = 422
    type = "holds-a-secret"
    title = "The text holds a secret"


class UnavailableError(AfterImageError):
    """A part that the request needs is down or busy; the same request may succeed later."""

    status = 503
    type = "unavailable"
    title = "Service unavailable"

    def __init__(self, message: str, retry_after_seconds: int = 1) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds

    @property
    def headers(self) -> dict[str, str]:
        """Tells the client when to come back."""
        return {"Retry-After": str(self.retry_after_seconds)}


class SlowStatementError(UnavailableError):
    """The database was given less time than the statement takes; elsewhere it would take as long."""


class TooManyRequestsError(AfterImageError):
    """The caller has used up what it may send for now."""

    status = 429
    type = "too-many-requests"
    title = "Too many requests"

    def __init__(self, message: str, retry_after_seconds: int) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds

    @property
    def headers(self) -> dict[str, str]:
        """Tells the client when to come back."""
        return {"Retry-After": str(self.retry_after_seconds)}


class LeaseLostError(AfterImageError):
    """Another process has taken over the import; this one must stop writing."""

    status = 409
    type = "lease-lost"
    title = "The import was taken over"


def _challenge(more: str) -> str:
    return f'Bearer realm="afterimage"{", " if more else ""}{more}'
