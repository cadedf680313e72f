"""The base image of examples: whom it trusts."""

from pathlib import Path

from base_image import authorities

CERTIFICATE = "-----BEGIN CERTIFICATE-----\nabcd\n-----END CERTIFICATE-----\n"


def test_a_machine_may_have_its_authorities_in_a_bundle_alone(tmp_path: Path) -> None:
    """Images of containers often have: pip of the container found its index then, and pip in a RUN did not."""
    bundle = tmp_path / "bundle.pem"
    bundle.write_text(f"# Ours\r\n{CERTIFICATE}# and again\n{CERTIFICATE.rstrip()}")

    found = authorities({"PIP_CERT": str(bundle)})

    assert list(found.values()).count(CERTIFICATE) == 1
    assert all(name.endswith(".crt") for name in found)


def test_a_bundle_that_is_not_there_is_none(tmp_path: Path) -> None:
    assert authorities({"SSL_CERT_FILE": str(tmp_path / "missing")}) == authorities({})
