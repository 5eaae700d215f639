"""Keys wrapped by AWS KMS: moto's own server on loopback, and a server that answers what AWS documents and moto does not."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import boto3
import pytest
from gateway_seal.aws_kms import AwsKey
from key_case import CONTEXT, KEY, raised, without
from moto.core.exceptions import JsonRESTError
from moto.kms.models import KmsBackend
from moto.server import ThreadedMotoServer

from gateway import ConfigError, KeyNotMine, KeyProvider, Unreachable
from gateway.testing.contract import KeyProviderContract

SECRET = "wJalrXUtnFEMI4711"
ID = "1234abcd-12ab-34cd-56ef-1234567890ab"


class IncorrectKey(JsonRESTError):
    code = 400


@pytest.fixture(scope="module")
def moto() -> Iterator[str]:
    """The url of a KMS. Of another key it says what AWS documents, IncorrectKeyException; moto alone says another thing."""
    patch = pytest.MonkeyPatch()
    decrypt = KmsBackend.decrypt

    def corrected(self: Any, ciphertext_blob: bytes, encryption_context: dict[str, str], key_id: str | None = None) -> Any:
        named = ciphertext_blob[:36].decode("latin-1")
        if key_id and named in self.keys and named != self.any_id_to_key_id(key_id):
            raise IncorrectKey(
                "IncorrectKeyException", "The key ID in the request does not identify a CMK that can decrypt it."
            )
        return decrypt(self, ciphertext_blob, encryption_context, key_id)

    patch.setattr(KmsBackend, "decrypt", corrected)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()
    patch.undo()


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    for name in ("AWS_PROFILE", "AWS_REGION", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture(scope="module")
def client(moto: str) -> Iterator[Any]:
    session = boto3.session.Session(aws_access_key_id="x", aws_secret_access_key="y", region_name="eu-central-1")
    client = session.client("kms", endpoint_url=moto)
    yield client
    client.close()


@pytest.fixture
def kms(client: Any, moto: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """AWS' own client of the KMS that the provider asks."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_KMS", moto)
    return client


def made(kms: Any) -> str:
    return str(kms.create_key()["KeyMetadata"]["KeyId"])


class TestAwsKey(KeyProviderContract):
    @pytest.fixture
    def provider(self) -> AwsKey:
        return AwsKey(attempts=1)  # moto falls over some flipped bits, and would be asked again

    @pytest.fixture
    def uri(self, kms: Any) -> str:
        return f"aws-kms:{made(kms)}"

    @pytest.fixture
    def other_uri(self, kms: Any) -> str:
        return f"aws-kms:{made(kms)}"


def test_a_key_may_be_named_by_id_alias_or_arn(kms: Any) -> None:
    assert isinstance(AwsKey(), KeyProvider)
    key = kms.create_key()["KeyMetadata"]
    kms.create_alias(AliasName="alias/team/weights_1", TargetKeyId=key["KeyId"])
    arn = key["Arn"]
    refs = [key["KeyId"], "alias/team/weights_1", arn, arn.replace(f"key/{key['KeyId']}", "alias/team/weights_1")]
    provider = AwsKey()
    wraps = [provider.wrap(f"aws-kms:{ref}", KEY, CONTEXT) for ref in refs]
    for ref in refs:
        assert {provider.unwrap(f"aws-kms:{ref}", wrapped, CONTEXT) for wrapped in wraps} == {KEY}


def test_the_context_is_the_encryption_context_and_the_key_is_always_the_caller_s(kms: Any) -> None:
    one, other = made(kms), made(kms)
    wrapped = AwsKey().wrap(f"aws-kms:{one}", KEY, CONTEXT)
    assert wrapped[:4] == b"gwa1" and KEY not in wrapped
    plain = kms.decrypt(CiphertextBlob=wrapped[4:], EncryptionContext=CONTEXT)["Plaintext"]  # as AWS' own log would show it
    assert plain.endswith(KEY)
    raised(KeyNotMine, lambda: AwsKey().unwrap(f"aws-kms:{other}", wrapped, CONTEXT), SECRET)
    raised(KeyNotMine, lambda: AwsKey().unwrap(f"aws-kms:{one}", wrapped, {**CONTEXT, "generation": "2"}), SECRET)


def test_the_region_of_an_arn_is_used(kms: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = boto3.session.Session().client("kms", region_name="us-west-2")
    arn = elsewhere.create_key()["KeyMetadata"]["Arn"]
    elsewhere.close()
    for _ in range(2):
        provider = AwsKey()
        assert provider.unwrap(f"aws-kms:{arn}", provider.wrap(f"aws-kms:{arn}", KEY, CONTEXT), CONTEXT) == KEY
        monkeypatch.delenv("AWS_DEFAULT_REGION", raising=False)
    error = raised(ConfigError, lambda: AwsKey().wrap(f"aws-kms:{arn[-36:]}", KEY, CONTEXT), SECRET)
    assert "no region is set" in str(error)


def test_a_key_that_is_not_there_is_named(kms: Any) -> None:
    for uri in (f"aws-kms:{ID}", "aws-kms:alias/none"):
        for call in (
            lambda uri=uri: AwsKey().wrap(uri, KEY, CONTEXT),
            lambda uri=uri: AwsKey().unwrap(uri, b"gwa1" + bytes(99), CONTEXT),
        ):
            error = raised(ConfigError, call, SECRET)
            assert repr(uri) in str(error) and "NotFoundException: there is no such key" in str(error)


@pytest.mark.parametrize(
    "uri",
    ["aws-kms:", f"aws-kms:{SECRET}", "aws-kms:arn:aws:s3:::bucket", "aws-kms:alias/", f"aws-kms:{ID}/../x", f"aws-kms:{ID}\n"],
)
def test_what_is_no_reference_to_a_key_is_not_repeated(uri: str) -> None:
    for call in (lambda: AwsKey().wrap(uri, KEY, CONTEXT), lambda: AwsKey().unwrap(uri, b"", CONTEXT)):
        assert "aws-kms:KEY" in str(raised(ConfigError, call, SECRET))


def test_another_provider_s_wrap_is_refused_without_asking() -> None:
    for other in (b"", b"gwv1" + bytes(99), b"gwa1"):  # there is nobody to ask
        raised(KeyNotMine, lambda other=other: AwsKey().unwrap(f"aws-kms:{ID}", other, CONTEXT))


def test_a_server_that_is_down_is_unreachable(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
    monkeypatch.setenv("AWS_ENDPOINT_URL_KMS", f"http://127.0.0.1:{port}")
    for call in (
        lambda: AwsKey(attempts=1).wrap(f"aws-kms:{ID}", KEY, CONTEXT),
        lambda: AwsKey(attempts=1).unwrap(f"aws-kms:{ID}", b"gwa1" + bytes(99), CONTEXT),
    ):
        error = raised(Unreachable, call, SECRET)
        assert "AWS KMS cannot be reached: EndpointConnectionError" in str(error) and error.retryable
        assert error.__cause__ is None and error.__context__ is None


def test_a_server_that_says_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("AWS_ENDPOINT_URL_KMS", f"http://127.0.0.1:{silent.getsockname()[1]}")
        error = raised(Unreachable, lambda: AwsKey(read_s=0.1, attempts=1).wrap(f"aws-kms:{ID}", KEY, CONTEXT), SECRET)
        assert "ReadTimeoutError" in str(error)


def test_no_key_goes_to_another_machine_in_clear(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_KMS", "http://kms.example.com")
    assert "use https://" in str(raised(ConfigError, lambda: AwsKey().wrap(f"aws-kms:{ID}", KEY, CONTEXT), SECRET))


def test_without_credentials_it_is_told_where_they_come_from(kms: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    assert "AWS_PROFILE" in str(raised(ConfigError, lambda: AwsKey().wrap(f"aws-kms:{ID}", KEY, CONTEXT)))
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    assert "a profile that is not there" in str(raised(ConfigError, lambda: AwsKey().wrap(f"aws-kms:{ID}", KEY, CONTEXT)))


def test_without_boto3_it_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    without("boto3", monkeypatch)
    error = raised(ConfigError, lambda: AwsKey().wrap(f"aws-kms:{ID}", KEY, CONTEXT))
    assert str(error) == f"key 'aws-kms:{ID}' needs the package boto3: pip install 'gateway-seal[aws]'"


REFUSED = [
    ("AccessDeniedException", f"User: x is not authorized to perform: kms:Decrypt {SECRET}", ConfigError, "policy"),
    (
        "AccessDeniedException",
        "The ciphertext refers to a customer master key that does not exist, ...",
        KeyNotMine,
        "not wrap",
    ),
    ("DisabledException", "arn is disabled.", ConfigError, "DisabledException: the key is disabled"),
    ("KMSInvalidStateException", "pending deletion", ConfigError, "KMSInvalidStateException"),
    ("InvalidCiphertextException", "", KeyNotMine, "did not wrap"),
    ("IncorrectKeyException", "", KeyNotMine, "did not wrap"),
    ("UnrecognizedClientException", SECRET, ConfigError, "credentials"),
    ("ExpiredTokenException", SECRET, ConfigError, "expired"),
    ("ThrottlingException", "slower", Unreachable, "ThrottlingException"),
    ("KMSInternalException", "oh", Unreachable, "KMSInternalException"),
    ("SomethingNew", SECRET, ConfigError, "SomethingNew"),
    (f"Odd {SECRET}", SECRET, ConfigError, "an error without a name"),
]


@pytest.mark.parametrize(
    ("code", "message", "kind", "told"), REFUSED, ids=[f"{code}-{at}" for at, (code, *_) in enumerate(REFUSED)]
)
def test_what_aws_answers_is_told_by_its_code_alone(
    code: str, message: str, kind: type[Exception], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Answers(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            said = json.dumps({"__type": code, "message": message}).encode()
            self.send_response(500 if code == "KMSInternalException" else 400)
            self.send_header("Content-Type", "application/x-amz-json-1.1")
            self.send_header("Content-Length", str(len(said)))
            self.end_headers()
            self.wfile.write(said)

        def log_message(self, *given: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        monkeypatch.setenv("AWS_ENDPOINT_URL_KMS", f"http://127.0.0.1:{server.server_port}")
        provider = AwsKey(attempts=1)
        error = raised(kind, lambda: provider.unwrap(f"aws-kms:{ID}", b"gwa1" + bytes(99), CONTEXT), SECRET)
        assert told in str(error) and ID in str(error) and error.__cause__ is None and error.__context__ is None
        if kind is KeyNotMine:  # nothing was to be opened: then it is no matter of the next key
            assert code in str(raised(ConfigError, lambda: provider.wrap(f"aws-kms:{ID}", KEY, CONTEXT), SECRET))
        server.shutdown()
