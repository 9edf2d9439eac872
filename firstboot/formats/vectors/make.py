#!/usr/bin/env python3
"""Writes the test vectors of the wrapped reply, version 1, from docs/attestation.md alone: a second implementation of
the station's side, which shares nothing with the first but that page. Needs cryptography 45 or newer, from PyPI.

    firstboot/formats/vectors/make.py >firstboot/formats/vectors/reply-v1.json

The same bytes come out each time: what is random in a reply is derived from a label here, and so are the private keys,
which are therefore not secret.
"""
import base64
import datetime
import hashlib
import hmac
import json
import math

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
SIGNED = b"firstboot reply v1\0"


# Keys and numbers derived from labels.

def made_of(label, size=32):
    blocks = (hashlib.sha256(f"{label} {i}".encode()).digest() for i in range(-(-size // 32)))
    return b"".join(blocks)[:size]


def p256(label):
    return ec.derive_private_key(int.from_bytes(made_of(label)) % (P256_ORDER - 1) + 1, ec.SECP256R1())


def prime(label):
    """The first prime that RSA can use, from the label's number with the two highest bits and the lowest set."""
    candidate = int.from_bytes(made_of(label, 128)) | 3 << 1022 | 1
    while not (is_prime(candidate) and math.gcd(candidate - 1, 65537) == 1):
        candidate += 2
    return candidate


def is_prime(n):
    """Miller and Rabin's test with fixed bases: these numbers were not chosen by anybody."""
    bases = (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37)
    if any(n % base == 0 for base in bases):
        return False
    odd, twos = n - 1, 0
    while odd % 2 == 0:
        odd, twos = odd // 2, twos + 1
    for base in bases:
        x = pow(base, odd, n)
        if x not in (1, n - 1) and all((x := x * x % n) != n - 1 for _ in range(twos - 1)):
            return False
    return True


def rsa2048(label):
    p, q = prime(f"{label} p"), prime(f"{label} q")
    d = pow(65537, -1, (p - 1) * (q - 1))
    public = rsa.RSAPublicNumbers(65537, p * q)
    return rsa.RSAPrivateNumbers(p, q, d, d % (p - 1), d % (q - 1), pow(q, -1, p), public).private_key()


# TPM structures (TPM 2.0 Library, Part 2).

def tpm2b(data):
    return len(data).to_bytes(2) + data


def coordinates(key):
    numbers = key.public_key().public_numbers()
    return numbers.x.to_bytes(32), numbers.y.to_bytes(32)


def public_area(key):
    """TPMT_PUBLIC with fixedTPM, fixedParent, sensitiveDataOrigin, userWithAuth, decrypt and sign; no policy."""
    if isinstance(key, rsa.RSAPrivateKey):
        modulus = key.public_key().public_numbers().n.to_bytes(256)
        return bytes.fromhex("0001 000b 00060072 0000 0010 0010 0800 00000000") + tpm2b(modulus)
    x, y = coordinates(key)
    return bytes.fromhex("0023 000b 00060072 0000 0010 0010 0003 0010") + tpm2b(x) + tpm2b(y)


def name(area):
    return bytes.fromhex("000b") + hashlib.sha256(area).digest()


# TPM2_MakeCredential (Part 1, sections 11.4.10 and 24, annexes B and C).

def kdfa(key, label, context, bits):
    data = (1).to_bytes(4) + label + b"\0" + context + bits.to_bytes(4)
    return hmac.digest(key, data, "sha256")[:bits // 8]


def kdfe(z, label, party_u, party_v):
    return hashlib.sha256((1).to_bytes(4) + z + label + b"\0" + party_u + party_v).digest()


def mgf1(seed, size):
    blocks = (hashlib.sha256(seed + i.to_bytes(4)).digest() for i in range(-(-size // 32)))
    return b"".join(blocks)[:size]


def xor(a, b):
    return bytes(x ^ y for x, y in zip(a, b, strict=True))


def oaep(key, message, seed):
    """RSAES-OAEP (RFC 8017, section 7.1.1) with a seed that is given."""
    numbers = key.public_key().public_numbers()
    block = hashlib.sha256(b"IDENTITY\0").digest() + bytes(256 - len(message) - 66) + b"\1" + message
    masked = xor(block, mgf1(seed, len(block)))
    encoded = b"\0" + xor(seed, mgf1(masked, 32)) + masked
    return pow(int.from_bytes(encoded), numbers.e, numbers.n).to_bytes(256)


def aes_cfb(key, data):
    """AES-128 in CFB mode (SP 800-38A, section 6.3) with an IV of zeros: each block is encrypted with the one before."""
    aes = Cipher(algorithms.AES(key), modes.ECB()).encryptor()
    encrypted, previous = b"", bytes(16)
    for at in range(0, len(data), 16):
        block = data[at:at + 16]
        previous = xor(block, aes.update(previous)[:len(block)])
        encrypted += previous
    return encrypted


def make_credential(ek, key_name, credential, ephemeral):
    if isinstance(ek, rsa.RSAPrivateKey):
        seed = made_of(f"{ephemeral} seed")
        secret = tpm2b(oaep(ek, seed, made_of(f"{ephemeral} OAEP")))
    else:
        own = p256(ephemeral)
        x, y = coordinates(own)
        seed = kdfe(own.exchange(ec.ECDH(), ek.public_key()), b"IDENTITY", x, coordinates(ek)[0])
        secret = tpm2b(tpm2b(x) + tpm2b(y))
    storage_key = kdfa(seed, b"STORAGE", key_name, 128)
    encrypted = aes_cfb(storage_key, tpm2b(credential))
    integrity_key = kdfa(seed, b"INTEGRITY", b"", 256)
    integrity = hmac.digest(integrity_key, encrypted + key_name, "sha256")
    return {
        "seed": seed,
        "secret": secret,
        "storage_key": storage_key,
        "integrity_key": integrity_key,
        "encrypted": encrypted,
        "credential_blob": tpm2b(tpm2b(integrity) + encrypted),
    }


# The reply.

def fields(prefix, *values):
    return prefix + b"".join(len(value).to_bytes(4) + value for value in values)


def clear_fields(reply):
    return [
        reply["version"].to_bytes(4),
        reply["thing_name"].encode(),
        bytes.fromhex(reply["key_name"]),
        bytes.fromhex(reply["ek_certificate_sha256"]),
        base64.b64decode(reply["credential_blob"]),
        base64.b64decode(reply["secret"]),
    ]


def signed(reply):
    rest = [base64.b64decode(reply[field]) for field in ("nonce", "ciphertext", "issuer")]
    return fields(SIGNED, *clear_fields(reply), *rest)


def sign(key, message):
    if isinstance(key, rsa.RSAPrivateKey):
        return key.sign(message, padding.PKCS1v15(), hashes.SHA256())
    return key.sign(message, ec.ECDSA(hashes.SHA256(), deterministic_signing=True))


def text(data):
    return base64.b64encode(data).decode()


def certificate(subject, key, issuer, issuer_key, is_ca):
    start = datetime.datetime(2026, 1, 1)
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(int.from_bytes(made_of(f"serial number of {subject}", 15)))
        .not_valid_before(start)
        .not_valid_after(start.replace(year=2126))
        .add_extension(x509.BasicConstraints(ca=is_ca, path_length=0 if is_ca else None), critical=True)
    )
    if not is_ca:
        builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
    deterministic = isinstance(issuer_key, ec.EllipticCurvePrivateKey) or None
    return builder.sign(issuer_key, hashes.SHA256(), ecdsa_deterministic=deterministic)


def case(title, thing_name, key, ek, issuer, ephemeral):
    label = f"firstboot reply v1, {thing_name}"
    labels = {
        "key": f"{label}, key",
        "ek": ek[1],
        "issuer": f"{label}, issuer",
        "ephemeral": ephemeral,
    }
    key, ek, issuer = key(labels["key"]), ek[0](labels["ek"]), issuer(labels["issuer"])
    area = public_area(key)
    key_name = name(area)
    credential = made_of(f"{label}, credential")
    ca = certificate(f"CA of {thing_name}", issuer, f"CA of {thing_name}", issuer, is_ca=True)
    leaf = certificate(thing_name, key, f"CA of {thing_name}", issuer, is_ca=False)
    chain = leaf.public_bytes(serialization.Encoding.PEM)
    made = make_credential(ek, key_name, credential, labels["ephemeral"])
    nonce = made_of(f"{label}, nonce", 12)
    reply = {
        "version": 1,
        "thing_name": thing_name,
        "key_name": key_name.hex(),
        # There is no certificate: for the reply these are any 32 bytes.
        "ek_certificate_sha256": made_of(f"{label}, EK certificate").hex(),
        "credential_blob": text(made["credential_blob"]),
        "secret": text(made["secret"]),
        "nonce": text(nonce),
    }
    additional_data = fields(b"", *clear_fields(reply))
    reply["ciphertext"] = text(AESGCM(credential).encrypt(nonce, chain, additional_data))
    reply["issuer"] = text(ca.public_bytes(serialization.Encoding.DER))
    reply["signature"] = text(sign(issuer, signed(reply)))
    values = {
        "key_public": area.hex(),
        "credential": credential.hex(),
        **{field: value.hex() for field, value in made.items()},
        "additional_data": additional_data.hex(),
        "signed": signed(reply).hex(),
        "chain": chain.decode(),
    }
    return {"title": title, "labels": labels, **values, "reply": reply}, issuer


def refusals(cases):
    """Replies that no device may open, as changes to the first case's: what refuses them, and what was changed."""
    (first, issuer), (second, _) = cases[:2]
    reply = first["reply"]

    def changed(refused_by, what, resigned=False, **fields):
        new = {**reply, **fields}
        if resigned:
            fields["signature"] = text(sign(issuer, signed(new)))
        return {"refused_by": refused_by, "what": what, "change": fields}

    def flipped(field, at=-1):
        data = bytearray(base64.b64decode(reply[field]))
        data[at] ^= 1
        return {field: text(bytes(data))}

    def resized(field, by):
        data = base64.b64decode(reply[field])
        return {field: text(data[:by] if by < 0 else data + bytes(by))}

    other_name = name(public_area(p256("firstboot reply v1, another key"))).hex()
    other_ek = made_of("firstboot reply v1, another EK certificate").hex()
    other = made_of("firstboot reply v1, another ephemeral key", 32)
    seed = make_credential(p256(first["labels"]["ek"]), bytes.fromhex(reply["key_name"]), other, "another ephemeral key")
    return [
        changed("form", "another version", version=2, resigned=True),
        changed("form", "an unknown field", mode="1"),
        changed("form", "a field that is null", signature=None),
        changed("form", "hex with a character too many", key_name=reply["key_name"] + "0"),
        changed("form", "base64 without padding", secret=reply["secret"].rstrip("=")),
        changed("form", "base64 with a line feed", signature=reply["signature"] + "\n"),
        changed("form", "a nonce of 11 bytes", **resized("nonce", -1), resigned=True),
        changed("form", "a credential blob of 71 bytes", **resized("credential_blob", 1), resigned=True),
        changed("form", "a credential blob with a wrong size in it", **flipped("credential_blob", 1), resigned=True),
        changed("form", "a secret of 69 bytes", **resized("secret", -1), resigned=True),
        changed("form", "a ciphertext that is a tag alone", ciphertext=text(bytes(16)), resigned=True),
        changed("issuer", "another CA's certificate", issuer=second["reply"]["issuer"]),
        changed("signature", "another signature", signature=second["reply"]["signature"]),
        changed("signature", "another thing's name", thing_name="gateway-4"),
        changed("signature", "a changed ciphertext", **flipped("ciphertext")),
        changed("thing_name", "another thing's name, signed", thing_name="gateway-4", resigned=True),
        changed("thing_name", "the thing's name in capitals, signed", thing_name="GATEWAY-1", resigned=True),
        changed("key_name", "another key, signed", key_name=other_name, resigned=True),
        changed("ek_certificate_sha256", "another TPM, signed", ek_certificate_sha256=other_ek, resigned=True),
        changed("tpm", "a changed credential blob, signed", **flipped("credential_blob"), resigned=True),
        changed("tpm", "another secret, signed", secret=text(seed["secret"]), resigned=True),
        changed("ciphertext", "another credential, signed", credential_blob=text(seed["credential_blob"]),
                secret=text(seed["secret"]), resigned=True),
        changed("ciphertext", "another nonce, signed", **flipped("nonce"), resigned=True),
        changed("ciphertext", "a changed ciphertext, signed", **flipped("ciphertext"), resigned=True),
    ]


def main():
    cases = [
        case("P-256 throughout", "gateway-1", p256, (p256, "firstboot reply v1, gateway-1, EK"), p256,
             "firstboot reply v1, gateway-1, ephemeral key"),
        case("RSA throughout", "gateway:2", rsa2048, (rsa2048, "firstboot reply v1, gateway:2, EK"), rsa2048,
             "firstboot reply v1, gateway:2, ephemeral"),
        # Found by trying: the x-coordinates of both keys, and of the point that they agree on, begin with a zero byte.
        case("coordinates that begin with a zero byte", "gateway_3", rsa2048,
             (p256, "firstboot reply v1, zeros 1427"), p256, "firstboot reply v1, zeros 1593"),
    ]
    vectors = {"cases": [c for c, _ in cases], "refusals": refusals(cases)}
    print(json.dumps(vectors, indent=2))


if __name__ == "__main__":
    main()
