"""The U-Net that fills a hole with a given subject: what it sees, where, and how it starts."""

import pytest
import torch
from torch import Tensor, nn

from latent_ebm.networks import MobileUNet, SubjectUNet
from latent_ebm.networks.attention import Gated
from latent_ebm.selection import All, Discriminative, Pooled, TokenSelection

SHAPE = (3, 8, 8)


def unet(channels: int = 7, **changes) -> MobileUNet:
    levels = {"channels": (8, 16), "depth": (1, 2), "transformers": (1, 1)}
    switches = {"self_attention": (False, True), "cross_attention": (True, True)}
    return MobileUNet((channels, 8, 8), 6, **{**levels, **switches, **changes})


def wake(net: nn.Module) -> nn.Module:
    """``net`` in float64, without weights that are zero at first."""
    for parameter in net.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.3)
    return net.double()


def network(selection: TokenSelection | None = None, **changes) -> SubjectUNet:
    torch.manual_seed(0)
    return wake(SubjectUNet(unet(**changes), selection or Discriminative(3)))


def draws(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).double()


HOLE = torch.zeros(2, 1, 8, 8).double()
HOLE[:, :, 2:5, 3:7] = 1
X, LEVEL, TEXT, PICTURE = (
    draws(2, *SHAPE),
    torch.zeros(2),
    draws(2, 4, 6),
    draws(2, *SHAPE, seed=1),
)
MASK = torch.arange(4).expand(2, 4) < 3
KNOWN = torch.cat([PICTURE * (1 - HOLE), HOLE], 1)


@pytest.mark.parametrize("patch", [1, 2])
@pytest.mark.parametrize("text_map", [False, True])
def test_the_first_output_is_that_of_the_text_to_image_network(patch: int, text_map: bool) -> None:
    torch.manual_seed(0)
    base = wake(unet(3, patch=patch, text_map=text_map))
    net = SubjectUNet.from_text_to_image(base, Discriminative(3))
    subject = net.tokens(PICTURE)
    for known, x in ((None, X), (KNOWN, torch.where(HOLE > 0, X, PICTURE))):
        expected = base(x, LEVEL, TEXT, MASK)
        assert expected.std() > 0.1
        found = net(X, LEVEL, TEXT, MASK, known, subject)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    assert not {p.data_ptr() for p in net.parameters()} & {p.data_ptr() for p in base.parameters()}


def test_a_step_of_training_gives_the_subject_an_effect() -> None:
    torch.manual_seed(0)
    net = SubjectUNet.from_text_to_image(wake(unet(3)), Discriminative(3))
    net(X, LEVEL, TEXT, MASK, KNOWN, net.tokens(PICTURE)).square().sum().backward()
    torch.optim.SGD(net.parameters(), lr=1e-3).step()
    first, other = (net(X, LEVEL, TEXT, MASK, KNOWN, net.tokens(p)) for p in (PICTURE, X))
    assert net.gate != 0
    assert not torch.equal(first, other)


def test_the_way_down_on_a_clean_reference_gives_the_tokens() -> None:
    """Equation 2: the tokens are vectors that the blocks themselves compute, for a picture without
    a hole, without a text; here normalised, with vectors of their places.
    """
    net = network(All())
    maps: list[Tensor] = []
    handle = net.unet.down[1].register_forward_hook(lambda *call: maps.append(call[2]))
    empty = torch.zeros(2, 1, 8, 8).double()
    net.unet(torch.cat([PICTURE, empty, PICTURE], 1), torch.full((2,), net.clean_level))
    handle.remove()
    expected = maps[0].flatten(2).transpose(1, 2)
    assert expected.shape == (2, 16, 16)
    placed = net.norm(expected) + net.token_places
    torch.testing.assert_close(net.tokens(PICTURE), placed, rtol=0, atol=0)
    few = network(Discriminative(3)).tokens(PICTURE)
    where = Discriminative(3)(expected)[1]
    torch.testing.assert_close(few, placed.take_along_dim(where[:, :, None], 1), rtol=0, atol=0)
    mean = network(Pooled()).tokens(PICTURE)
    torch.testing.assert_close(mean, net.norm(expected.mean(1, keepdim=True)), rtol=0, atol=0)


def test_queries_know_their_places() -> None:
    """The vectors of a map that ask for tokens are told where they stand; those that ask for words
    are not.
    """
    net, block = network(), unet().double().up[1].transformers[0]
    x, tokens, places = draws(2, 16, 16), draws(2, 3, 6, seed=1), net.map_places[1]
    cross, gate = block.cross_attention, torch.tensor(0.7).double()
    block.self_attention = None
    found = block(x, TEXT, MASK, Gated(tokens, gate, {16: places}))
    query = block.norms[1](x)
    told = x + cross(query, TEXT, MASK) + gate * cross(query + places, tokens)
    torch.testing.assert_close(found, told + block.feed_forward(block.norms[2](told)))
    net(X, LEVEL, TEXT, MASK, KNOWN, draws(2, 3, 16)).square().sum().backward()
    assert all(place.grad.any(1).all() for place in net.map_places)
    assert [len(place) for place in network(transformers=(0, 1)).map_places] == [16]


def test_x_outside_of_the_hole_does_not_matter() -> None:
    net, subject = network(), draws(2, 3, 16)
    out = net(X, LEVEL, TEXT, MASK, KNOWN, subject)
    beside = torch.where(HOLE > 0, X, torch.full_like(X, torch.nan))
    assert torch.equal(net(beside, LEVEL, TEXT, MASK, KNOWN, subject), out)
    assert not torch.equal(net(X + HOLE, LEVEL, TEXT, MASK, KNOWN, subject), out)


def test_it_depends_on_all_it_is_told() -> None:
    net, subject = network(), draws(2, 3, 16)
    out = net(X, LEVEL, TEXT, MASK, KNOWN, subject)
    others = [
        net(X, LEVEL + 1, TEXT, MASK, KNOWN, subject),
        net(X, LEVEL, TEXT.flip(1), MASK, KNOWN, subject),
        net(X, LEVEL, TEXT, None, KNOWN, subject),
        net(X, LEVEL, None, None, KNOWN, subject),
        net(X, LEVEL, TEXT, MASK, KNOWN + 0.1 * (KNOWN != 0), subject),
        net(X, LEVEL, TEXT, MASK, torch.cat([KNOWN[:, :3], torch.zeros_like(HOLE)], 1), subject),
        net(X, LEVEL, TEXT, MASK, None, subject),
        net(X, LEVEL, TEXT, MASK, KNOWN, subject + draws(2, 3, 16, seed=2)),
        net(X, LEVEL, TEXT, MASK, KNOWN),
    ]
    assert all((out - other).abs().max() > 1e-3 for other in others)
    torch.testing.assert_close(net(X, LEVEL, TEXT, MASK, KNOWN, subject.flip(1)), out)


@pytest.mark.parametrize(("way", "matters"), [("up", False), ("down", True)])
def test_the_way_up_alone_sees_the_subject(way: str, matters: bool) -> None:
    """Without cross-attention on the way up, tokens have no effect; the way down has no part."""
    net = network()
    for level in getattr(net.unet, way):
        for block in level.transformers:
            block.cross_attention = None
    first, other = (net(X, LEVEL, TEXT, MASK, KNOWN, draws(2, 3, 16, seed=s)) for s in (0, 1))
    assert torch.equal(first, other) != matters


def test_the_way_down_learns_from_the_tokens() -> None:
    """Gradients reach the way down through the tokens too, so that it learns to describe."""
    net = network(Pooled())
    net(
        X, LEVEL, TEXT, MASK, KNOWN, net.tokens(PICTURE.requires_grad_())
    ).square().sum().backward()
    assert PICTURE.grad is not None
    assert PICTURE.grad.abs().amax((1, 2, 3)).min() > 0
    PICTURE.requires_grad_(False)


WRONG = [
    ({"channels": 6}, {}, "unet must have 2 C \\+ 1 channels"),
    ({"channels": 1}, {}, "unet must have 2 C \\+ 1 channels"),
    ({"guided": True}, {}, "unet must not be guided"),
    ({}, {"level": 2}, "level must be below 2, got 2"),
    ({}, {"level": -1}, "level must be an integer >= 0"),
    ({}, {"clean_level": float("nan")}, "clean_level must be finite"),
    ({}, {"selection": "discriminative"}, "selection must be a TokenSelection"),
    ({"transformers": (0, 0)}, {}, "unet must have a transformer block with cross-attention"),
    ({"cross_attention": (False, False)}, {}, "unet must have a transformer block with cross"),
]


@pytest.mark.parametrize(("changes", "arguments", "message"), WRONG)
def test_wrong_arguments_are_refused(changes: dict, arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SubjectUNet(unet(**changes), **{"selection": Pooled(), **arguments})


def test_wrong_inputs_are_refused() -> None:
    net = network()
    with pytest.raises(ValueError, match=r"x must have shape \(batch, \*\(3, 8, 8\)\)"):
        net(X[:, :2], LEVEL)
    with pytest.raises(ValueError, match=r"known must have shape \(2, 4, 8, 8\), got \(2, 3,"):
        net(X, LEVEL, known=PICTURE)
    with pytest.raises(ValueError, match=r"subject must have shape \(2, K, 16\), got \(1, 3, 16"):
        net(X, LEVEL, subject=draws(1, 3, 16))
    with pytest.raises(ValueError, match="num_tokens must be at most the number of features, 16"):
        network(Discriminative(17)).tokens(PICTURE)
    with pytest.raises(ValueError, match="x must have shape"):
        net.tokens(PICTURE[:, :, :4])


def test_runs_on_meta() -> None:
    with torch.device("meta"):
        net = SubjectUNet(unet(), Discriminative(3))
        x, known = torch.zeros(2, *SHAPE), torch.zeros(2, 4, 8, 8)
        out = net(x, torch.zeros(2), torch.zeros(2, 4, 6), None, known, net.tokens(x))
    assert out.shape == (2, *SHAPE)
