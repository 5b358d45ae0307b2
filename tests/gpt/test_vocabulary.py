"""Byte pairs trained on captions: every text comes back, the same captions give the same ids, wrong files are named."""

import json
import subprocess
import sys

import pytest

from tats.bpe import main
from tats.flags import UserError
from tats.gpt.bpe import TextTooLong
from tats.gpt.vocabulary import SMALLEST, CaptionBPE, read_vocabulary, train

CAPTIONS = [f"a {speed} {colour} {shape} moving {way}" for speed in ("slow", "fast") for colour in ("red", "green")
            for shape in ("circle", "square") for way in ("left", "up")]  # fmt: skip


@pytest.fixture(scope="module")
def pairs():
    return train(CAPTIONS, 400)


def test_captions_become_few_ids_and_come_back(pairs):
    for caption in CAPTIONS:
        ids = pairs.encode(caption)
        assert len(ids) == len(caption.split()) and min(ids) > 2 and max(ids) < len(pairs) <= 400
        assert pairs.decode([1, *ids, 2, 0, 0, 7]) == caption


@pytest.mark.parametrize("text", ["A  Red\tcircle", "naïve — 北京 🎬", "<end> and <pad> are words here", "x" * 300])
def test_any_text_can_be_spelled(pairs, text):
    ids = pairs.encode(text)
    assert min(ids) > 2 and max(ids) < len(pairs)
    assert pairs.decode(ids) == " ".join(text.lower().split())


def test_rows_have_start_end_and_padding(pairs):
    ids = pairs.encode("a red circle")
    rows = pairs.tokenize(["a red circle", "a"], 7)
    assert rows[0].tolist() == [1, *ids, 2, 0, 0] and rows[1].tolist() == [1, ids[0], 2, 0, 0, 0, 0]
    assert pairs.tokenize("a red circle", 4, truncate=True).tolist() == [[1, ids[0], ids[1], 2]]
    with pytest.raises(TextTooLong, match=r"5 ids does not fit into 4: 'a red circle'"):
        pairs.tokenize("a red circle", 4)


def test_the_same_captions_give_the_same_vocabulary_in_another_process(pairs):
    program = f"from tats.gpt.vocabulary import train; print(train({CAPTIONS!r}, 400).json)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True)
    assert json.loads(done.stdout) == json.loads(pairs.json)


def test_ids_are_those_of_the_library(pairs):
    tokenizers = pytest.importorskip("tokenizers")
    library = tokenizers.Tokenizer.from_str(pairs.json)
    assert library.get_vocab_size() == len(pairs)
    assert all(library.encode(caption).ids == pairs.encode(caption) for caption in CAPTIONS)


def test_a_vocabulary_has_room_for_all_bytes():
    assert len(train(["a"], SMALLEST)) == SMALLEST
    with pytest.raises(UserError, match="too small: 259"):
        train(CAPTIONS, SMALLEST - 1)


def broken(pairs, change):
    content = json.loads(pairs.json)
    change(content)
    return json.dumps(content)


@pytest.mark.parametrize("change", [
    lambda content: content.pop("model"),
    lambda content: content["model"].update(type="WordPiece"),
    lambda content: content["model"]["vocab"].update({"<pad>": 1, "<start>": 0}),
    lambda content: content["model"]["vocab"].pop("<end>"),
    lambda content: content["model"]["merges"].append(["no", "such"]),
    lambda content: content["model"].update(merges=7),
    lambda content: content["model"].update(vocab=[1, 2]),
    lambda content: content.update(pre_tokenizer={"type": "nothing"}),
    lambda content: content.update(model=[content["model"]]),
])  # fmt: skip
def test_another_kind_of_json_is_refused(pairs, change, tmp_path):
    path = tmp_path / "pairs.json"
    path.write_text(broken(pairs, change))
    with pytest.raises(UserError, match=r"pairs\.json: not a vocabulary of `tats bpe`"):
        read_vocabulary(path)


def test_the_form_of_a_file_follows_from_its_name(pairs, tmp_path):
    (tmp_path / "pairs.json").write_text(pairs.json)
    again = read_vocabulary(tmp_path / "pairs.json")
    assert isinstance(again, CaptionBPE) and again.encode(CAPTIONS[0]) == pairs.encode(CAPTIONS[0])
    with pytest.raises(UserError, match="--bpe_path"):
        read_vocabulary(tmp_path / "missing.json")
    with pytest.raises(UserError, match=r"github.com/openai/CLIP.*67603cfd"):
        read_vocabulary(tmp_path / "missing.txt.gz")
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="not a vocabulary"):
        read_vocabulary(tmp_path / "binary.json")


def test_the_verb_writes_a_vocabulary_of_the_train_split(tmp_path, capsys):
    for split, texts in (("train", CAPTIONS), ("test", ["something else"])):
        (tmp_path / split).mkdir()
        named = {f"{number}.mp4": text for number, text in enumerate(texts)}
        (tmp_path / split / "captions.json").write_text(json.dumps(named))
    main(["--data_path", str(tmp_path), "--out", str(tmp_path / "made" / "pairs.json"), "--bpe_size", "300"])
    told = capsys.readouterr()
    assert told.out.strip() == str(tmp_path / "made" / "pairs.json")
    assert f"ids from {len(CAPTIONS)} captions" in told.err and "8 to 8 tokens" in told.err
    assert read_vocabulary(told.out.strip()).json == train(CAPTIONS, 300).json


@pytest.mark.parametrize("flags, words", [
    (["--out", "x.txt"], "ends with .json"),
    (["--out", "x.json"], "--data_path is needed"),
    (["--out", "x.json", "--data_path", "EMPTY"], "--text_cond needs"),
    (["--out", "x.json", "--text_path", "EMPTY/none.csv"], "no such file"),
])  # fmt: skip
def test_a_verb_without_captions_says_what_is_missing(tmp_path, flags, words):
    with pytest.raises(UserError, match=words):
        main([flag.replace("EMPTY", str(tmp_path)) for flag in flags])
