"""Images and files: as values, as parts of a message, and as short descriptions."""

from dspynb.media.describe import content_text, describe_url, has_media, without_data
from dspynb.media.values import File, Image, Medium

__all__ = ["File", "Image", "Medium", "content_text", "describe_url", "has_media", "without_data"]
