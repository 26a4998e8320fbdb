"""Decompression of record batches, with a bound on what comes out."""

# lz4 and aiokafka's compiled classes have no complete types.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownParameterType=false

from __future__ import annotations

import struct
import zlib

import lz4.frame
import numpy as np

CODEC_MASK = 0x07
CODEC_GZIP = 1
CODEC_SNAPPY = 2
CODEC_LZ4 = 3
CODEC_ZSTD = 4

BODY_BYTES_MAX = 256 << 20
"""Largest body of a batch. Far above what brokers take, and small enough not to end the process."""

_LZ4_RATIO_MAX = 255  # a length byte of lz4 stands for at most that many bytes
_GZIP_WINDOW = 31  # zlib's way of saying: 32 KiB window, gzip header and trailer
_XERIAL_MAGIC = b"\x82SNAPPY\x00"
_ZSTD_ROOM_MIN = 64 << 10
_ZSTD_RATIO_USUAL = 16  # rows of text come to 4 to 10; a wrong guess costs a second attempt
_XERIAL_HEADER_BYTES = 16  # the magic, then two versions


def decompress(attributes: int, body: bytes) -> bytes:
    """Return the plain records of a batch's body.

    Args:
        attributes: Attributes of the batch: the lower three bits tell the codec.
        body: Everything behind the header.

    Raises:
        ValueError: The codec is unknown or not installed, or the body is larger than
            ``BODY_BYTES_MAX`` or cut short.
        Exception: Whatever the codec's library makes of bytes it cannot read.
    """
    codec = attributes & CODEC_MASK
    if codec == CODEC_LZ4:
        return _lz4(body)
    if codec == CODEC_GZIP:
        return _gzip(body)
    if codec == CODEC_SNAPPY:
        return _snappy(body)
    if codec == CODEC_ZSTD:
        return _zstd(body)
    raise ValueError(f"unknown compression codec {codec}")


def _lz4(body: bytes) -> bytes:
    decompressor = lz4.frame.LZ4FrameDecompressor()
    if len(body) <= BODY_BYTES_MAX // _LZ4_RATIO_MAX:
        # Cannot exceed the bound. A bound given to the library is allocated in full, which
        # costs as much again as decompressing a batch of 1 MiB.
        plain = decompressor.decompress(body)
    else:
        plain = decompressor.decompress(body, max_length=BODY_BYTES_MAX)
        if not decompressor.eof and len(plain) >= BODY_BYTES_MAX:
            raise _too_large()
    if not decompressor.eof:
        raise ValueError("the lz4 frame is cut short")
    return plain


def _gzip(body: bytes) -> bytes:
    parts: list[bytes] = []
    room = BODY_BYTES_MAX
    while body:
        member = zlib.decompressobj(_GZIP_WINDOW)
        # One more than there is room for, so that a body of exactly the bound can end.
        part = member.decompress(body, room + 1)
        room -= len(part)
        if room < 0:
            raise _too_large()
        if not member.eof:
            raise ValueError("the gzip stream is cut short")
        parts.append(part)
        body = member.unused_data
    return b"".join(parts)


def _snappy(body: bytes) -> bytes:
    try:
        from cramjam import snappy
    except ImportError:
        raise _not_installed("snappy") from None
    if not body.startswith(_XERIAL_MAGIC):
        return _snappy_block(snappy, body, BODY_BYTES_MAX)
    # The framing of Java's xerial library: blocks, each with its size before it.
    parts: list[bytes] = []
    room = BODY_BYTES_MAX
    at = _XERIAL_HEADER_BYTES
    while at < len(body):
        (size,) = struct.unpack_from(">i", body, at)
        at += 4
        if size < 0 or at + size > len(body):
            raise ValueError("a snappy block is cut short")
        parts.append(_snappy_block(snappy, body[at : at + size], room))
        room -= len(parts[-1])
        at += size
    return b"".join(parts)


def _snappy_block(snappy: object, block: bytes, room: int) -> bytes:
    if snappy.decompress_raw_len(block) > room:  # pyright: ignore
        raise _too_large()
    return bytes(snappy.decompress_raw(block))  # pyright: ignore


def _zstd(body: bytes) -> bytes:
    try:
        from cramjam import zstd
    except ImportError:
        raise _not_installed("zstd") from None
    # The library has no bound of its own, but does not write beyond a buffer it is given.
    size = max(_ZSTD_ROOM_MIN, len(body) * _ZSTD_RATIO_USUAL)
    while True:
        # Not a bytearray, which writes zeros over all of it first.
        room = np.empty(min(size, BODY_BYTES_MAX), dtype=np.uint8)
        try:
            written = zstd.decompress_into(body, room)  # pyright: ignore
        except Exception:
            # Too small, or damaged: the error does not tell the two apart by its type.
            if size >= BODY_BYTES_MAX:
                raise
            size *= 16
        else:
            return room[:written].tobytes()


def _too_large() -> ValueError:
    return ValueError(f"the batch decompresses to more than {BODY_BYTES_MAX} bytes")


def _not_installed(codec: str) -> ValueError:
    return ValueError(
        f"it is compressed by {codec}, which needs one more package: pip install 'riverrun[codecs]'"
    )
