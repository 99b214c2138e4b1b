"""The peer of `kfac.py --jax`: the same autoencoder, weights and batches with kfac-jax.

    python kfac_peer.py RUN.npz

Prints `{"losses": {step: training loss}, "ms": median step, "seconds": [of each step]}` as JSON.
"""

import json
import sys
import time

import jax
import jax.numpy as jnp
import kfac_jax
import numpy as np


def main(path):
    given = np.load(path)
    x, batches = jnp.asarray(given["x"]), given["batches"]
    count = sum(name.startswith("weight_") for name in given) // 2
    params = [
        {"w": jnp.asarray(given[f"weight_{2 * i}"]), "b": jnp.asarray(given[f"weight_{2 * i + 1}"])}
        for i in range(count)
    ]
    linear = int(given["linear"])

    def forward(params, x):
        for i, layer in enumerate(params):
            x = x @ layer["w"] + layer["b"]
            if i not in (linear, count - 1):
                x = jnp.tanh(x)
        return x

    def mean_loss(params, x):
        logits = forward(params, x)
        entropy = jnp.maximum(logits, 0) - logits * x + jnp.log1p(jnp.exp(-jnp.abs(logits)))
        return entropy.sum(-1).mean()

    def loss(params, batch):
        kfac_jax.register_multi_bernoulli_predictive_distribution(forward(params, batch), batch)
        return mean_loss(params, batch)

    optimizer = kfac_jax.Optimizer(
        value_and_grad_func=jax.value_and_grad(loss),
        l2_reg=0.0,
        value_func_has_aux=False,
        value_func_has_state=False,
        use_adaptive_learning_rate=True,
        use_adaptive_momentum=True,
        use_adaptive_damping=True,
        initial_damping=1.0,
        inverse_update_period=5,
        num_burnin_steps=0,
        multi_device=False,
    )
    key = jax.random.PRNGKey(0)
    state = optimizer.init(params, key, x[batches[0]])
    whole = jax.jit(mean_loss)
    wanted = set(given["report"].tolist())
    losses, seconds = {}, []
    for i, batch in enumerate(batches):
        key, own = jax.random.split(key)
        rows = x[batch]
        start = time.perf_counter()
        params, state, stats = optimizer.step(params, state, own, batch=rows, global_step_int=i)
        jax.block_until_ready((params, stats))
        seconds.append(time.perf_counter() - start)
        if i + 1 in wanted:
            losses[i + 1] = float(whole(params, x))
    print(json.dumps({"losses": losses, "ms": 1e3 * float(np.median(seconds)), "seconds": seconds}))


if __name__ == "__main__":
    main(sys.argv[1])
