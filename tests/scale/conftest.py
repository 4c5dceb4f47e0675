"""Models for tests of many inputs."""

from tests.video.conftest import small_model

__all__ = ["small_model"]
