"""The peer of `robustness.py --torch`: the same net in PyTorch with `jacobian-regularizer`.

    python robustness_torch.py DATA.npz STRENGTH SEED

Prints the three accuracies as JSON. The package's penalty has a factor of 1/2 in it.
"""

import json
import sys

import numpy as np
import torch
from jacobian import JacobianReg
from torch import nn


def lenet(weights):
    """The net of `robustness.py` with its initial weights, laid out as PyTorch wants them."""
    net = nn.Sequential(
        *[nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)],
        *[nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()],
        *[nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10)],
    )
    # Flattened images: height, width, channels in Keras; channels, height, width in PyTorch.
    weights[4] = weights[4].reshape(5, 5, 16, 120).transpose(2, 0, 1, 3).reshape(400, 120)
    with torch.no_grad():
        for parameter, value in zip(net.parameters(), weights, strict=True):
            axes = {4: (3, 2, 0, 1), 2: (1, 0), 1: (0,)}[value.ndim]
            parameter.copy_(torch.tensor(value.transpose(axes).copy()))
    return net


def pgd(net, x, y, epsilon=0.1, steps=10):
    generator = torch.Generator().manual_seed(0)
    moved = (x + epsilon * (2 * torch.rand(x.shape, generator=generator) - 1)).clamp(0, 1)
    for _ in range(steps):
        moved.requires_grad_(True)
        loss = nn.functional.cross_entropy(net(moved), y, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, moved)
        moved = moved.detach() + 2.5 * epsilon / steps * gradient.sign()
        moved = torch.minimum(torch.maximum(moved, x - epsilon), x + epsilon).clamp(0, 1)
    return moved


def main(path, strength, seed):
    arrays = np.load(path)
    x, x_test = (torch.tensor(arrays[k]).permute(0, 3, 1, 2) for k in ("x", "x_test"))
    y, y_test = torch.tensor(arrays["y"]), torch.tensor(arrays["y_test"])
    torch.manual_seed(seed)
    weights = [arrays[f"weight_{i}"] for i in range(10)]
    net, penalty = lenet(weights), JacobianReg(n=1)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3, eps=1e-7)
    for order in torch.tensor(arrays["orders"]):
        for batch in order.split(64):
            inputs = x[batch].requires_grad_(strength > 0)
            logits = net(inputs)
            loss = nn.functional.cross_entropy(logits, y[batch])
            if strength:
                loss = loss + 2 * strength * penalty(inputs, logits)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    noise = np.random.default_rng(0).normal(size=arrays["x_test"].shape).astype("float32")
    noisy = (x_test + 0.3 * torch.tensor(noise).permute(0, 3, 1, 2)).clamp(0, 1)
    inputs = {"clean": x_test, "noise 0.3": noisy, "PGD 0.1": pgd(net, x_test, y_test)}
    with torch.no_grad():
        found = {
            name: float((net(images).argmax(1) == y_test).float().mean())
            for name, images in inputs.items()
        }
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]), int(sys.argv[3]))
