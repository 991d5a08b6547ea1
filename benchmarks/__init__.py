"""Benchmarks: what `optgen bench` runs, and programs for the questions that it does not ask.

    optgen bench                          rules beside the peers that are installed (bench, worker, measure, targets)
    python -m benchmarks.chains           what chains and norms cost, in ratio to ADAM
    python -m benchmarks.courses          what a rule saves that does something every few steps
    python -m benchmarks.latency          what waits for a person: builds, imports, small steps
    python -m benchmarks.torch_adapter    what a step costs through PyTorch's interface
    python -m benchmarks.fast             what a fast mode would gain
    python -m benchmarks.functions        how near functions are to the true values, and what they cost
    python -m benchmarks.powers           rules made of powers beside eager PyTorch

Modules:

    shapes, rules             lists of parameters; what is measured, and the bytes that a step must move
    peers                     the other implementations, with torch_peers, deepspeed_peer, optax_peer, numba_peer and
                              numpy_peer behind it
    stream                    the memory limit
    steps, experiments        what is timed; `measure` takes the times in turn
    bench, worker, targets    tables, the process that measures, verdicts; `picture` draws

In a checkout this folder stands beside the package, in a wheel inside it. `optgen.paths.benchmarks` finds it.
"""
