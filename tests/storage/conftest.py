"""The servers of the S3 tests."""

from tests.services.s3 import ministack, seaweedfs

__all__ = ["ministack", "seaweedfs"]
