"""What optgen is measured with: `optgen bench`, and programs for what that does not ask.

    optgen bench                          rules beside the peers that are installed (bench, worker, measure, targets)
    python -m benchmarks.chains           what chains and norms cost, in ratio to ADAM
    python -m benchmarks.latency          what waits for a person: builds, imports, small steps
    python -m benchmarks.torch_adapter    what a step costs through PyTorch's interface
    python -m benchmarks.fast             what a fast mode would gain

Modules: `shapes` of models; `rules` that are measured, and the bytes that they must move; `peers`, an adapter for
each of the others, with `torch_peers`, `deepspeed_peer`, `optax_peer`, `numba_peer` and `numpy_peer` behind it; the
`stream`, which is the limit; `steps` and `experiments`, which `measure` times in turn; the `picture`.

In a checkout this folder stands beside the package, in a wheel inside it; `optgen.paths.benchmarks` finds it.
"""
