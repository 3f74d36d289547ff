"""The embedding of the noise level."""

from __future__ import annotations

import math

import torch

from sdaxr.prior.networks.embedding import NoiseEmbedding


def test_levels_are_told_apart_over_their_whole_range() -> None:
    """Sines and cosines: neighbours are alike, and no two levels have the same ones."""
    log_r = torch.linspace(math.log(1e-3), math.log(1e3), 200)
    embedding = NoiseEmbedding(8)
    angles = log_r[:, None] * embedding.frequencies
    features = torch.cat([angles.sin(), angles.cos()], dim=-1)
    distance = torch.cdist(features, features) + 10 * torch.eye(200)
    assert float(distance.min()) > 0.1
    assert float(distance.diagonal(1).max()) < float(distance[0, 50:].min())


def test_shape_is_batch_by_features_and_frequencies_are_not_in_the_file() -> None:
    embedding = NoiseEmbedding(8)
    assert embedding(torch.zeros(5)).shape == (5, 8)
    assert "frequencies" not in embedding.state_dict()
