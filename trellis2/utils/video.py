"""Frames to bytes: H.264 for browsers, animated WebP where there is no encoder."""

from __future__ import annotations

import io
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from trellis2.errors import BackendError, InvalidArgumentError

CRF = 20
"""x264's quality scale: 18 is visually lossless, 23 its default."""


def stack_frames(frames: Sequence[np.ndarray] | np.ndarray) -> np.ndarray:
    """[N, H, W, 3] uint8; raises InvalidArgumentError for no frames, mixed sizes or another dtype."""
    if len(frames) == 0:
        raise InvalidArgumentError("a video needs at least 1 frame, got 0")
    first = frames[0]
    for number, frame in enumerate(frames):
        if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8 or 0 in frame.shape:
            raise InvalidArgumentError(
                f"frame {number} must be uint8 [H, W, 3], got {frame.dtype} {list(frame.shape)}"
            )
        if frame.shape != first.shape:
            raise InvalidArgumentError(
                f"frame {number} is {frame.shape[1]}x{frame.shape[0]}, the first is "
                f"{first.shape[1]}x{first.shape[0]}: all must have one size"
            )
    return np.ascontiguousarray(np.stack(list(frames)))


def encode_mp4(frames: Sequence[np.ndarray] | np.ndarray, fps: float = 15) -> bytes:
    """An MP4 that browsers play: H.264, yuv420p, index at the front.

    frames: uint8 [H, W, 3] each; odd sides are padded by repeating the last row or column, since yuv420p
    needs even ones. Raises InvalidArgumentError, and BackendError where there is no ffmpeg (use
    `encode_webp`).
    """
    if not fps > 0:
        raise InvalidArgumentError(f"fps must be above 0, got {fps}")
    video = stack_frames(frames)
    _, height, width, _ = video.shape
    if height % 2 or width % 2:
        video = np.pad(video, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        _, height, width, _ = video.shape
    # an index at the front can only be written to a file that allows going back
    with tempfile.TemporaryDirectory(prefix="trellis2-video-") as folder:
        path = Path(folder) / "video.mp4"
        source = [
            "-f",
            "rawvideo",
            "-pix_fmt",
            "rgb24",
            "-s",
            f"{width}x{height}",
            "-r",
            f"{fps}",
            "-i",
            "pipe:0",
        ]
        colour = ["-vf", "scale=out_color_matrix=bt709:out_range=tv", "-colorspace", "bt709"]
        colour += ["-color_primaries", "bt709", "-color_trc", "bt709", "-color_range", "tv"]
        target = ["-c:v", "libx264", "-preset", "veryfast", "-crf", f"{CRF}", "-pix_fmt", "yuv420p"]
        command = [ffmpeg_path(), "-y", "-loglevel", "error", *source, *colour, *target]
        command += ["-movflags", "+faststart", "-an", str(path)]
        done = subprocess.run(command, input=video.tobytes(), capture_output=True, check=False)
        if done.returncode or not path.exists():
            reason = done.stderr.decode(errors="replace").strip().splitlines()
            raise BackendError(
                f"ffmpeg failed with {done.returncode}: {reason[-1] if reason else 'no message'}"
            )
        return path.read_bytes()


def ffmpeg_path() -> str:
    """imageio-ffmpeg's executable; raises BackendError where it is not installed."""
    try:
        import imageio_ffmpeg

        return str(imageio_ffmpeg.get_ffmpeg_exe())
    except (ImportError, RuntimeError) as error:
        raise BackendError("no ffmpeg for MP4: pip install imageio-ffmpeg, or use encode_webp") from error


def encode_webp(frames: Sequence[np.ndarray] | np.ndarray, fps: float = 15, quality: int = 80) -> bytes:
    """An animated WebP that loops for ever; needs Pillow only. Raises InvalidArgumentError."""
    if not fps > 0:
        raise InvalidArgumentError(f"fps must be above 0, got {fps}")
    from PIL import Image

    images = [Image.fromarray(frame) for frame in stack_frames(frames)]
    out = io.BytesIO()
    images[0].save(
        out,
        format="WEBP",
        save_all=True,
        append_images=images[1:],
        duration=round(1000 / fps),
        loop=0,
        quality=quality,
        method=2,
    )
    return out.getvalue()


def encode_video(frames: Sequence[np.ndarray] | np.ndarray, fps: float = 15) -> tuple[bytes, str]:
    """Bytes and media type: MP4 where ffmpeg is installed, else animated WebP."""
    try:
        ffmpeg_path()
    except BackendError:
        return encode_webp(frames, fps), "image/webp"
    return encode_mp4(frames, fps), "video/mp4"
