"""The keys of a federation, as `consilience federate keys` makes them.

    coordinator's folder                       a party's folder
    ca.key  ca.crt      who vouches            ca.crt      whom it believes
    server.key  server.crt                     node.key    proves to the coordinator who it is
    nodes.json   parties that may connect      party.key   hides its updates from everybody
    roster.json  keys of secret sums           roster.json

A party makes its own keys where it stays and sends the public halves, one small file. What goes
back to it, `ca.crt` and `roster.json`, is public too; two people compare the roster's fingerprint
by telephone. Private halves are written once, for their owner's eyes only, and never written over.
"""

import ipaddress
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from consilience.errors import DamagedError, MissingError, UsageError
from consilience.federation.durable import private_folder, write_whole
from consilience.federation.places import private_file
from consilience.federation.secure.ciphers import needed
from consilience.federation.secure.keys import PartyKey, Roster, new_party_key

with needed():
    from cryptography import x509
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives import serialization as form
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

CA, CA_KEY = "ca.crt", "ca.key"
SERVER, SERVER_KEY = "server.crt", "server.key"
NODE_KEY, PARTY_KEY = "node.key", "party.key"
NODES, ROSTER = "nodes.json", "roster.json"
PUBLIC = ".public.json"

_FORMAT = 1
_CA_DAYS = 3650
_EARLIER = timedelta(minutes=5)  # clocks differ
_NAME = re.compile(r"\w[\w.-]{0,63}")


@dataclass(frozen=True, slots=True)
class Held:
    """What a folder of keys holds.

    Attributes:
        folder: Where.
        parties: Who may connect, or take part in secret sums.
        hosts: Names and addresses that the coordinator's certificate is good for.
        expires: When that certificate ends, and when the authority does; None where there is none.
        authority: When the authority that vouches for it ends.
        fingerprint: Of the roster, to be compared by telephone; empty without one.
    """

    folder: Path
    parties: tuple[str, ...]
    hosts: tuple[str, ...]
    expires: datetime | None
    authority: datetime | None
    fingerprint: str


def make(
    folder: Path, *, hosts: Sequence[str], parties: Sequence[str] = (), days: int = 365
) -> Held:
    """Make the coordinator's folder; and, for trying it out, the folders of parties in it.

    Args:
        folder: New, or without keys.
        hosts: Names and addresses under which parties reach the coordinator.
        parties: Whose keys are made here, in `parties/NAME`; real ones make their own.
        days: How long the certificate is good for.

    Raises:
        UsageError: There are keys already, no host, or a name that is none.
    """
    for name in parties:
        _check_name(name)
    if not hosts:
        raise UsageError("no host is named", hint="consilience federate keys make --host NAME")
    _check_new(folder, CA, CA_KEY, SERVER, SERVER_KEY, NODES, ROSTER)
    private_folder(folder)
    _make_authority(folder)
    _issue(folder, hosts, days, new=True)
    _write_pinned(folder, {}, {})
    made = [make_party(folder / "parties" / name, name) for name in parties]
    return accept(folder, made) if made else held(folder)


def make_party(folder: Path, name: str) -> Path:
    """Make a party's own keys, at the party; returns the public file that it sends.

    Raises:
        UsageError: There are keys already, or a name that is none.
    """
    _check_name(name)
    public = folder / f"{name}{PUBLIC}"
    _check_new(folder, NODE_KEY, PARTY_KEY, public.name)
    private_folder(folder)
    key = new_party_key()
    private, shown = _node_key()
    private_file(folder / NODE_KEY, private, new=True)
    key.write(folder / PARTY_KEY)
    told = {"format": _FORMAT, "party": name, "node": shown, "key": key.public}
    private_file(public, _json(told), new=True)
    return public


def accept(folder: Path, publics: Sequence[Path]) -> Held:
    """Let parties take part, at the coordinator.

    Raises:
        MissingError: No folder of a coordinator, or a file that is not there.
        DamagedError: A file that no party made.
        UsageError: A party of that name has other keys.
    """
    known, keys = nodes(folder), dict(Roster.read(folder / ROSTER).keys)
    for path in publics:
        told = _public(path)
        name = told["party"]
        if (
            known.get(name, told["node"]) != told["node"]
            or keys.get(name, told["key"]) != told["key"]
        ):
            raise UsageError(
                f"{path}: {name!r} takes part with other keys",
                hint=f"is it the same party? then: consilience federate keys remove {name}",
            )
        known[name], keys[name] = told["node"], told["key"]
    _write_pinned(folder, known, keys)
    _hand_out(folder)
    return held(folder)


def remove(folder: Path, name: str) -> Held:
    """Let a party take part no more.

    Raises:
        MissingError: It does not take part.
    """
    known, keys = nodes(folder), dict(Roster.read(folder / ROSTER).keys)
    if name not in known:
        raise MissingError(
            f"no party {name!r} takes part, only {', '.join(sorted(known)) or 'nobody'}",
            hint="consilience federate keys list",
        )
    del known[name], keys[name]
    _write_pinned(folder, known, keys)
    _hand_out(folder)
    return held(folder)


def renew(folder: Path, *, hosts: Sequence[str] = (), days: int = 365) -> Held:
    """Make the coordinator a new certificate; parties need nothing new.

    Args:
        folder: Of the coordinator.
        hosts: Names and addresses; the same as before where none are given.
        days: How long it is good for, or until the authority ends.

    Raises:
        UsageError: The authority itself has ended.
    """
    authority = certificate(folder / CA).not_valid_after_utc
    if authority <= datetime.now(UTC):
        raise UsageError(
            f"the authority {folder / CA} ended on {authority:%Y-%m-%d}",
            hint="make a new folder, and send its ca.crt to all parties",
        )
    _issue(folder, hosts or _hosts(certificate(folder / SERVER)), days, new=False)
    return held(folder)


def held(folder: Path) -> Held:
    """What a folder of keys holds.

    Raises:
        MissingError: It holds none.
    """
    if not (folder / CA).exists() and not (folder / NODE_KEY).exists():
        raise MissingError(
            f"{folder} holds no keys",
            hint="consilience federate keys make --host NAME, or: keys party NAME",
        )
    server = certificate(folder / SERVER) if (folder / SERVER).exists() else None
    roster = Roster.read(folder / ROSTER) if (folder / ROSTER).exists() else None
    return Held(
        folder=folder,
        parties=tuple(sorted(roster.keys)) if roster else (),
        hosts=tuple(_hosts(server)) if server else (),
        expires=server.not_valid_after_utc if server else None,
        authority=certificate(folder / CA).not_valid_after_utc if (folder / CA).exists() else None,
        fingerprint=roster.fingerprint if roster else "",
    )


def nodes(folder: Path) -> dict[str, str]:
    """Public keys, in the form of SSH, of the parties that may connect.

    Raises:
        MissingError: There is no such file.
        DamagedError: It holds something else.
    """
    found = _read(folder / NODES)
    if not isinstance(found.get("nodes"), dict):
        raise _damaged(folder / NODES)
    return {str(name): str(key) for name, key in found["nodes"].items()}


def node_pem(shown: str) -> bytes:
    """A node's public key in the form that Flower compares: PEM."""
    return form.load_ssh_public_key(shown.encode()).public_bytes(
        form.Encoding.PEM, form.PublicFormat.SubjectPublicKeyInfo
    )


def certificate(path: Path) -> x509.Certificate:
    """Read a certificate.

    Raises:
        MissingError: It is not there.
        DamagedError: It is none.
    """
    try:
        return x509.load_pem_x509_certificate(_bytes(path))
    except ValueError as error:
        raise _damaged(path) from error


def _make_authority(folder: Path) -> None:
    key = _new_key()
    name = _name("Consilience federation")
    built = (
        _dated(x509.CertificateBuilder(), _CA_DAYS)
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    private_file(folder / CA_KEY, _pem(key), new=True)
    private_file(folder / CA, _signed(built, key), new=True)


def _issue(folder: Path, hosts: Sequence[str], days: int, *, new: bool) -> None:
    """Make the coordinator's certificate; the old one is replaced only by a whole one."""
    authority, signer, key = certificate(folder / CA), _authority_key(folder), _new_key()
    left = (authority.not_valid_after_utc - datetime.now(UTC)).days
    built = (
        _dated(x509.CertificateBuilder(), min(days, left))
        .subject_name(_name("Consilience coordinator"))
        .issuer_name(authority.subject)
        .public_key(key.public_key())
        .add_extension(x509.SubjectAlternativeName(_alternatives(hosts)), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False
        )
    )
    for name, content in ((SERVER_KEY, _pem(key)), (SERVER, _signed(built, signer))):
        _replace(folder / name, content, new=new)


def _dated(builder: x509.CertificateBuilder, days: int) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        builder.serial_number(x509.random_serial_number())
        .not_valid_before(now - _EARLIER)
        .not_valid_after(now + timedelta(days=days))
    )


def _signed(built: x509.CertificateBuilder, key: ec.EllipticCurvePrivateKey) -> bytes:
    return built.sign(key, hashes.SHA256()).public_bytes(form.Encoding.PEM)


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs,
        key_cert_sign=signs,
        crl_sign=signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _name(told: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, told)])


def _alternatives(hosts: Sequence[str]) -> list[x509.GeneralName]:
    return [_alternative(host) for host in dict.fromkeys(hosts)]


def _alternative(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        pass
    try:
        return x509.DNSName(host.encode("idna").decode("ascii"))
    except ValueError as error:
        raise UsageError(
            f"{host!r} is no name or address of a machine",
            hint="give a name such as rag.example.org, or an address such as 192.0.2.7",
        ) from error


def _hosts(found: x509.Certificate) -> list[str]:
    try:
        named = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    addresses = named.get_values_for_type(x509.IPAddress)
    return [*named.get_values_for_type(x509.DNSName), *map(str, addresses)]


def _new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP384R1())


def _node_key() -> tuple[bytes, str]:
    """The private half in OpenSSH's form, the public half as one line."""
    key = _new_key()
    private = key.private_bytes(form.Encoding.PEM, form.PrivateFormat.OpenSSH, form.NoEncryption())
    shown = key.public_key().public_bytes(form.Encoding.OpenSSH, form.PublicFormat.OpenSSH)
    return private, shown.decode("ascii")


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption())


def _authority_key(folder: Path) -> ec.EllipticCurvePrivateKey:
    try:
        key = form.load_pem_private_key(_bytes(folder / CA_KEY), None)
    except ValueError as error:
        raise _damaged(folder / CA_KEY) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise _damaged(folder / CA_KEY)
    return key


def _public(path: Path) -> dict[str, str]:
    """What a party sent; raises DamagedError where it is something else."""
    found = _read(path)
    try:
        told = {name: str(found[name]) for name in ("party", "node", "key")}
        _check_name(told["party"])
        _check_node(told["node"])
        Roster({told["party"]: told["key"]})
    except (KeyError, ValueError, UsageError) as error:
        raise _damaged(path) from error
    return told


def _check_node(shown: str) -> None:
    if not isinstance(form.load_ssh_public_key(shown.encode()), ec.EllipticCurvePublicKey):
        raise ValueError("another kind of key")


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} is no name of a party",
            hint="letters, digits, '-', '_' and '.', at most 64",
        )


def _check_new(folder: Path, *names: str) -> None:
    for name in names:
        if (folder / name).exists():
            raise UsageError(
                f"{folder / name} is there already; keys are never written over",
                hint="name a new folder; a new certificate comes from: federate keys renew",
            )


def _write_pinned(folder: Path, known: Mapping[str, str], keys: Mapping[str, str]) -> None:
    roster = Roster(keys)
    _replace(folder / NODES, _json({"format": _FORMAT, "nodes": dict(known)}), new=False)
    roster.write(folder / ROSTER)


def _hand_out(folder: Path) -> None:
    """Give the parties whose folders are here what the others are sent."""
    for place in sorted((folder / "parties").glob("*/")):
        for name in (CA, ROSTER):
            _replace(place / name, (folder / name).read_bytes(), new=False)


def _replace(path: Path, content: bytes, *, new: bool) -> None:
    if new:
        private_file(path, content, new=True)
    else:
        write_whole(path, content)


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(_bytes(path))
    except ValueError as error:
        raise _damaged(path) from error
    if not isinstance(found, dict) or found.get("format") != _FORMAT:
        raise _damaged(path)
    return found


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise MissingError(
            f"{path} cannot be read: {error.strerror}",
            hint="keys are made with: consilience federate keys",
        ) from error


def _damaged(path: Path) -> DamagedError:
    return DamagedError(
        f"{path} is not what consilience federate keys writes", hint="ask its maker for a new copy"
    )


def _json(told: Mapping[str, Any]) -> bytes:
    return (json.dumps(told, indent=2, ensure_ascii=False) + "\n").encode()


__all__ = [
    "Held",
    "InvalidSignature",
    "PartyKey",
    "Roster",
    "accept",
    "certificate",
    "held",
    "make",
    "make_party",
    "node_pem",
    "nodes",
    "remove",
    "renew",
]
