#!/usr/bin/env python3
"""Writes the test vectors of the countersignature, version 1, from docs/attestation.md alone: a second implementation,
which shares nothing with the first but that page. Needs cryptography 45 or newer, from PyPI.

    firstboot/formats/vectors/countersignature.py >firstboot/formats/vectors/countersignature-v1.json

The same bytes come out each time: the private keys are derived from labels, as those of the wrapped reply are.
"""
import json

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

import make

SIGNED = b"firstboot countersignature v1\0"


def request(subject, key):
    builder = x509.CertificateSigningRequestBuilder().subject_name(
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)])
    )
    deterministic = isinstance(key, ec.EllipticCurvePrivateKey) or None
    return builder.sign(key, hashes.SHA256(), ecdsa_deterministic=deterministic)


def der(csr):
    return csr.public_bytes(serialization.Encoding.DER)


def case(title, thing_name, in_service, following):
    label = f"firstboot countersignature v1, {thing_name}"
    labels = {"in_service": f"{label}, in service", "next": f"{label}, next"}
    in_service, following = in_service(labels["in_service"]), following(labels["next"])
    ca = make.p256(f"{label}, issuer")
    certificate = make.certificate(thing_name, in_service, f"CA of {thing_name}", ca, is_ca=False)
    csr = request(thing_name, following)
    signed = SIGNED + der(csr)
    values = {
        "title": title,
        "labels": labels,
        "csr": csr.public_bytes(serialization.Encoding.PEM).decode(),
        "signed": signed.hex(),
        "countersignature": {
            "certificate": make.text(certificate.public_bytes(serialization.Encoding.DER)),
            "signature": make.text(make.sign(in_service, signed)),
        },
    }
    return values, in_service, csr


def refusals(cases):
    """Signatures that are none over the first case's request by the first case's key in service."""
    (first, key, csr), (second, other, replayed) = cases[:2]
    signature = make.base64.b64decode(first["countersignature"]["signature"])

    def by(what, key, message):
        return {"what": what, "signature": make.text(make.sign(key, message))}

    return [
        by("another key's", other, SIGNED + der(csr)),
        {"what": "of another request", "signature": second["countersignature"]["signature"]},
        by("over another request by the same key", key, SIGNED + der(replayed)),
        by("over the request alone, as in a certificate request", key, der(csr)),
        by("over the text before the request alone", key, SIGNED),
        by("of another version", key, SIGNED.replace(b"v1", b"v2") + der(csr)),
        {"what": "the request's own", "signature": make.text(csr.signature)},
        {"what": "truncated", "signature": make.text(signature[:-1])},
        {"what": "empty", "signature": ""},
    ]


def main():
    cases = [
        case("P-256 follows P-256", "gateway-1", make.p256, make.p256),
        case("RSA-2048 follows RSA-2048", "gateway:2", make.rsa2048, make.rsa2048),
        case("P-256 follows RSA-2048", "gateway_3", make.rsa2048, make.p256),
    ]
    vectors = {"cases": [c for c, _, _ in cases], "refusals": refusals(cases)}
    print(json.dumps(vectors, indent=2))


if __name__ == "__main__":
    main()
