"""The loss of a step: mixed batches, distillation, losses of one's own; and averaged weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from autosparse.errors import UsageError
from autosparse.train.averaging import Average
from autosparse.train.objective import Mixed, Objective, mix
from autosparse.train.recipes import Recipe


def recipe_of(**changes):
    return Recipe(kind="short", epochs=4, label_smoothing=0.0, **changes)


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(12, 3, 8, 6, generator=generator)
    return images, torch.arange(12) % 5


def test_without_mixing_a_batch_stays_what_it_is(batch):
    mixed = mix(*batch, recipe_of(), 1)
    assert mixed.images is batch[0] and mixed.labels is batch[1] and mixed.others is None


def test_mixup_adds_pairs_of_images_by_one_share(batch):
    images, labels = batch
    mixed = mix(images, labels, recipe_of(mixup=0.4), 1)
    assert 0 < mixed.share < 1
    pairs = {}
    for row in range(12):
        rest = (mixed.images[row] - mixed.share * images[row]) / (1 - mixed.share)
        pairs[row] = int((images - rest).abs().sum(dim=(1, 2, 3)).argmin())
        torch.testing.assert_close(images[pairs[row]], rest, atol=1e-4, rtol=1e-4)
        assert mixed.others[row] == labels[pairs[row]]
    assert sorted(pairs.values()) == list(range(12))
    again = mix(images, labels, recipe_of(mixup=0.4), 1)
    assert torch.equal(again.images, mixed.images) and again.share == mixed.share
    assert mix(images, labels, recipe_of(mixup=0.4), 2).share != mixed.share


def test_cutmix_counts_the_pixels_that_are_left(batch):
    images, labels = batch
    seen = set()
    for seed in range(40):
        mixed = mix(images, labels, recipe_of(cutmix=1.0), seed)
        same = (mixed.images == images).all(dim=1)
        for row in range(12):
            changed = ~same[row]
            if changed.any():
                rows, columns = torch.where(changed)
                window = changed[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
                assert window.all()  # a rectangle
                assert mixed.share == pytest.approx(1 - float(changed.float().mean()))
        seen.add(round(mixed.share, 3))
    assert len(seen) > 10 and all(0 <= share <= 1 for share in seen)


def test_of_mixup_and_cutmix_one_is_drawn_per_batch(batch):
    images, labels = batch
    both = recipe_of(mixup=1.0, cutmix=1.0)
    cuts = 0
    for seed in range(60):
        mixed = mix(images, labels, both, seed)
        cuts += bool(torch.isin(mixed.images, images).all())
    assert 15 < cuts < 45


def test_one_image_is_not_mixed(batch):
    images, labels = batch[0][:1], batch[1][:1]
    assert mix(images, labels, recipe_of(mixup=1.0), 0).others is None


def test_mixed_labels_share_the_loss_as_their_images_do(batch):
    images, labels = batch
    net = nn.Sequential(nn.Flatten(), nn.Linear(144, 5))
    mixed = Mixed(images, labels, labels.flip(0), 0.3)
    found = Objective(recipe_of())(net, mixed)
    soft = 0.3 * functional.one_hot(labels, 5) + 0.7 * functional.one_hot(labels.flip(0), 5)
    expected = -(soft * functional.log_softmax(net(images), dim=1)).sum(dim=1).mean()
    torch.testing.assert_close(found, expected)


def test_distillation_mixes_labels_with_the_teachers_soft_outputs(batch):
    images, labels = batch
    torch.manual_seed(0)
    net, teacher = (nn.Sequential(nn.Flatten(), nn.Linear(144, 5)) for _ in range(2))
    recipe = recipe_of(distill=0.6, temperature=3.0)
    found = Objective(recipe, teacher)(net, Mixed(images, labels))
    p, q = (functional.softmax(m(images).double() / 3, dim=1) for m in (teacher, net))
    divergence = (p * (p.log() - q.log())).sum(dim=1).mean() * 9
    hard = functional.cross_entropy(net(images), labels)
    torch.testing.assert_close(found.double(), 0.4 * hard + 0.6 * divergence, rtol=1e-5, atol=1e-6)
    found.backward()
    assert all(p.grad is None for p in teacher.parameters())
    with pytest.raises(UsageError, match="weights of the dense model"):
        Objective(recipe)


LOSS = """
import torch
def loss(output, labels):
    return torch.nn.functional.cross_entropy(output[0], labels) + 0.4 * output[1].square().mean()
def number(output, labels):
    return 3.0
def vector(output, labels):
    return output[0].sum(dim=1)
"""


def test_a_loss_of_ones_own_sees_the_whole_output(batch, tmp_path):
    images, labels = batch
    file = tmp_path / "mine.py"
    file.write_text(LOSS)
    net = nn.Sequential(nn.Flatten(), nn.Linear(144, 5))

    def model(x):
        return net(x), x.mean()

    found = Objective(recipe_of(loss=f"{file}:loss"))(model, Mixed(images, labels))
    expected = functional.cross_entropy(net(images), labels) + 0.4 * images.mean() ** 2
    torch.testing.assert_close(found, expected)
    for name, told in (("number", "gave float"), ("vector", r"gave a tensor \[12\]")):
        with pytest.raises(UsageError, match=told):
            Objective(recipe_of(loss=f"{file}:{name}"))(model, Mixed(images, labels))
    with pytest.raises(UsageError, match="other"):
        Objective(recipe_of(loss=f"{file}:other"))
    with pytest.raises(UsageError, match="is the whole loss, so mixup must be 0"):
        recipe_of(loss=f"{file}:loss", mixup=0.2)


class TestAverage:
    def test_it_is_the_exponential_mean_and_leaves_the_module_as_it_was(self):
        net = nn.Sequential(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3))
        average = Average(net, 0.5)
        mean = {name: value.detach().numpy().astype(float) for name, value in net.named_parameters()}
        for step in range(1, 8):
            with torch.no_grad():
                for value in net.parameters():
                    value.add_(torch.randn_like(value))
                net[1].running_mean.add_(1.0)
            average.update(net)
            decay = min(0.5, (1 + step) / (10 + step))
            for name, value in net.named_parameters():
                mean[name] = decay * mean[name] + (1 - decay) * value.detach().numpy()
        before = {name: value.clone() for name, value in net.state_dict().items()}
        with average.applied(net):
            for name, value in net.named_parameters():
                np.testing.assert_allclose(value.detach().numpy(), mean[name], rtol=1e-4, atol=1e-5)
            assert not torch.equal(net[1].running_mean, before["1.running_mean"])
            assert net[1].num_batches_tracked == before["1.num_batches_tracked"]
        assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())

    def test_it_goes_on_from_its_state(self):
        net = nn.Linear(3, 2)
        first, second = Average(net, 0.9), Average(nn.Linear(3, 2), 0.9)
        for _ in range(3):
            with torch.no_grad():
                net.weight.add_(1.0)
            first.update(net)
        second.restore(first.state())
        with torch.no_grad():
            net.weight.add_(1.0)
        first.update(net)
        second.update(net)
        assert all(
            torch.equal(a, b)
            for a, b in zip(first.state().values(), second.state().values(), strict=True)
        )
