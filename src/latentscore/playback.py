"""Playback on this machine's loudspeakers with the optional library ``sounddevice``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from latentscore.errors import AudioError
from latentscore.installed import install

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

WITHOUT_PLAYING = "audio.save('sound.flac') writes a file instead"


def sound_device() -> Any:
    """Import and return ``sounddevice``. Raises :class:`AudioError` with the command that installs it."""
    try:
        import sounddevice
    except ImportError:
        raise AudioError(f"playing needs sounddevice: {install('play')}; {WITHOUT_PLAYING}") from None
    except OSError as error:  # sounddevice is installed, but PortAudio is not
        raise AudioError(
            f"playing needs PortAudio ({error}): apt install libportaudio2 or brew install portaudio; {WITHOUT_PLAYING}"
        ) from None
    return sounddevice


def play_blocks(blocks: Iterable[NDArray[np.float32]], sample_rate: int) -> None:
    """Play float32 blocks of shape (frames, 2) until the iterable ends. ``sample_rate`` is in hertz. Raises
    :class:`AudioError`."""
    device = sound_device()
    try:
        with device.OutputStream(samplerate=sample_rate, channels=2, dtype="float32") as out:
            for block in blocks:
                out.write(block)
    except device.PortAudioError as error:
        raise AudioError(f"no device plays this sound ({error}); {WITHOUT_PLAYING}") from None


def play_samples(samples: NDArray[np.float32], sample_rate: int) -> None:
    """Play float32 samples of shape (frames, channels) and return when they have ended. Raises :class:`AudioError`."""
    device = sound_device()
    try:
        device.play(samples, sample_rate, blocking=True)
    except device.PortAudioError as error:
        raise AudioError(f"no device plays this sound ({error}); {WITHOUT_PLAYING}") from None
