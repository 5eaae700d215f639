"""``aws-kms:KEY``: wraps by AWS KMS, whose key never leaves it. KEY is a key's id, ``alias/NAME``, or the ARN of either."""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping
from typing import Any, NoReturn

from gateway import ConfigError, GatewayError, Unreachable
from gateway_seal.wrapping import body, bound, check_private, needed, not_mine, unbound

MAGIC = b"gwa1"
KEY = re.compile(
    r"(?:arn:aws[a-z-]*:kms:(?P<region>[a-z0-9-]+):\d{12}:(?:key/)?)?(?:(?:mrk-)?[0-9a-f-]{32,36}|alias/[A-Za-z0-9/_-]{1,250})"
)

# docs.aws.amazon.com/kms/latest/APIReference: API_Decrypt, API_Encrypt, CommonErrors.
OTHER_KEY = frozenset({"IncorrectKeyException", "InvalidCiphertextException"})
PASSING = frozenset({
    "DependencyTimeoutException", "InternalFailure", "KMSInternalException", "KeyUnavailableException",
    "LimitExceededException", "RequestTimeout", "ServiceUnavailable", "Throttling", "ThrottlingException",
})  # fmt: skip
WHAT_TO_DO = {
    "AccessDeniedException": "the key's policy, or that of who asks, does not allow it",
    "NotFoundException": "there is no such key in this region and account",
    "DisabledException": "the key is disabled: enable it",
    "KMSInvalidStateException": "the key is in a state in which it cannot be used, such as waiting to be deleted",
    "InvalidKeyUsageException": "it must be a symmetric key for ENCRYPT_DECRYPT",
    "ExpiredTokenException": "the credentials have expired",
    "UnrecognizedClientException": "the credentials are not known",
    "InvalidClientTokenId": "the credentials are not known",
    "InvalidSignatureException": "the secret access key is wrong, or this machine's clock is",
}
UNUSABLE = {
    "NoCredentialsError": "there are no AWS credentials: set AWS_PROFILE, or what else boto3 takes them from",
    "NoRegionError": "no region is set: set AWS_DEFAULT_REGION, or give the key's whole ARN",
    "ProfileNotFound": "AWS_PROFILE names a profile that is not there",
}


class AwsKey:
    """AWS KMS' Encrypt and Decrypt, with the context as the encryption context, and always with the caller's key.

    Credentials, region and endpoint are what boto3 finds: AWS_PROFILE, AWS_DEFAULT_REGION, AWS_ENDPOINT_URL_KMS and the rest.
    Each try has `connect_s` to connect and `read_s` for the answer, and there are at most `attempts`.
    """

    scheme = "aws-kms"

    def __init__(self, *, connect_s: float = 5.0, read_s: float = 10.0, attempts: int = 3) -> None:
        self._patience = {"connect_timeout": connect_s, "read_timeout": read_s}
        self._attempts = attempts
        self._session: Any = None
        self._lock = threading.Lock()

    def wrap(self, uri: str, key: bytes, context: Mapping[str, str]) -> bytes:
        name, region = _key(uri)
        told = {"KeyId": name, "Plaintext": bound(key, context), "EncryptionContext": dict(context)}
        return MAGIC + self._ask(uri, region, "encrypt", told, "CiphertextBlob")

    def unwrap(self, uri: str, wrapped: bytes, context: Mapping[str, str]) -> bytes:
        name, region = _key(uri)
        blob = body(uri, wrapped, MAGIC, least_bytes=1)
        # With KeyId, AWS refuses what another key of the account has encrypted: the file never picks the key.
        told = {"KeyId": name, "CiphertextBlob": blob, "EncryptionContext": dict(context)}
        return unbound(uri, self._ask(uri, region, "decrypt", told, "Plaintext"), context)

    def _ask(self, uri: str, region: str | None, what: str, told: dict[str, Any], answer: str) -> bytes:
        boto3, config = needed("boto3", uri, "aws"), needed("botocore.config", uri, "aws")
        try:
            with self._lock:  # a session must not make two clients at once
                self._session = self._session or boto3.session.Session()
                retries = {"total_max_attempts": self._attempts, "mode": "standard"}
                client = self._session.client(
                    "kms", region_name=region, config=config.Config(retries=retries, **self._patience)
                )
            try:
                check_private(client.meta.endpoint_url, uri, "the endpoint that AWS' configuration names")
                return bytes(getattr(client, what)(**told)[answer])
            finally:
                client.close()
        except GatewayError:
            raise
        except Exception as error:
            failure = error
        # Raised here: as the context, the error of botocore would hold what was asked, the key with it.
        _raise(uri, what, failure)


def _key(uri: str) -> tuple[str, str | None]:
    name = uri.partition(":")[2]
    found = KEY.fullmatch(name)
    if found is None:  # not repeated: who knows what was pasted
        raise ConfigError("a key of AWS KMS is given as aws-kms:KEY, and KEY is a key's id, alias/NAME, or the ARN of either")
    return name, found["region"]


def _raise(uri: str, what: str, failure: Exception) -> NoReturn:
    import botocore.exceptions

    kind = type(failure).__name__
    if isinstance(failure, (botocore.exceptions.HTTPClientError, botocore.exceptions.ConnectionError)):
        raise Unreachable(f"key {uri!r}: AWS KMS cannot be reached: {kind}")
    if not isinstance(failure, botocore.exceptions.ClientError):
        raise ConfigError(f"key {uri!r}: AWS KMS cannot be asked: {UNUSABLE.get(kind, kind)}")
    answer: Any = failure.response
    code, message = str(answer.get("Error", {}).get("Code", "")), str(answer.get("Error", {}).get("Message", ""))
    if what == "decrypt" and (
        code in OTHER_KEY or message.startswith("The ciphertext refers to a customer master key that does")
    ):
        raise not_mine(uri)
    shown = code if re.fullmatch(r"[A-Za-z0-9.]{1,64}", code) else "an error without a name"
    status = answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if code in PASSING or status >= 500:
        raise Unreachable(f"key {uri!r}: AWS KMS cannot answer now: {shown}")
    hint = f": {WHAT_TO_DO[code]}" if code in WHAT_TO_DO else ""
    raise ConfigError(f"key {uri!r}: AWS KMS refuses to {what} with it: {shown}{hint}")
