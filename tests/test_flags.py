"""Flags and YAML: the field is the flag."""

import dataclasses
import subprocess
import sys
from typing import ClassVar

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from tats import flags
from tats.flags import REQUIRED, UserError, arg, parse


@dataclasses.dataclass(frozen=True)
class Data:
    """Where clips come from."""

    batch_size: int = arg(32, "clips per step")
    downsample: tuple[int, int, int] = arg((4, 4, 4), "shrinking of time, height and width")
    image_folder: bool = arg(False, "frames instead of videos")
    resolution: int = arg(64, "height and width")


@dataclasses.dataclass(frozen=True)
class Model:
    """A model."""

    width: int = arg(8, "channels")
    norm_type: str = arg("group", "normalisation", ["group", "batch"])
    no_random_restart: bool = arg(False, "keep codes that nothing uses")
    resolution: int = arg(64, "follows from the data", flag=False)

    def __post_init__(self):
        if self.width < 1:
            raise UserError(f"--width must be at least 1, got {self.width}")


@dataclasses.dataclass(frozen=True)
class Script:
    """Does something.

    And says so in a second paragraph.
    """

    notes: ClassVar[dict] = {"i3d_feat": (0, "never had an effect"), "old_kind": (1, "is gone")}

    lr: float = arg(3e-4, "learning rate")
    val_check_interval: int | float = arg(1.0, "test every so many batches or parts of an epoch")
    top_k: int | None = arg(None, "draw among so many")
    fast_dev_run: bool | int = arg(False, "try a few batches")
    ckpt2: str | None = arg(None, "second checkpoint", aliases=("CKPT2",))
    files: list[str] = arg([], "names of files")
    scale: tuple[float, float] | None = arg(None, "two factors")
    data: Data = dataclasses.field(default_factory=Data)
    model: Model = dataclasses.field(default_factory=lambda: Model(width=16))


@dataclasses.dataclass(frozen=True)
class Needy:
    """Needs something."""

    gpt_ckpt: str = arg(REQUIRED, "the transformer")
    seed: int = arg(0, "of everything")


def get(*argv):
    return parse(Script, list(argv))


def refused(*argv, cls=Script):
    with pytest.raises(UserError) as error:
        parse(cls, list(argv))
    return str(error.value)


def test_defaults_and_groups():
    config = get()
    assert config.data == Data()
    assert config.model == Model(width=16)
    assert get("--batch_size", "4", "--norm_type", "batch").data.batch_size == 4


@pytest.mark.parametrize(
    "argv, name, value",
    [
        (["--downsample", "4", "8", "8"], "downsample", (4, 8, 8)),
        (["--image_folder"], "image_folder", True),
        (["--image_folder", "--no_image_folder"], "image_folder", False),
        (["--image_folder", "--no-image-folder"], "image_folder", False),
        (["--image-folder"], "image_folder", True),
        (["--image_folder", "True"], "image_folder", True),
        (["--image_folder=false"], "image_folder", False),
        (["--no_random_restart"], "no_random_restart", True),
        (["--no_random_restart", "--random_restart"], "no_random_restart", False),
        (["--no_random_restart", "false"], "no_random_restart", False),
        (["--top_k", "5"], "top_k", 5),
        (["--top_k", "5", "--top_k", "none"], "top_k", None),
        (["--top_k", "-1"], "top_k", -1),
        (["--lr", "-1e-5"], "lr", -1e-5),
        (["--CKPT2", "a.ckpt"], "ckpt2", "a.ckpt"),
        (["--ckpt2", "a.ckpt"], "ckpt2", "a.ckpt"),
        (["--ckpt2=--odd"], "ckpt2", "--odd"),
        (["--files", "a", "b"], "files", ["a", "b"]),
        (["--files"], "files", []),
        (["--scale", "1", "2.5"], "scale", (1.0, 2.5)),
        (["--scale", "1", "2", "--scale", "none"], "scale", None),
        (["--fast_dev_run"], "fast_dev_run", True),
        (["--fast_dev_run", "7"], "fast_dev_run", 7),
    ],
)
def test_spellings(argv, name, value):
    found = flags.to_dict(get(*argv))[name]
    assert found == (list(value) if isinstance(value, tuple) else value)
    assert type(found) is (list if isinstance(value, tuple) else type(value))


@pytest.mark.parametrize("text, value", [("1.0", 1.0), ("1", 1), ("0.5", 0.5), ("1e3", 1000.0)])
def test_a_whole_number_with_a_point_stays_a_float(tmp_path, text, value):
    for config in (get("--val_check_interval", text), from_yaml(tmp_path, f"val_check_interval: {text}")):
        assert config.val_check_interval == value
        assert type(config.val_check_interval) is type(value)


def from_yaml(tmp_path, *texts):
    argv = []
    for number, text in enumerate(texts):
        path = tmp_path / f"settings{number}.yaml"
        path.write_text(text)
        argv += ["--config", str(path)]
    return get(*argv)


def test_yaml_reads_numbers_by_the_type_of_the_field(tmp_path):
    assert from_yaml(tmp_path, "lr: 1e-4").lr == 1e-4  # plain YAML takes this for a text
    assert from_yaml(tmp_path, "lr: 1").lr == 1.0
    assert from_yaml(tmp_path, "downsample: [4, 8, 8]").data.downsample == (4, 8, 8)
    assert from_yaml(tmp_path, "top_k: null").top_k is None
    assert from_yaml(tmp_path, "CKPT2: a").ckpt2 == "a"
    assert from_yaml(tmp_path, "").lr == 3e-4


def test_yaml_may_be_grouped_and_later_files_win_and_flags_win_over_all(tmp_path):
    config = from_yaml(tmp_path, "data:\n  batch_size: 4\nlr: 0.5", "batch_size: 5")
    assert (config.data.batch_size, config.lr) == (5, 0.5)
    path = tmp_path / "settings0.yaml"
    assert get("--batch_size", "6", "--config", str(path)).data.batch_size == 6


@pytest.mark.parametrize(
    "text, words",
    [
        ("batchsize: 4", ["batchsize", "'batch_size'", "settings0.yaml"]),
        ("batch_size: many", ["batch_size", "settings0.yaml", "int", "'many'"]),
        ("batch_size: 2.5", ["batch_size", "int", "2.5"]),
        ("batch_size: true", ["batch_size", "int", "True"]),
        ("batch_size: null", ["batch_size", "int", "None"]),
        ("image_folder: 1", ["image_folder", "true or false", "1"]),
        ("norm_type: bacth", ["norm_type", "group, batch", "'bacth'"]),
        ("lr: .nan", ["lr", "float"]),
        ("ckpt2: 5", ["ckpt2", "text", "5"]),
        ("downsample: [4, 8]", ["downsample", "3 values of int", "[4, 8]"]),
        ("resolution_: 3", ["'resolution'"]),
        ("[1, 2]", ["keys with values", "list"]),
        ("lr: [", ["not a readable YAML file"]),
        ("lr: !!python/object/apply:os.system ['true']", ["not a readable YAML file"]),
    ],
)
def test_a_wrong_yaml_entry_names_key_value_file_and_what_is_allowed(tmp_path, text, words):
    with pytest.raises(UserError) as error:
        from_yaml(tmp_path, text)
    assert all(word in str(error.value) for word in words), str(error.value)


@pytest.mark.parametrize(
    "argv, words",
    [
        (["--batchsize", "4"], ["--batchsize", "'--batch_size'"]),
        (["--batch", "4"], ["--batch;", "'--batch_size'"]),                                # no abbreviations
        (["--i3d_feet"], ["'--i3d_feat'"]),
        (["--no_image_foldre"], ["'--no_image_folder'"]),
        (["--print_konfig"], ["'--print_config'"]),
        (["--zzz"], ["unknown flag --zzz", "--help"]),
        (["--batch_size", "x"], ["--batch_size", "int", "'x'"]),
        (["--batch_size", "1.0"], ["--batch_size", "int", "'1.0'"]),
        (["--batch_size"], ["--batch_size", "int", "nothing was given"]),
        (["--batch_size", "4", "5"], ["--batch_size", "one value", "4 5"]),
        (["--downsample", "4", "8"], ["--downsample", "3 values of int"]),
        (["--norm_type", "bach"], ["--norm_type", "group, batch", "'bach'", "did you mean 'batch'"]),
        (["--image_folder", "5"], ["--image_folder", "true or false", "'5'"]),
        (["--no_image_folder", "true"], ["--no_image_folder", "no value"]),
        (["--i3d_feat", "5"], ["--i3d_feat", "0 values"]),
        (["--lr", "nan"], ["--lr", "float"]),
        (["stray"], ["'stray'"]),
        (["-x"], ["'-x'"]),
        (["--width", "0"], ["--width must be at least 1, got 0"]),
        (["--config"], ["--config", "YAML"]),
        (["--resolution", "x"], ["--resolution", "int"]),
    ],
)  # fmt: skip
def test_a_wrong_flag_names_what_was_given_and_what_is_allowed(argv, words):
    message = refused(*argv)
    assert all(word in message for word in words), message


def test_a_wrong_path_names_the_nearest_one(tmp_path):
    (tmp_path / "settings.yaml").write_text("lr: 1")
    message = refused("--config", str(tmp_path / "setings.yaml"))
    assert "did you mean 'settings.yaml'" in message


def test_a_required_flag_is_asked_for_and_left_open_in_print_config(capsys, tmp_path):
    assert "--gpt_ckpt is required: the transformer" in refused(cls=Needy)
    with pytest.raises(SystemExit) as done:
        parse(Needy, ["--print_config"])
    assert done.value.code == 0
    text = capsys.readouterr().out
    assert yaml.safe_load(text) == {"gpt_ckpt": None, "seed": 0}
    (tmp_path / "a.yaml").write_text(text)
    assert "--gpt_ckpt is required" in refused("--config", str(tmp_path / "a.yaml"), cls=Needy)
    assert parse(Needy, ["--config", str(tmp_path / "a.yaml"), "--gpt_ckpt", "g"]).gpt_ckpt == "g"


def test_flags_without_effect_get_one_line_each(capsys):
    get("--i3d_feat", "--old_kind", "apex")
    captured = capsys.readouterr()
    assert captured.err.splitlines() == ["note: --i3d_feat: never had an effect", "note: --old_kind: is gone"]
    assert not captured.out


def test_print_config_is_yaml_that_starts_the_same_run(capsys, tmp_path):
    argv = ["--downsample", "4", "8", "8", "--lr", "1e-5", "--image_folder", "--files", "a", "--i3d_feat"]
    with pytest.raises(SystemExit) as done:
        get(*argv, "--print_config")
    assert done.value.code == 0
    text = capsys.readouterr().out
    values = yaml.safe_load(text)
    assert values["downsample"] == [4, 8, 8]
    assert "model" not in values
    (tmp_path / "run.yaml").write_text(text)
    assert get("--config", str(tmp_path / "run.yaml")) == get(*argv)


def test_help_is_grouped_with_defaults_and_choices(capsys):
    with pytest.raises(SystemExit) as done:
        get("--help")
    assert done.value.code == 0
    page = " ".join(capsys.readouterr().out.split())
    for words in (
        "Does something.",
        "Where clips come from:",
        "--batch_size INT clips per step (default: 32)",
        "--downsample INT INT INT",
        "(default: 4 4 4)",
        "[group, batch] (default: group)",
        "--width INT channels (default: 16)",
        "--image_folder, --no_image_folder",
        "--ckpt2, --CKPT2 TEXT",
        "(default: none)",
        "accepted without effect: --i3d_feat never had an effect",
    ):
        assert words in page, page
    assert "follows from the data" not in page


@settings(max_examples=60, deadline=None)
@given(
    lr=st.floats(allow_nan=False, allow_infinity=False),
    interval=st.one_of(st.integers(), st.floats(allow_nan=False)),
    top_k=st.none() | st.integers(),
    ckpt=st.none() | st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1),
    files=st.lists(st.text(st.characters(exclude_categories=("Cs", "Cc")))),
    fast=st.booleans() | st.integers(2, 9),
)
def test_every_config_survives_yaml_and_dict(tmp_path_factory, lr, interval, top_k, ckpt, files, fast):
    if ckpt is not None and ckpt.lower() in ("none", "null", "~"):
        ckpt = None
    config = Script(lr=lr, val_check_interval=interval, top_k=top_k, ckpt2=ckpt, files=files, fast_dev_run=fast)
    path = tmp_path_factory.mktemp("round") / "config.yaml"
    flags.save_yaml(config, path)
    again = get("--config", str(path))
    assert again == config
    assert type(again.val_check_interval) is type(interval)
    assert flags.from_dict(Script, flags.to_dict(config)) == config


def test_dicts_keep_fields_that_are_no_flags():
    model = Model(width=3, resolution=128)
    assert flags.to_dict(model) == {"width": 3, "norm_type": "group", "no_random_restart": False, "resolution": 128}
    assert flags.from_dict(Model, {"width": 3, "resolution": 128}) == model
    with pytest.raises(UserError, match="unknown key 'widht'; did you mean 'width'"):
        flags.from_dict(Model, {"widht": 3}, source="a.ckpt")


def test_a_field_that_is_no_flag_may_share_a_name_but_two_flags_may_not():
    assert flags.to_dict(get("--resolution", "32"))["resolution"] == 32
    assert get("--resolution", "32").model.resolution == 64

    @dataclasses.dataclass(frozen=True)
    class Twice:
        batch_size: int = arg(1, "again")
        data: Data = dataclasses.field(default_factory=Data)

    with pytest.raises(TypeError, match="batch_size"):
        parse(Twice, [])


PROGRAM = """
import sys
from tats import flags
def main():
    {body}
flags.run(main)
"""


@pytest.mark.parametrize(
    "body, code, lines",
    [
        ("raise flags.UserError('give\\n a path')", 2, ["error: give a path"]),
        ("raise KeyboardInterrupt", 130, ["stopped"]),
        ("return 3", 3, []),
        ("return 'text'", 0, []),
        ("sys.exit(5)", 5, []),
    ],
)
def test_run_turns_mistakes_into_one_line_and_an_exit_code(body, code, lines):
    program = PROGRAM.format(body=body)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.splitlines()) == (code, lines)


def test_bugs_keep_their_traceback():
    program = PROGRAM.format(body="raise KeyError('x')")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "Traceback" in done.stderr
