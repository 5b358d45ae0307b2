"""Clips out of files: the very frames that decoding the whole file gives, from every kind of file."""

import shutil

import av
import numpy as np
import pytest
from films import whole_film, write_film

from tats import reader
from tats.reader import ReadError

KINDS = {
    "mpeg4.avi": {"codec": "mpeg4"},
    "mpeg4_b.avi": {"codec": "mpeg4", "options": {"g": "12", "bf": "2"}},
    "h264_b.avi": {"options": {"g": "12", "bf": "2"}},
    "mjpeg.avi": {"codec": "mjpeg", "pix_fmt": "yuvj420p"},
    "h264_b.mp4": {"options": {"g": "12", "bf": "3"}},
    "h264_open.mp4": {"options": {"g": "12", "bf": "3", "x264-params": "open-gop=1"}},
    "one_key_frame.mp4": {"options": {"g": "250"}},
    "mpeg4_b.mov": {"codec": "mpeg4", "options": {"g": "12", "bf": "2"}},
    "vp8.webm": {"codec": "libvpx", "options": {"g": "12", "auto-alt-ref": "1", "lag-in-frames": "16", "b": "100k"}},
    "vp9.webm": {"codec": "libvpx-vp9", "options": {"g": "12", "deadline": "realtime", "cpu-used": "8"}},
    "varying.mp4": {"stamps": np.cumsum(np.random.RandomState(0).randint(20, 90, 40)).tolist()},
    "late.mkv": {"stamps": list(range(5000, 6600, 40))},
    "late.ts": {"stamps": list(range(5000, 6600, 40)), "options": {"g": "12", "bf": "2"}},
}


@pytest.mark.parametrize("name", KINDS)
def test_clips_are_slices_of_the_whole_film(name, tmp_path):
    path = write_film(tmp_path / name, **KINDS[name])
    film, timeline = whole_film(path), reader.scan(path)
    assert timeline.n_frames == len(film) == 40
    for start in (0, 1, 5, 11, 12, 13, 23, 30, 33):
        assert np.array_equal(reader.read_clip(path, timeline, start, 7), film[start : start + 7]), start
    assert np.array_equal(reader.read_clip(path, timeline, 2, 16, step=3), film[2:18:3])
    assert np.array_equal(reader.read_clip(path, timeline, 39, 1), film[39:])
    assert np.array_equal(np.stack(list(reader.read_all(path))), film)


def test_frames_hidden_by_an_edit_list_do_not_count(tmp_path):
    source, cut = write_film(tmp_path / "whole.mp4", options={"g": "12", "bf": "2"}), tmp_path / "cut.mp4"
    with av.open(str(source)) as given, av.open(str(cut), "w") as made:
        stream = made.add_stream_from_template(given.streams.video[0])
        for packet in given.demux(video=0):
            if packet.size:
                packet.pts, packet.dts = packet.pts - 5 * 512, packet.dts - 5 * 512  # five frames before time 0
                packet.stream = stream
                made.mux(packet)
    film, timeline = whole_film(cut), reader.scan(cut)
    assert timeline.n_frames == len(film)
    for start in (0, 3, 10, len(film) - 5):
        assert np.array_equal(reader.read_clip(cut, timeline, start, 5), film[start : start + 5])


def test_a_clip_late_in_a_long_film_is_found_without_decoding_what_comes_before(tmp_path):
    path = write_film(tmp_path / "long.mp4", n_frames=600, options={"g": "30", "bf": "3", "preset": "ultrafast"})
    timeline = reader.scan(path)
    assert timeline.n_frames == 600
    decoded = []
    whole = reader._decoded

    def counting(container):
        for frame in whole(container):
            decoded.append(frame.pts)
            yield frame

    reader._decoded = counting
    try:
        clip = reader.read_clip(path, timeline, 565, 16)
    finally:
        reader._decoded = whole
    assert len(decoded) <= 30 + 16
    assert np.array_equal(clip, whole_film(path)[565:581])


@pytest.mark.parametrize("film", ["bigbuckbunny", "bikes", "carphone_pristine"])
def test_real_film_reads_exactly(film, real_films):
    path = real_films[film]
    timeline = reader.scan(path)
    with av.open(str(path)) as container:
        frames = [frame.to_ndarray(format="rgb24") for _, frame in zip(range(45), container.decode(video=0))]
    assert timeline.n_frames == {"bigbuckbunny": 132, "bikes": 250, "carphone_pristine": 120}[film]
    assert np.array_equal(reader.read_clip(path, timeline, 33, 8, step=4), np.stack(frames[33:41:4]))


def broken_files(folder):
    good = write_film(folder / "good.mp4")
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "text.mp4").write_text("not a video")
    (folder / "cut.mp4").write_bytes(good.read_bytes()[:1500])
    with av.open(str(folder / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        frame.rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return ["empty.mp4", "text.mp4", "cut.mp4", "sound.mp4", "missing.mp4"]


def test_broken_files_are_one_line_that_names_them(tmp_path):
    for name in broken_files(tmp_path):
        with pytest.raises(ReadError, match=name) as raised:
            reader.scan(tmp_path / name)
        assert "\n" not in str(raised.value) and str(raised.value).count(str(tmp_path)) == 1


def test_damage_in_the_middle_is_an_error_that_names_the_file(tmp_path):
    path = write_film(tmp_path / "film.mp4", n_frames=60)
    data = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        packets = [(packet.pos, packet.size, packet.pts) for packet in container.demux(video=0) if packet.size]
    place, size, _ = sorted(packets, key=lambda packet: packet[2])[30]
    data[place + 4 : place + size] = bytes(size - 4)
    path.write_bytes(data)
    timeline = reader.scan(path)  # its ends are whole
    assert timeline.n_frames == 60
    with pytest.raises(ReadError, match=r"film\.mp4"):
        reader.read_clip(path, timeline, 25, 16)
    with pytest.raises(ReadError, match=r"film\.mp4"):
        reader.scan(path, decode_all=True)
    assert len(reader.read_clip(path, timeline, 0, 16)) == 16


def test_a_file_replaced_after_it_was_indexed_is_not_read_wrongly(tmp_path):
    path = write_film(tmp_path / "film.mp4")
    timeline = reader.scan(path)
    shutil.copy(write_film(tmp_path / "other.mp4", n_frames=20, stamps=list(range(7, 1607, 80))), path)
    with pytest.raises(ReadError, match="not those of its index"):
        reader.read_clip(path, timeline, 3, 30)


def test_windows_outside_the_film_are_refused(tmp_path):
    path = write_film(tmp_path / "film.mp4", n_frames=8)
    timeline = reader.scan(path)
    for start, count in ((-1, 2), (0, 9), (8, 1), (0, 0)):
        with pytest.raises(ValueError, match="do not lie in the 8"):
            reader.read_clip(path, timeline, start, count)
