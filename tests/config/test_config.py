"""What is wrong with a config is said in one line, before anything is opened."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest

from pellucid.config import GROUPS, Config, installed, keys_of
from pellucid.errors import ConfigError, PellucidError

SOURCE = 'source = { kind = "simulated" }\n'


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", r"\[source\] is missing"),
        ("source = 3", r"source = 3: a table with a kind is needed. Installed: "),
        ("[source]\nfps = 3", r"source: kind is missing. Installed: .*simulated"),
        ('[source]\nkind = "simulate"', r'source.kind = "simulate": no such source. Did you mean "simulated"\?'),
        ('[source]\nkind = "simulated"\nfsp = 3', r'source.fsp = 3: no such key. Did you mean "fps"\? Allowed: .*'),
        ('[source]\nkind = "simulated"\nfps = -3', r"source.fps = -3: "),
        ('[source]\nkind = "simulated"\nfps = "fast"', r'source.fps = "fast": '),
        (SOURCE + 'stage = [{ kind = "deconvolve" }]', r"no such part \[stage\]. Did you mean \"stages\"\?"),
        (SOURCE + "[stages]\nkind = 'deconvolve'", r"stages is a list of tables; write \[\[stages\]\]"),
        (SOURCE + "stages = [{ kind = 'deconvolv' }]", r'stages\[0\].kind = "deconvolv": no such stage. Did you mean'),
        (SOURCE + "stages = [{ kind = 'deconvolve' }]", r"stages\[0\]: psf is missing"),
        (SOURCE + "sinks = ['null']", r"sinks\[0\] = 'null': a table with a kind is needed"),
        (SOURCE + "sinks = [{ kind = 'recorder' }, { kind = 'recorder' }]", r"sinks\[1\]: a run has one recorder"),
        (SOURCE + "session = { device = 'gpu' }", r'session.device = "gpu": '),
        (SOURCE + "session = { slots = 1 }", r"session.slots = 1: "),
        (SOURCE + "plugins = ['nowhere.py']", r'plugins\[0\] = "nowhere.py": there is no such file'),
        ("[source", r"not valid TOML"),
    ],
)
def test_one_line_says_where_and_what(text, says):
    with pytest.raises(ConfigError, match=says) as caught:
        Config.parse(text)
    assert "\n" not in str(caught.value)


def test_a_missing_file_a_folder_and_a_picture(tmp_path):
    with pytest.raises(ConfigError, match=r"cannot read the config .*nothing\.toml: No such file"):
        Config.load(tmp_path / "nothing.toml")
    with pytest.raises(ConfigError, match="is a folder"):
        Config.load(tmp_path)
    (tmp_path / "x.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="not a text file"):
        Config.load(tmp_path / "x.toml")


def test_overrides_are_in_the_text_that_is_recorded():
    text = '# kept\n[source]\nkind = "simulated" # this too\nfps = 10\n[[sinks]]\nkind = "null"\n'
    config = Config.parse(text, sets=["source.fps=20", "session.slots=5", "sinks.0.policy=latest"])
    assert config.source.fps == 20
    assert config.settings.slots == 5
    assert config.sinks["null"].policy == "latest"
    assert "# kept" in config.text
    assert "# this too" in config.text
    tree = tomllib.loads(config.text)
    assert tree["source"]["fps"] == 20
    assert tree["session"]["slots"] == 5
    assert Config.parse(config.text).sha256 == config.sha256


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("source.fps", "give key=value"),
        ("=3", "give key=value"),
        ("stages.0.iterations=3", "0 is not one of"),
        ("source.kind.x=3", "there is no table to hold x"),
        ("source.fps=", "source.fps"),
    ],
)
def test_a_wrong_override_is_one_line(change, says):
    with pytest.raises(ConfigError, match=says):
        Config.parse(SOURCE + "stages = []", sets=[change])


def test_headless_leaves_the_window_out():
    text = SOURCE + 'sinks = [{ kind = "window" }, { kind = "null" }]'
    assert list(Config.parse(text).sinks) == ["window", "null"]
    assert list(Config.parse(text, headless=True).sinks) == ["null"]


def test_the_recorded_text_can_be_run_again_from_anywhere(tmp_path):
    np.save(tmp_path / "psf.npy", np.ones((3, 3), np.float32))
    text = (
        SOURCE + 'stages = [{ kind = "deconvolve", psf = "psf.npy" }]\nsinks = [{ kind = "window" }, { kind = "null" }]'
    )
    config = Config.parse(text, tmp_path, headless=True)
    assert "window" not in config.text
    assert (tmp_path / "psf.npy").resolve().as_posix() in Path(
        tomllib.loads(config.text)["stages"][0]["psf"]
    ).as_posix()
    assert Config.parse(config.text, tmp_path / "elsewhere").text == config.text


def test_types_are_told_in_plain_words():
    rows = {key: kind for key, kind, _ in keys_of(installed("stages")["deconvolve"].load())}
    assert rows["order"] == "int | None"
    assert rows["beta"] == "float | Literal['auto'] | None"


def test_a_plugin_that_fails_to_import_is_one_line(tmp_path):
    (tmp_path / "mine.py").write_text("1 / 0")
    with pytest.raises(ConfigError, match="ZeroDivisionError while it was imported"):
        Config.parse('plugins = ["mine.py"]\n' + SOURCE, tmp_path)
    (tmp_path / "other.py").write_text("PELLUCID = 3")
    with pytest.raises(ConfigError, match="must hold PELLUCID"):
        Config.parse('plugins = ["other.py"]\n' + SOURCE, tmp_path)


def test_every_installed_part_loads_and_tells_its_keys():
    for group in GROUPS:
        for kind, entry in installed(group).items():
            part = entry.load()
            assert part.__doc__, kind
            for key, type_of, default in keys_of(part):
                assert key
                assert type_of
                assert "Undefined" not in default
                assert "FieldInfo" not in default


def test_stages_are_built_anew_for_every_stream():
    config = Config.parse(SOURCE + 'stages = [{ kind = "deconvolve", psf = { kind = "gaussian", fwhm_px = 3 } }]')
    first, second = config.make_stages(), config.make_stages()
    assert first["deconvolve"] is not second["deconvolve"]


def test_reading_a_config_imports_no_vendor_sdk():
    code = (
        "import sys; from pellucid.config import Config;"
        f"Config.parse('''{SOURCE}sinks = [{{ kind = \"window\" }}, {{ kind = \"recorder\" }}]''');"
        "sdks = ('pycromanager', 'pymmcore', 'vispy', 'PySide6', 'ome_writers', 'zarr');"
        "print([m for m in sdks if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


@pytest.mark.parametrize("path", sorted(Path(__file__).parents[2].glob("configs/*.toml")), ids=lambda p: p.stem)
def test_every_shipped_config_is_valid(path):
    Config.load(path)


def test_errors_share_one_root():
    assert issubclass(ConfigError, PellucidError)
