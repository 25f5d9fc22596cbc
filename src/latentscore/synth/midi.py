"""The score as a standard MIDI file: one track for each layer, percussion on channel 10."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from latentscore.audio import cannot_be_written, replacing
from latentscore.files import user_path
from latentscore.synth.notes import LAYERS, Note
from latentscore.synth.score import Score

if TYPE_CHECKING:
    from mido import MidiFile

TICKS_A_BEAT = 480

# MIDI key signatures are major or minor: other modes use the key with the same accidentals, and a text names the mode.
# By pitch class, in the spelling with the fewest accidentals.
_MAJOR = ["C", "Db", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B"]
_MINOR = ["Cm", "C#m", "Dm", "Ebm", "Em", "Fm", "F#m", "Gm", "G#m", "Am", "Bbm", "Bm"]
_SIGNATURES = {"major": (_MAJOR, 0), "minor": (_MINOR, 0), "dorian": (_MINOR, 7), "mixolydian": (_MAJOR, 5)}

_CHANNELS = {"bass": 0, "pad": 1, "melody": 2, "rhythm": 9, "texture": 3, "accent": 4}
_PROGRAMS = {"bass": 38, "pad": 89, "melody": 4, "texture": 98, "accent": 14}

# The drums of the kits as General MIDI knows them.
_DRUMS = {
    "kick": 36, "snare": 38, "hat": 42, "open": 46, "ride": 51, "clap": 39, "rim": 37, "click": 76, "tom": 45,
    "lub": 35, "dub": 36, "tap": 40, "swirl": 69, "bayan": 64, "dayan": 62, "closed": 63,
}  # fmt: skip


def to_midi(score: Score) -> MidiFile:
    """Return the notes as played, with tempo, key and layer names; pitches are rounded to semitones.

    A dorian or mixolydian piece has the key signature with the same accidentals, and a text event with its key.
    """
    from mido import MetaMessage, MidiFile, MidiTrack, bpm2tempo

    file = MidiFile(ticks_per_beat=TICKS_A_BEAT)
    head = MidiTrack()
    head.append(MetaMessage("set_tempo", tempo=bpm2tempo(score.piece.bpm)))
    head.append(MetaMessage("time_signature", numerator=4, denominator=4))
    config = score.piece.config
    keys, above = _SIGNATURES[config.mode]
    head.append(MetaMessage("key_signature", key=keys[(score.piece.key + above) % 12]))
    head.append(MetaMessage("text", text=f"key: {config.root} {config.mode}"))
    head.append(MetaMessage("end_of_track"))
    file.tracks.append(head)
    for layer in LAYERS:
        if score.layers[layer]:
            file.tracks.append(_track(layer, score))
    return file


def _track(layer: str, score: Score) -> list:
    from mido import Message, MetaMessage, MidiTrack

    channel = _CHANNELS[layer]
    track = MidiTrack()
    track.append(MetaMessage("track_name", name=f"{layer}: {getattr(score.piece.config, layer)}"))
    if layer in _PROGRAMS:
        track.append(Message("program_change", channel=channel, program=_PROGRAMS[layer]))
    events = []
    for note in score.layers[layer]:
        pitch = _key(layer, note)
        begin, end = round(note.start * TICKS_A_BEAT), round((note.start + note.length) * TICKS_A_BEAT)
        velocity = min(max(round(note.velocity * 127), 1), 127)
        # At the same time, note-offs precede note-ons, otherwise a repeated note would be cut at its start.
        events.append((begin, 1, Message("note_on", channel=channel, note=pitch, velocity=velocity)))
        events.append((max(end, begin + 1), 0, Message("note_off", channel=channel, note=pitch)))
    now = 0
    for at, _, message in sorted(events, key=lambda event: event[:2]):
        track.append(message.copy(time=at - now))
        now = at
    track.append(MetaMessage("end_of_track"))
    return track


def _key(layer: str, note: Note) -> int:
    if layer == "rhythm":
        return _DRUMS[note.sound]
    return min(max(round(note.pitch), 0), 127)


def write_midi(path: Path | str, score: Score) -> None:
    """Write the score as a MIDI file, atomically. Raises :class:`AudioError` if the file cannot be written."""
    path = user_path(path)
    try:
        with replacing(path) as draft:
            to_midi(score).save(draft)
    except OSError as error:
        raise cannot_be_written(path, error) from error
