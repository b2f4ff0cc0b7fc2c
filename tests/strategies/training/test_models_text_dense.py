"""Models `text` and `dense`: their front ends against slow references, and the fast clipped sums for their layers."""

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from statfed.core.records import Channel, WindowCodebook
from statfed.scenarios._data import occupations, student
from statfed.strategies.learning.exact import covers
from statfed.strategies.models import dense, text

ANSWERS = WindowCodebook(
    channels=(Channel(name="character", unit="Latin-1 code", low=0.0, high=255.0),),
    samples=occupations.SAMPLES,
    classes=("a", "b", "c"),
)
TWO = ANSWERS.model_copy(
    update={"channels": tuple(Channel(name=n, unit="code", low=0, high=255) for n in ("job", "task")), "samples": 8}
)
SAID = ["Staff nurse", "hgv  driver, long distance", "", "   ", "s/w eng.", "Köchin", "a", "x" * 64, "médecin d'État 2"]


def slow_features(texts: list[str]) -> NDArray[np.float64]:
    """Words and n-grams one by one, with Python's own whole numbers."""
    mask, table = (1 << 64) - 1, np.zeros((len(texts), text.FEATURES))

    def add(row: int, letters: str, salt: int, weight: float) -> None:
        value = 0
        for letter in letters:
            value = (value * 0x100000001B3 + (0 if letter == " " else ord(letter))) & mask
        value = (value + salt) * 0x9E3779B97F4A7C15 & mask
        value = (value ^ value >> 32) * 0xD6E8FEB86659FD93 & mask
        table[row, value >> 64 - text.BITS] += weight if value >> 63 - text.BITS & 1 else -weight

    for row, said in enumerate(texts):
        kept = "".join(c.lower() if c.isalnum() else " " for c in said)
        for word in kept.split():
            add(row, word, 0, text.WORD)
            padded = f" {word} "
            for length in text.GRAMS:
                for start in range(len(padded) - length + 1):
                    add(row, padded[start : start + length], length, 1.0)
        size = math.sqrt(sum(table[row] ** 2))
        table[row] *= text.LENGTH / size if size else 0.0
    return table


def test_text_features_are_those_of_words_and_grams_taken_one_by_one() -> None:
    random = np.random.default_rng(5)
    drawn = occupations.answers(random.integers(0, 20, 300), occupations.speech(random), random)
    found = text.prepare(occupations.codes(SAID + drawn), ANSWERS)
    np.testing.assert_allclose(found, slow_features(SAID + drawn), atol=1e-6)


def test_an_answer_without_letters_has_no_features_and_every_other_has_the_same_length() -> None:
    sizes = np.linalg.norm(text.prepare(occupations.codes(SAID), ANSWERS), axis=1)
    np.testing.assert_allclose(sizes, [0.0 if not said.strip() else text.LENGTH for said in SAID], rtol=1e-6)


def test_case_spaces_and_punctuation_are_no_features() -> None:
    one, other = text.prepare(
        occupations.codes(["Lorry driver (long-distance)", "  LORRY/DRIVER long distance"]), ANSWERS
    )
    np.testing.assert_array_equal(one, other)


def test_a_typo_moves_an_answer_less_than_another_job_does() -> None:
    right, wrong, else_ = text.prepare(occupations.codes(["electrician", "electrcian", "bookkeeper"]), ANSWERS)
    assert np.linalg.norm(right - wrong) < 0.8 * np.linalg.norm(right - else_)


def test_two_texts_of_a_record_are_read_as_two_and_never_run_together() -> None:
    def windows(job: str, task: str) -> NDArray[np.float32]:
        both = np.frombuffer((job.ljust(8) + task.ljust(8)).encode("latin-1"), np.uint8)
        return both.astype(np.float32).reshape(1, 2, 8)

    whole = text.prepare(windows("abcdefgh", "ijkl"), TWO)
    np.testing.assert_allclose(whole[0], slow_features(["abcdefgh ijkl"])[0], atol=1e-6)
    assert not np.array_equal(whole, text.prepare(windows("abcdefg", "hijkl"), TWO))


@pytest.mark.parametrize("count", [1, 2047, 2048, 4100])
def test_text_is_prepared_record_by_record_to_the_last_bit(count: int) -> None:
    random = np.random.default_rng(count)
    windows = occupations.codes(occupations.answers(random.integers(0, 20, count), occupations.speech(random), random))
    whole = text.prepare(windows, ANSWERS)
    for kept in (np.arange(count)[1:], np.arange(count)[: count // 2], np.array([count - 1])):
        np.testing.assert_array_equal(text.prepare(windows[kept], ANSWERS), whole[kept])


def test_hashes_are_spread_over_all_features_and_both_signs() -> None:
    random = np.random.default_rng(1)
    letters = random.integers(ord("a"), ord("z") + 1, (5000, 1, 64)).astype(np.float32)
    letters[:, :, 5::6] = 32
    table = text.prepare(letters, ANSWERS)
    used = (table != 0).mean(0)
    assert used.min() > 0.5 * used.mean()
    assert used.max() < 2.0 * used.mean()
    assert abs((table > 0).sum() / (table != 0).sum() - 0.5) < 0.01


def test_dense_features_are_values_less_the_middle_of_their_bounds_in_scale_units() -> None:
    random = np.random.default_rng(2)
    windows, _ = student.windows(student.generate(50, random))
    windows[0, 0], windows[1, 0] = 99.0, -99.0  # outside the bounds
    found = dense.prepare(windows, student.CODEBOOK)
    for index, channel in enumerate(student.CODEBOOK.channels):
        inside = np.clip(windows[:, index, 0], channel.low, channel.high)
        want = (inside - (channel.low + channel.high) / 2) / channel.scale
        np.testing.assert_allclose(found[:, index], want, rtol=1e-6, atol=1e-6)
    assert np.abs(found).max() <= 2.5


def test_dense_is_prepared_record_by_record_to_the_last_bit() -> None:
    windows, _ = student.windows(student.generate(1000, np.random.default_rng(3)))
    whole = dense.prepare(windows, student.CODEBOOK)
    np.testing.assert_array_equal(dense.prepare(windows[7::3], student.CODEBOOK), whole[7::3])


@pytest.mark.parametrize("hidden", [1, 5])
def test_both_models_take_the_fast_path_and_hidden_1_has_no_hidden_layer(hidden: int) -> None:
    for model, codebook, width in ((text, ANSWERS, text.FEATURES), (dense, student.CODEBOOK, 45)):
        net = model.build(codebook, hidden, 1)
        assert covers(net)
        classes = len(codebook.classes)
        linear = (width + 1) * classes
        want = linear if hidden == 1 else (width + 1) * hidden + (hidden + 1) * classes
        assert sum(p.numel() for p in net.parameters()) == want


def test_a_linear_layer_on_text_learns_generated_answers() -> None:
    random = np.random.default_rng(4)
    spoken = occupations.speech(random)
    codebook = ANSWERS.model_copy(update={"classes": occupations.CLASSES})

    def draw(count: int) -> tuple[torch.Tensor, torch.Tensor]:
        labels = random.choice(20, count, p=occupations.SHARES)
        said = occupations.codes(occupations.answers(labels, spoken, random))
        return torch.from_numpy(text.prepare(said, codebook)), torch.from_numpy(labels)

    (x, y), (x_new, y_new) = draw(1500), draw(800)
    net = text.build(codebook, 1, 1)
    optimiser = torch.optim.Adam(net.parameters(), 1e-2)
    for _ in range(60):
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(net(x), y).backward()
        optimiser.step()
    assert float((net(x_new).argmax(1) == y_new).float().mean()) > 0.75
