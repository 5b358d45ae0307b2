"""Byte pairs: ids and texts as the published tokenizer makes them; clear words where the vocabulary is missing."""

import gzip
import hashlib

import pytest
from reference_cases import Case

from tats.flags import UserError
from tats.gpt.bpe import SHA256, ClipBPE, TextTooLong, byte_letters, clean


@pytest.fixture(scope="module")
def case():
    return Case("bpe")


@pytest.fixture(scope="module")
def bpe(case):
    return ClipBPE(case.path / "bpe_simple_vocab_16e6.txt.gz")


def test_the_vocabulary_of_the_tests_is_the_published_one(case):
    text = gzip.decompress((case.path / "bpe_simple_vocab_16e6.txt.gz").read_bytes())
    assert hashlib.sha256(text).hexdigest() == SHA256
    case.check_fact("vocab_md5", hashlib.md5(text).hexdigest(), case.meta["vocab_md5"])


@pytest.mark.parametrize("what", ["ids", "clean", "decoded"])
def test_strings_equal_the_published_tokenizer(case, bpe, what):
    expected, strings = case.json("expected.json"), case.json("strings.json")["strings"]
    ours = {
        "ids": lambda: [bpe.encode(text) for text in strings],
        "clean": lambda: [clean(text) for text in strings],
        "decoded": lambda: [bpe.decode(ids) for ids in expected["ids"]],
    }[what]()
    for text, found, wanted in zip(strings, ours, expected[what], strict=True):
        assert found == wanted, text
    case.check_fact(f"expected.json/{what}", ours, expected[what])


def test_rows_of_fixed_length_equal_the_published_tokenizer(case, bpe):
    expected = case.json("expected.json")["tokenize"]
    ours = []
    for call in case.json("strings.json")["tokenize"]:
        try:
            ours.append(bpe.tokenize(call["texts"], call["context_length"], call["truncate_text"]).tolist())
        except TextTooLong as error:
            assert isinstance(error, (UserError, RuntimeError)) and "fit" in str(error)
            ours.append("RuntimeError")
    case.check_fact("expected.json/tokenize", ours, expected)


def test_a_text_comes_back_whole_when_asked_for(bpe):
    ids = [bpe.start, *bpe.encode("Jump! And  a coin!"), bpe.end, 0, 0]
    assert bpe.decode(ids, as_published=False) == "jump ! and a coin ! "
    assert bpe.decode(ids) == "jump ! and a coin ! <|endoftext|>"
    assert bpe.decode([0, 256], as_published=False) == "!! " and bpe.decode([0, 256]) == "! "


def test_every_byte_has_its_own_visible_letter():
    letters = byte_letters()
    assert sorted(letters) == list(range(256)) and len(set(letters.values())) == 256
    assert not any(letter.isspace() for letter in letters.values())


def test_text_and_packed_text_give_the_same_ids(case, bpe, tmp_path):
    plain = tmp_path / "vocabulary.txt"
    plain.write_bytes(gzip.decompress((case.path / "bpe_simple_vocab_16e6.txt.gz").read_bytes()))
    other = ClipBPE(plain)
    assert len(other) == len(bpe) == 49408
    assert other.encode("a fast red circle") == bpe.encode("a fast red circle")


def test_a_missing_or_foreign_vocabulary_names_address_and_checksum(tmp_path):
    with pytest.raises(UserError, match=r"github.com/openai/CLIP.*67603cfd"):
        ClipBPE(tmp_path / "missing.txt.gz")
    (tmp_path / "short.txt").write_text("header\na b\n")
    with pytest.raises(UserError, match="not a vocabulary"):
        ClipBPE(tmp_path / "short.txt")
    (tmp_path / "cut.txt.gz").write_bytes(gzip.compress(b"header\n" * 100)[:20])
    with pytest.raises(UserError, match="not a vocabulary"):
        ClipBPE(tmp_path / "cut.txt.gz")
