"""How to reach and convince a Kafka cluster: addresses, encryption, credentials."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from riverrun.engine.errors import ConfigError

if TYPE_CHECKING:
    import ssl

PROTOCOLS = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")
MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER", "GSSAPI")


class Secret:
    """A text that does not show in logs, tracebacks or ``repr``.

    Example:
        >>> Secret("hunter2")
        Secret(***)
    """

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """Return the text; to be called only where it is handed to the network."""
        return self._text

    def __repr__(self) -> str:
        return "Secret(***)"

    __str__ = __repr__

    def __reduce__(self) -> str | tuple[Any, ...]:
        raise TypeError("a secret is not to be pickled")


@dataclass(frozen=True, slots=True)
class Security:
    """Encryption and credentials of a cluster.

    Attributes:
        protocol: ``PLAINTEXT``, ``SSL``, ``SASL_PLAINTEXT`` or ``SASL_SSL``.
        mechanism: SASL mechanism, used where ``protocol`` begins with ``SASL``.
        username: SASL user name.
        password: SASL password.
        ssl_context: Needed where ``protocol`` ends with ``SSL``.
        token_provider: An ``aiokafka.abc.AbstractTokenProvider`` for ``OAUTHBEARER``.
    """

    protocol: str = "PLAINTEXT"
    mechanism: str = "PLAIN"
    username: str | None = None
    password: Secret | None = None
    ssl_context: ssl.SSLContext | None = None
    token_provider: Any = None

    def __post_init__(self) -> None:
        """Refuse what cannot work before anything connects.

        Raises:
            ConfigError: A setting is missing or unknown.
        """
        if self.protocol not in PROTOCOLS:
            raise ConfigError(f"security protocol {self.protocol!r} is not one of {PROTOCOLS}")
        if self.protocol.endswith("SSL") and self.ssl_context is None:
            raise ConfigError(f"{self.protocol} needs an ssl_context")
        if not self.protocol.startswith("SASL"):
            return
        if self.mechanism not in MECHANISMS:
            raise ConfigError(f"SASL mechanism {self.mechanism!r} is not one of {MECHANISMS}")
        by_password = self.mechanism == "PLAIN" or self.mechanism.startswith("SCRAM")
        if by_password and (self.username is None or self.password is None):
            raise ConfigError(f"SASL {self.mechanism} needs a username and a password")

    def connection_arguments(self) -> dict[str, Any]:
        """Return the keyword arguments of ``aiokafka.conn.create_conn``."""
        return {
            "security_protocol": self.protocol,
            "ssl_context": self.ssl_context,
            "sasl_mechanism": self.mechanism,
            "sasl_plain_username": self.username,
            "sasl_plain_password": None if self.password is None else self.password.reveal(),
            "sasl_oauth_token_provider": self.token_provider,
        }
