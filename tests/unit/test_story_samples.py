import pytest
from stored_studies import StoredStudy

from sweep.analysis.study_reader import read_study
from sweep.report.samples import SampledStories, distinct, repetition, sampled_trials


def test_distinct_counts_different_sequences_over_all():
    words = ["the", "cat", "sat", "the", "cat", "ran"]
    assert distinct([words], 1) == pytest.approx(4 / 6)
    assert distinct([words], 2) == pytest.approx(4 / 5)  # "the cat" comes twice
    assert distinct([["a"], ["a"]], 1) == 0.5  # across texts
    assert distinct([["a"]], 2) == 0.0


def test_repetition_is_the_share_of_sequences_that_came_before_in_the_same_text():
    assert repetition([["a", "b", "a", "b", "a"]], 2) == pytest.approx(0.5)  # ab ba ab ba
    assert repetition([["a", "b"], ["a", "b"]], 2) == 0.0
    assert repetition([["a"]], 2) == 0.0


def test_stories_count_all_their_texts_together():
    stories = SampledStories("squentropy", 1, "best", 3.0, ["a b", "a b"])
    assert stories.distinct(2) == 0.5
    assert stories.repetition == 0.0


def test_the_best_and_the_median_complete_trial_of_each_arm_are_sampled(tmp_path):
    stored = StoredStudy(tmp_path)
    for perplexity in (70.0, 50.0, 60.0, 90.0):
        stored.add("cross_entropy", [perplexity])
    stored.add("squentropy", [80.0])
    stored.add("squentropy", [10.0], outcome="pruned")
    assert sampled_trials(read_study(stored.storage, stored.study)) == [
        ("cross_entropy", "best", 1, 50.0),
        ("cross_entropy", "median", 2, 60.0),
        ("squentropy", "best", 4, 80.0),
    ]
