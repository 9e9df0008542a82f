import hashlib
import os
from dataclasses import replace
from pathlib import Path

import pytest

from vqmri.errors import InputError, IntegrityError
from vqmri.outputs.manifest import (
    MANIFEST,
    Identity,
    Manifest,
    digest,
    files_below,
    sha256_of,
    verify,
)

IDENTITY = Identity("encode", 1, {"level": {"size": 8}, "seed": 3}, {"volumes": "aa", "model": "b"})


def publish(folder: Path, identity: Identity = IDENTITY) -> Path:
    (folder / "deep" / "er").mkdir(parents=True)
    (folder / "first.bin").write_bytes(bytes(range(100)))
    (folder / "deep" / "er" / "second.txt").write_text("second")
    (folder / ".hidden").write_text("hidden")
    Manifest.of(folder, identity).write(folder)
    return folder


def test_sha256_is_of_the_bytes(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert sha256_of(tmp_path / "a") == hashlib.sha256(b"abc").hexdigest()


@pytest.mark.parametrize(
    "other",
    [
        replace(IDENTITY, stage="sample"),
        replace(IDENTITY, format_version=2),
        replace(IDENTITY, params={"level": {"size": 8}, "seed": 4}),
        replace(IDENTITY, params={"level": {"size": 9}, "seed": 3}),
        replace(IDENTITY, params={"level": {"size": 8}}),
        replace(IDENTITY, inputs={"volumes": "aa", "model": "c"}),
        replace(IDENTITY, inputs={"volumes": "b", "model": "aa"}),
        replace(IDENTITY, inputs={"volumes": "aa", "weights": "b"}),
    ],
)
def test_fingerprint_changes_with_each_part(other: Identity) -> None:
    assert other.fingerprint != IDENTITY.fingerprint


def test_fingerprint_is_equal_for_equal_parts_in_any_order() -> None:
    same = Identity("encode", 1, {"seed": 3, "level": {"size": 8}}, {"model": "b", "volumes": "aa"})
    assert same.fingerprint == IDENTITY.fingerprint


def test_equal_runs_write_equal_manifests(tmp_path: Path) -> None:
    first, second = publish(tmp_path / "one"), tmp_path / "two"
    publish(second)
    for name in files_below(second):
        os.utime(second / name, (1, 1))
    Manifest.of(second, IDENTITY).write(second)
    assert (first / MANIFEST).read_bytes() == (second / MANIFEST).read_bytes()
    assert str(tmp_path) not in (first / MANIFEST).read_text()


def test_manifest_names_every_file_but_itself(tmp_path: Path) -> None:
    manifest = Manifest.read(publish(tmp_path / "out"))
    assert list(manifest.items) == [".hidden", "deep/er/second.txt", "first.bin"]
    assert manifest.items["deep/er/second.txt"] == hashlib.sha256(b"second").hexdigest()
    assert manifest.fingerprint == IDENTITY.fingerprint
    assert manifest.provenance["inputs"] == IDENTITY.inputs
    assert {"numpy", "torch", "vqmri"} <= set(manifest.provenance["packages"])


def test_manifest_reads_back_as_it_was(tmp_path: Path) -> None:
    folder = publish(tmp_path / "out")
    assert Manifest.read(folder) == Manifest.of(folder, IDENTITY)


def test_verify_accepts_what_was_published(tmp_path: Path) -> None:
    folder = publish(tmp_path / "out")
    assert verify(folder).fingerprint == IDENTITY.fingerprint


def test_verify_follows_links_into_a_cache(tmp_path: Path) -> None:
    """DVC may replace every published file by a link."""
    folder = publish(tmp_path / "out")
    cached = tmp_path / "cached"
    (folder / "first.bin").rename(cached)
    (folder / "first.bin").symlink_to(cached)
    verify(folder)
    cached.write_bytes(b"other")
    with pytest.raises(IntegrityError, match=r"first\.bin has changed"):
        verify(folder)


@pytest.mark.parametrize("position", [0, 50, 99])
def test_verify_finds_a_changed_byte(tmp_path: Path, position: int) -> None:
    folder = publish(tmp_path / "out")
    data = bytearray((folder / "first.bin").read_bytes())
    data[position] ^= 1
    (folder / "first.bin").write_bytes(data)
    with pytest.raises(IntegrityError, match=r"first\.bin has changed"):
        verify(folder)


def test_verify_finds_a_missing_file(tmp_path: Path) -> None:
    folder = publish(tmp_path / "out")
    (folder / "deep" / "er" / "second.txt").unlink()
    with pytest.raises(IntegrityError, match=r"second\.txt is missing"):
        verify(folder)


@pytest.mark.parametrize("name", ["stranger", "deep/stranger", ".first.bin.part"])
def test_verify_finds_a_stranger(tmp_path: Path, name: str) -> None:
    folder = publish(tmp_path / "out")
    (folder / name).write_bytes(b"")
    with pytest.raises(IntegrityError, match=f"{name} is not in"):
        verify(folder)


@pytest.mark.parametrize(
    "damaged", [b"", b"{", b"[]", b"{}", b"null", b"\xff\xfe", b'{"items":{}}']
)
def test_verify_finds_a_damaged_manifest(tmp_path: Path, damaged: bytes) -> None:
    folder = publish(tmp_path / "out")
    (folder / MANIFEST).write_bytes(damaged)
    with pytest.raises(IntegrityError, match="is damaged"):
        verify(folder)


def test_a_manifest_cut_anywhere_is_damaged(tmp_path: Path) -> None:
    folder = publish(tmp_path / "out")
    whole = (folder / MANIFEST).read_bytes()
    for length in range(0, len(whole) - 2, 97):
        (folder / MANIFEST).write_bytes(whole[:length])
        with pytest.raises(IntegrityError):
            verify(folder)


def test_a_changed_hash_or_name_in_the_manifest_is_found(tmp_path: Path) -> None:
    folder = publish(tmp_path / "out")
    whole = (folder / MANIFEST).read_text()
    for old, new in (("first.bin", "frist.bin"), (sha256_of(folder / "first.bin"), "0" * 64)):
        (folder / MANIFEST).write_text(whole.replace(old, new))
        with pytest.raises(IntegrityError):
            verify(folder)


def test_a_folder_without_manifest_is_no_output(tmp_path: Path) -> None:
    for reader in (Manifest.read, verify, digest):
        with pytest.raises(InputError, match="no published output"):
            reader(tmp_path)


def test_check_refuses_a_file_that_was_not_published(tmp_path: Path) -> None:
    folder = publish(tmp_path / "out")
    (folder / "stranger").write_bytes(b"")
    manifest = Manifest.read(folder)
    manifest.check(folder, ["first.bin"])
    with pytest.raises(IntegrityError, match="stranger"):
        manifest.check(folder, ["first.bin", "stranger"])


def test_digest_changes_with_identity_and_with_content(tmp_path: Path) -> None:
    first = publish(tmp_path / "one")
    assert digest(first) == digest(publish(tmp_path / "two"))
    assert digest(first) != digest(publish(tmp_path / "three", replace(IDENTITY, stage="x")))
    before = digest(first)
    (first / "first.bin").write_bytes(b"other")
    Manifest.of(first, IDENTITY).write(first)
    assert digest(first) != before
