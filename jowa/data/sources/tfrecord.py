"""TFRecord files and the tf.train.Example messages in them, read without TensorFlow."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from jowa.data.sources.streams import GzipStream
from jowa.errors import UserError

Example = dict[str, list[Any]]
"""A feature's name to its values: bytes, floats or integers."""


def read_records(path: Path) -> Iterator[bytes]:
    """The records of a gzipped TFRecord file, their checksums verified.

    A record is its length (u64), the length's checksum, the content, the content's checksum.

    Raises:
        UserError: the file can't be read, is truncated, or a checksum is wrong.
    """
    with GzipStream(path) as stream:
        while head := stream.read(12):
            head += stream.read_exactly(12 - len(head))
            length, checksum = struct.unpack("<QI", head)
            _check(path, head[:8], checksum)
            content = stream.read_exactly(length)
            _check(path, content, *struct.unpack("<I", stream.read_exactly(4)))
            yield content


def parse_example(content: bytes, path: Path) -> Example:
    """The features of one tf.train.Example; UserError, naming `path`, if it is no such message."""
    parser, decode_error = _parser()
    try:
        message = parser.FromString(content)
    except decode_error as error:
        raise UserError(f"{path} has a record that is no tf.train.Example ({error}).") from error
    features = {}
    for name, feature in message.features.feature.items():
        kind = feature.WhichOneof("kind")
        features[name] = list(getattr(feature, kind).value) if kind else []
    return features


def _check(path: Path, content: bytes, expected: int) -> None:
    crc = _crc32c(content)
    # TFRecord stores checksums rotated and shifted, lest one be taken of data that hold checksums themselves.
    masked = ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
    if masked != expected:
        raise UserError(f"{path} is damaged or no TFRecord file (a checksum is wrong): get it again.")


def _crc32c(content: bytes) -> int:
    try:
        from google_crc32c import value
    except ImportError as error:
        raise _install("google-crc32c") from error
    return int(value(content))


@cache
def _parser() -> tuple[Any, type[Exception]]:
    """The class of tf.train.Example, made from a description of the message, and its error."""
    try:
        from google.protobuf import descriptor_pool, message_factory
        from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorProto
        from google.protobuf.message import DecodeError
    except ImportError as error:
        raise _install("protobuf") from error
    kinds = FieldDescriptorProto
    file = FileDescriptorProto(name="jowa/example.proto", package="jowa", syntax="proto3")

    def add(message: Any, name: str, kind: int, of: str | None = None, repeated: bool = False) -> Any:
        label = kinds.LABEL_REPEATED if repeated else kinds.LABEL_OPTIONAL
        number = len(message.field) + 1
        return message.field.add(name=name, number=number, type=kind, type_name=of, label=label)

    feature = DescriptorProto(name="Feature")
    feature.oneof_decl.add(name="kind")
    values = {"bytes_list": kinds.TYPE_BYTES, "float_list": kinds.TYPE_FLOAT, "int64_list": kinds.TYPE_INT64}
    for name, kind in values.items():
        add(file.message_type.add(name=name), "value", kind, repeated=True)
        add(feature, name, kinds.TYPE_MESSAGE, f".jowa.{name}").oneof_index = 0
    file.message_type.append(feature)
    features = file.message_type.add(name="Features")
    entry = features.nested_type.add(name="FeatureEntry")
    entry.options.map_entry = True
    add(entry, "key", kinds.TYPE_STRING)
    add(entry, "value", kinds.TYPE_MESSAGE, ".jowa.Feature")
    add(features, "feature", kinds.TYPE_MESSAGE, ".jowa.Features.FeatureEntry", repeated=True)
    add(file.message_type.add(name="Example"), "features", kinds.TYPE_MESSAGE, ".jowa.Features")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("jowa.Example")), DecodeError


def _install(package: str) -> UserError:
    return UserError(f"Reading RL Unplugged needs the package {package}: pip install 'jowa[rlu]'.")
