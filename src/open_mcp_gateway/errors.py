"""Every failure the gateway itself can report, as one tree.

GatewayError
├── Refused                      the request is at fault
│   ├── MalformedMessage         not JSON, or nested too deeply
│   ├── InvalidRequest           JSON, but not a message we can act on
│   ├── InvalidParams            a message whose parameters are wrong
│   ├── UnknownMethod            not a method of this revision
│   ├── HeaderMismatch           headers and body say different things
│   ├── UnsupportedVersion       a protocol revision not spoken here
│   ├── MissingCapability        needs something the client did not declare
│   ├── AmbiguousCredentials     more than one key, and they differ
│   ├── Unauthenticated          no key
│   ├── WrongKey                 a key, but not one of ours
│   ├── RightsChanged            what the key may do changed on the way
│   ├── Denied                   known caller, missing permission
│   ├── ForeignOrigin            Host or Origin not allowed
│   ├── NotFound                 no such thing, or not visible to this caller
│   ├── MethodNotAllowed         the path exists, the method does not
│   ├── Conflict                 the state of the thing forbids it
│   ├── Outdated                 it has changed since the caller looked
│   ├── Escalation               more rights are given than the giver has
│   ├── TooLarge                 body over ``max_body_bytes``
│   ├── HeadTooLarge             request line and headers over the limit
│   ├── NotAcceptable            the client takes none of the answer's media types
│   └── UnsupportedMedia         body is not JSON by its own account
├── NotConfigured                needs something that this gateway does not have
├── StoreUnavailable             the key store does not answer
├── Busy                         no room now; try again later
├── Draining                     the gateway is stopping
├── UpstreamError                the server behind us is at fault
│   ├── UpstreamUnavailable      could not be started or reached
│   │   └── EraNotSpoken         runs, but not in the protocol era the caller needs
│   ├── UpstreamBroken           broke off, or broke the protocol, during a call
│   └── UpstreamTimeout          did not answer before the deadline
├── ReloadFailed                 a new catalog or config was refused; the old one stays
├── InternalError                our own defect; details only in the log
└── InvalidConfig                start-up only, never on the wire; carries every Problem

How each becomes an HTTP status and a JSON-RPC code stands in ``protocol/faults.py`` alone.
A JSON-RPC error that a server sent is data and passes through; it is never one of these.
"""

from __future__ import annotations

import json
from dataclasses import dataclass


class GatewayError(Exception):
    """A failure whose ``public`` text is safe to show to the caller.

    ``code`` is the stable machine-readable name in error bodies. ``retry_after_s`` (seconds)
    becomes ``Retry-After``; None sends none. ``request_id`` is the raw JSON of the JSON-RPC id the
    failed message carried, None while unknown.
    """

    code: str = "error"
    data: object = None
    """What the ``data`` of a JSON-RPC error has to be, where the protocol says so."""

    def __init__(self, public: str, *, retry_after_s: int | None = None) -> None:
        super().__init__(public)
        self.public = public
        self.retry_after_s = retry_after_s
        self.request_id: bytes | None = None


class Refused(GatewayError):
    """The request is at fault; sending the same again fails the same."""


class MalformedMessage(Refused):
    """The body is not JSON (RFC 8259), or is nested too deeply to be read safely."""

    code = "malformed"


class InvalidRequest(Refused):
    """The body is JSON but not a message this endpoint can act on."""

    code = "invalid_request"


class InvalidParams(Refused):
    """The method exists, the parameters do not fit it."""

    code = "invalid_params"


class UnknownMethod(Refused):
    """Not a method of the protocol revision the request is made in."""

    code = "unknown_method"


class HeaderMismatch(Refused):
    """A routing header is missing, doubled, malformed, or not what the body says."""

    code = "header_mismatch"


class UnsupportedVersion(Refused):
    """A protocol revision that is not spoken here."""

    code = "unsupported_version"

    def __init__(self, public: str, *, supported: tuple[str, ...], requested: str) -> None:
        super().__init__(public)
        self.data = {"supported": list(supported), "requested": requested}


class MissingCapability(Refused):
    """The request needs a client capability that it did not declare."""

    code = "missing_capability"

    def __init__(self, public: str, *, required: dict[str, object]) -> None:
        super().__init__(public)
        self.data = {"requiredCapabilities": required}


class AmbiguousCredentials(Refused):
    """Two different keys in one request. Source: RFC 6750 section 2, one method per request."""

    code = "ambiguous_credentials"


class Unauthenticated(Refused):
    """No key was sent."""

    code = "unauthenticated"


class WrongKey(Refused):
    """A key that is not ours or not in force; ``reason`` says why, to who sent the whole key, and
    ``key_id`` which one it is, to the log."""

    code = "wrong_key"

    def __init__(
        self, public: str, *, reason: str | None = None, key_id: str | None = None
    ) -> None:
        super().__init__(public)
        self.reason = reason
        self.key_id = key_id


class RightsChanged(Refused):
    """The key opens, but not all that it did when this began; asked again, all is decided anew."""

    code = "rights_changed"


class Denied(Refused):
    """A known caller lacks the permission; the members say which, and on what."""

    code = "permission_denied"

    def __init__(self, public: str, *, permission: str, resource: str, key_id: str) -> None:
        super().__init__(public)
        self.permission = permission
        self.resource = resource
        self.key_id = key_id

    def details(self) -> dict[str, object]:
        """What error bodies say beside the text: what was missing, and how to ask why."""
        kind, _, name = self.resource.partition("/")
        question = {"action": self.permission}
        if kind in {"server", "tenant"}:
            question[kind] = name
        return {
            "permission": self.permission,
            "resource": self.resource,
            "key_id": self.key_id,
            "explain": f"POST /auth/explain {json.dumps(question)}",
        }


class ForeignOrigin(Refused):
    """``Host`` or ``Origin`` is not allowed (DNS rebinding, a web page driving a local gateway)."""

    code = "origin_not_allowed"


class NotFound(Refused):
    """There is no such thing, or this caller may not know of it; both look the same."""

    code = "not_found"


class MethodNotAllowed(Refused):
    """The path exists but not with this method; ``allow`` lists the methods that do."""

    code = "method_not_allowed"

    def __init__(self, public: str, *, allow: tuple[str, ...]) -> None:
        super().__init__(public)
        self.allow = allow


class Conflict(Refused):
    """The present state of the thing forbids what was asked; ``code`` says which state."""

    def __init__(self, public: str, *, code: str = "conflict") -> None:
        super().__init__(public)
        self.code = code


class Outdated(Refused):
    """The thing has changed since the caller looked at it (RFC 9110 section 13.1.1)."""

    code = "outdated"


class Escalation(Refused):
    """A caller gives more rights than it has; ``excess`` lists what is too much."""

    code = "scope_escalation"

    def __init__(self, public: str, *, excess: tuple[str, ...]) -> None:
        super().__init__(public)
        self.excess = excess


class TooLarge(Refused):
    """The body is over the configured limit."""

    code = "too_large"


class HeadTooLarge(Refused):
    """Request line and headers together are over the limit (RFC 6585 section 5)."""

    code = "head_too_large"


class NotAcceptable(Refused):
    """The client does not take the media types that an answer may come in."""

    code = "not_acceptable"


class UnsupportedMedia(Refused):
    """The body's media type is not one this endpoint reads."""

    code = "unsupported_media_type"


class NotConfigured(GatewayError):
    """Needs something that this gateway does not have; ``code`` says what."""

    def __init__(self, public: str, *, code: str) -> None:
        super().__init__(public)
        self.code = code


class StoreUnavailable(GatewayError):
    """The key store does not answer; what it would have said is not guessed."""

    code = "auth_store_unavailable"


class Busy(GatewayError):
    """No room for this request now."""

    code = "busy"


class Draining(GatewayError):
    """The gateway is stopping and takes no new work."""

    code = "draining"


class UpstreamError(GatewayError):
    """The server behind the gateway is at fault."""


class UpstreamUnavailable(UpstreamError):
    """The server could not be started or reached; the call never got to it."""

    code = "upstream_unavailable"
    untaken = False  # by a server that is another one now, so that the call may go on with that


class EraNotSpoken(UpstreamUnavailable):
    """The server does not speak the protocol era that was asked for. A verdict, not a failure.

    ``spoken`` are the revisions it does speak.
    """

    code = "era_not_spoken"

    def __init__(self, public: str, *, spoken: tuple[str, ...]) -> None:
        super().__init__(public)
        self.spoken = spoken


class UpstreamBroken(UpstreamError):
    """The server broke off or broke the protocol during a call, which may have taken effect."""

    code = "upstream_broken"


class UpstreamTimeout(UpstreamError):
    """No answer before the deadline; the call may have taken effect."""

    code = "upstream_timeout"


class ReloadFailed(GatewayError):
    """A new catalog or config was refused; what was in force before stays in force."""

    code = "reload_failed"


class InternalError(GatewayError):
    """A defect of the gateway; the log has the details under the request id."""

    code = "internal"


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake in a file or option: where it is, what is wrong, and how to mend it."""

    where: str
    """File and place, e.g. ``catalog.yaml:12 servers[2].runtime.command``."""

    message: str
    """What is wrong and how to mend it, one sentence each. Never holds a secret's value."""

    def __str__(self) -> str:
        return f"{self.where}: {self.message}"


class InvalidConfig(GatewayError):
    """Configuration or catalog cannot be used; ``problems`` holds every mistake found."""

    code = "invalid_config"

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = problems
