"""Any trainer's network becomes an actor that acts as it did, or is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from peergrid.baselines.adapters.layers import actor_of
from peergrid.grid.errors import PeergridError, UnknownName

SEEN = np.random.default_rng(0).normal(size=(6, 5)).astype(np.float32)


def network(activation=nn.Tanh, bias=True):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(5, 7, bias=bias), activation(), nn.Linear(7, 7, bias=bias), activation(), nn.Linear(7, 3)
    )


def given(net, seen=SEEN):
    with torch.no_grad():
        return net(torch.from_numpy(seen)).numpy()


@pytest.mark.parametrize("activation", [nn.Tanh, nn.ReLU])
@pytest.mark.parametrize("bias", [True, False])
def test_an_actor_acts_as_the_network_it_was_made_of(activation, bias):
    net = network(activation, bias)
    np.testing.assert_allclose(actor_of(net)(SEEN), given(net).clip(-1, 1), atol=1e-6)
    np.testing.assert_allclose(actor_of(net, bound="tanh")(SEEN), np.tanh(given(net)), atol=1e-6)
    np.testing.assert_allclose(actor_of(nn.Sequential(net, nn.Tanh()))(SEEN), np.tanh(given(net)), atol=1e-6)


def test_parts_follow_each_other_and_those_that_do_nothing_are_left_out():
    net = network()
    parts = actor_of(nn.Sequential(nn.Flatten(), *net[:4]), nn.Identity(), nn.ModuleDict({"mean": net[4]}))
    np.testing.assert_array_equal(parts(SEEN), actor_of(net)(SEEN))
    np.testing.assert_allclose(actor_of(net[0])(SEEN), given(net[0]).clip(-1, 1), atol=1e-6)


def test_one_activation_may_stand_in_several_places():
    net, same = network(), nn.Tanh()
    again = nn.Sequential(net[0], same, net[2], same, net[4])
    np.testing.assert_array_equal(actor_of(again)(SEEN), actor_of(net)(SEEN))


def test_the_first_outputs_alone_may_be_the_action():
    net = network()
    np.testing.assert_array_equal(actor_of(net, numbers=2)(SEEN), actor_of(net)(SEEN)[:, :2])


def test_what_was_done_to_observations_is_done_by_the_first_layer():
    net, mean, deviation = network(), np.arange(5.0), np.linspace(0.5, 2.0, 5)
    actor = actor_of(net, mean=mean, deviation=deviation)
    scaled = ((SEEN - mean) / deviation).astype(np.float32)
    np.testing.assert_allclose(actor(SEEN), given(net, scaled).clip(-1, 1), atol=1e-5)


def test_weights_are_copies():
    net = network()
    actor = actor_of(net)
    before = actor(SEEN)
    with torch.no_grad():
        net[0].weight.zero_()
    np.testing.assert_array_equal(actor(SEEN), before)


@pytest.mark.parametrize(
    "net",
    [
        nn.Sequential(),
        nn.Sequential(nn.Linear(5, 7), nn.ELU(), nn.Linear(7, 3)),
        nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 7), nn.ReLU(), nn.Linear(7, 3)),
        nn.Sequential(nn.LayerNorm(5), nn.Linear(5, 3), nn.Tanh()),
        nn.Sequential(nn.Linear(5, 7), nn.Linear(7, 3)),
        nn.Sequential(nn.Linear(5, 3), nn.ReLU()),
    ],
    ids=["nothing", "ELU", "both", "LayerNorm", "no activation", "ReLU last"],
)
def test_other_networks_are_refused(net):
    with pytest.raises(PeergridError, match="linear layers with Tanh, or with ReLU, between them; these are: "):
        actor_of(net)


def test_an_unknown_bound_is_refused():
    with pytest.raises(UnknownName, match="Did you mean 'tanh'"):
        actor_of(network(), bound="tahn")
